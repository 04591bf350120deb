"""What a request proves itself with, and what every request must pass before a handler sees it.

Three ways in: an access token in `Authorization: Bearer`, the same in the cookie of a browser's session, or an API key in
`X-API-Key`. Whose they are is asked of the database by the transaction (`hse.adapters.postgres.database`); here is only read
what they say. A handler is closed unless it says `opt={"is_public": True}`.

A browser sends its cookies whoever made it send the request. So what changes something, and came with a cookie, must also carry
the session's CSRF token, which only a page of this origin can read; and nothing that a foreign page sends is taken but with a token
or key of its own in a header.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID, uuid4

import structlog
from litestar import Request
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from hse.adapters.postgres.work import Origin
from hse.adapters.tokens import AccessTokens, CsrfTokens, split_key
from hse.api.limits import rate_limit_headers
from hse.domain.errors import DomainError, ErrorKind
from hse.domain.identity.principals import KeyPrincipal, Principal, SessionPrincipal, Unauthenticated

ACCESS_COOKIE = "hse_access"
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
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


ALLOWED_HEADERS = [
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "x-api-key",
    CORRELATION_HEADER,
    CSRF_HEADER,
]
EXPOSED_HEADERS = [
    "ETag",
    "Idempotency-Replayed",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
]


def cors_config(origins: tuple[str, ...]) -> CORSConfig | None:
    """Lets the pages of exactly these origins read what is answered, with the session's cookies; without any, nobody's."""
    if not origins:
        return None
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=ALLOWED_HEADERS,
        expose_headers=[*EXPOSED_HEADERS, "X-Correlation-Id"],
        allow_credentials=True,
    )


class Forged(DomainError):
    """A request that a foreign page may have made a browser send."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "request.forged"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class RequestContext(ASGIMiddleware):
    """Gives each request its correlation id, its origin and its principal, and each answer its headers."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on, and its answer back."""
        headers = Headers.from_scope(scope)
        correlation_id = _correlation_id(headers.get(CORRELATION_HEADER))
        state: dict[str, Any] = scope["state"]
        state["correlation_id"] = correlation_id
        state["origin"] = Origin(address=address_of(scope), correlation_id=correlation_id)
        state["principal"] = principal_of(scope, headers, scope["litestar_app"].state.tokens)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                added = [*SECURITY_HEADERS, CONTENT_POLICY, NO_STORE, *rate_limit_headers(state)]
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
    if "x-api-key" in headers or headers.get("authorization", "").partition(" ")[0].lower() == "bearer":
        return principal_of_credentials(headers, tokens)
    cookie = ASGIConnection(scope).cookies.get(ACCESS_COOKIE)
    return None if cookie is None else _principal_of_token(cookie, tokens, is_cookie=True)


def principal_of_credentials(given: Mapping[str, Any], tokens: AccessTokens) -> Principal | None:
    """What an `x-api-key`, or else a bearer token as `authorization`, proves; None when there is nothing, or nothing valid."""
    if isinstance(key := given.get("x-api-key"), str):
        parts = split_key(key)
        return None if parts is None else KeyPrincipal(prefix=parts[0], secret_hash=parts[1])
    scheme, _, token = str(given.get("authorization", "")).partition(" ")
    return _principal_of_token(token.strip(), tokens) if scheme.lower() == "bearer" else None


def _principal_of_token(token: str, tokens: AccessTokens, *, is_cookie: bool = False) -> SessionPrincipal | None:
    claims = tokens.read(token)
    if claims is None:
        return None
    return SessionPrincipal(session_id=claims.session_id, user_id=claims.user_id, is_cookie=is_cookie)


async def require_principal(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Close every handler that does not say that it is public, and each to forgeries. Raises `Unauthenticated`, `Forged`."""
    principal: Principal | None = connection.scope["state"].get("principal")
    is_public = bool(handler.opt.get("is_public"))
    # A WebSocket has no method, and may ask for changes.
    method = connection.scope.get("method")
    is_websocket = method is None
    # Programs in browsers cannot set headers there: they may prove who they are with the first message.
    is_expected = is_websocket and bool(handler.opt.get("proves_later"))
    if principal is None and not is_public and not is_expected:
        raise Unauthenticated
    if method in SAFE_METHODS:
        return
    if principal is not None and not (isinstance(principal, SessionPrincipal) and principal.is_cookie):
        return
    if is_foreign(connection, is_sibling_foreign=is_websocket):
        raise Forged("this comes from a page of another site: send an access token or an API key in a header")
    if isinstance(principal, SessionPrincipal) and not is_public and not is_websocket:
        check_csrf_token(connection, principal.session_id)


def check_csrf_token(connection: ASGIConnection[Any, Any, Any, Any], session_id: UUID) -> None:
    """See that the request carries the CSRF token of its session. Raises `Forged`."""
    csrf_tokens: CsrfTokens = connection.app.state.doorkeeping.csrf_tokens
    if not csrf_tokens.is_token_of(session_id, connection.headers.get(CSRF_HEADER)):
        raise Forged("send the cookie hse_csrf back as X-CSRF-Token, or an access token in Authorization")


def is_foreign(connection: ASGIConnection[Any, Any, Any, Any], *, is_sibling_foreign: bool) -> bool:
    """Whether a page of another site had a browser send this; programs, which say nothing of it, are not foreign.

    A WebSocket can carry no CSRF token, so there the origin itself must be this one: `is_sibling_foreign`.
    """
    site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    if origin is not None and origin in connection.app.state.trusted_origins:
        return False
    if site is not None and not is_sibling_foreign:
        return site == "cross-site"
    return origin is not None and origin.partition("://")[2] != connection.headers.get("host")


def principal_in(request: Request[Any, Any, Any]) -> Principal | None:
    """The principal of a request that may have none."""
    principal: Principal | None = request.scope["state"].get("principal")
    return principal


def _correlation_id(given: str | None) -> str:
    """The caller's id, when it is one that can be logged and searched; else a new one."""
    if given and len(given) <= CORRELATION_CHARS_MAX and given.isascii() and given.isprintable():
        return given
    return uuid4().hex
