"""What a request proves itself with, and what every request must pass before a handler sees it.

Three ways in: an access token in `Authorization: Bearer`, the same in the cookie of a browser's session, or an API key in
`X-API-Key`. Whose they are is asked of the database by the transaction (`hse.adapters.postgres.database`); here is only read
what they say. A handler is closed unless it says `opt={"is_public": True}`.
"""

import ipaddress
from typing import Any
from uuid import uuid4

import structlog
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from hse.adapters.postgres.work import Origin
from hse.adapters.tokens import AccessTokens, split_key
from hse.domain.identity.principals import KeyPrincipal, Principal, SessionPrincipal, Unauthenticated

ACCESS_COOKIE = "hse_access"
CORRELATION_HEADER = "x-correlation-id"
CORRELATION_CHARS_MAX = 100

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
]
CONTENT_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
NO_STORE = (b"cache-control", b"no-store")


class RequestContext(ASGIMiddleware):
    """Gives each request its correlation id, its origin and its principal, and each answer its headers."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on, and its answer back."""
        headers = Headers.from_scope(scope)
        correlation_id = _correlation_id(headers.get(CORRELATION_HEADER))
        state: dict[str, Any] = scope["state"]
        state["correlation_id"] = correlation_id
        state["origin"] = Origin(address=address_of(scope), correlation_id=correlation_id)
        state["principal"] = principal_of(scope, headers, self._tokens)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                added = [*SECURITY_HEADERS, CONTENT_POLICY, NO_STORE]
                message["headers"] = [
                    *message["headers"],
                    *(header for header in added if header[0] not in names),
                    (CORRELATION_HEADER.encode(), correlation_id.encode()),
                ]
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            await next_app(scope, receive, send_with_headers)


def address_of(scope: Scope) -> str | None:
    """The caller's IP address; None when the connection has none."""
    client = scope.get("client")
    try:
        return None if client is None else str(ipaddress.ip_address(client[0]))
    except ValueError:
        return None


def principal_of(scope: Scope, headers: Headers, tokens: AccessTokens) -> Principal | None:
    """What the request proves itself with; None when it has nothing, or nothing valid."""
    if (key := headers.get("x-api-key")) is not None:
        parts = split_key(key)
        return None if parts is None else KeyPrincipal(prefix=parts[0], secret_hash=parts[1])
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        session_id = tokens.session_of(token.strip())
        return None if session_id is None else SessionPrincipal(session_id=session_id)
    cookie = ASGIConnection(scope).cookies.get(ACCESS_COOKIE)
    if cookie is None:
        return None
    session_id = tokens.session_of(cookie)
    return None if session_id is None else SessionPrincipal(session_id=session_id, is_cookie=True)


def require_principal(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Close every handler that does not say that it is public. Raises `Unauthenticated`."""
    if handler.opt.get("is_public") or connection.scope["state"].get("principal") is not None:
        return
    raise Unauthenticated


def principal_in(request: Request[Any, Any, Any]) -> Principal | None:
    """The principal of a request that may have none."""
    principal: Principal | None = request.scope["state"].get("principal")
    return principal


def _correlation_id(given: str | None) -> str:
    """The caller's id, when it is one that can be logged and searched; else a new one."""
    if given and len(given) <= CORRELATION_CHARS_MAX and given.isascii() and given.isprintable():
        return given
    return uuid4().hex
