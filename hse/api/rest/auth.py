"""Signing in, going on, signing out."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, post
from litestar.params import JSONBody

from hse.api.bodies import Body, Email
from hse.api.entrance import REFRESH_COOKIE, Entrances, SignedIn, signed_in, signed_out
from hse.api.security import check_csrf_token, principal_in
from hse.domain.identity import sessions
from hse.domain.identity.authentication import Codes, SignIn, sign_in
from hse.domain.identity.passwords import PASSWORD_CHARS_MAX
from hse.domain.identity.principals import SessionPrincipal, Unauthenticated

Password = Annotated[str, msgspec.Meta(min_length=1, max_length=PASSWORD_CHARS_MAX, examples=["correct horse battery"])]
TotpCode = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}$", examples=["123456"])]
RecoveryCode = Annotated[str, msgspec.Meta(min_length=1, max_length=40, examples=["abcd-efgh-ijkl-mnop"])]
OpaqueToken = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$")]


class Credentials(Body):
    """Who signs in, and whether as a browser, whose tokens go into cookies."""

    email: Email
    password: Password
    totp_code: TotpCode | None = None
    recovery_code: RecoveryCode | None = None
    in_cookies: bool = False


class Continuation(Body):
    """A program's refresh token; a browser sends its cookie instead, and X-CSRF-Token."""

    refresh_token: OpaqueToken | None = None


@post("/login", status_code=200, opt={"is_public": True})
async def log_in(
    request: Request[Any, Any, Any], entrance: Entrances, data: JSONBody[Credentials]
) -> Response[SignedIn]:
    """Begin a session with e-mail address and password, and a one-time code where that is set up."""
    command = SignIn(
        email=data.email,
        password=data.password,
        codes=Codes(totp=data.totp_code, recovery=data.recovery_code),
        user_agent=request.headers.get("user-agent"),
    )
    opened = await sign_in(entrance, command)
    return signed_in(entrance.keeping, opened, in_cookies=data.in_cookies)


@post("/refresh", status_code=200, opt={"is_public": True})
async def refresh(
    request: Request[Any, Any, Any], entrance: Entrances, data: JSONBody[Continuation | None] = None
) -> Response[SignedIn]:
    """Get the next access token and the next refresh token: each is good for one use, and a second use ends the session."""
    given = None if data is None else data.refresh_token
    token = given or request.cookies.get(REFRESH_COOKIE)
    if token is None or not token.isascii():
        raise Unauthenticated

    def check_caller(session_id: UUID) -> None:
        if given is None:
            check_csrf_token(request, session_id)

    opened = await sessions.refresh(entrance, token, check_caller=check_caller)
    return signed_in(entrance.keeping, opened, in_cookies=given is None)


@post("/logout", status_code=204, opt={"is_public": True})
async def log_out(
    request: Request[Any, Any, Any], entrance: Entrances, data: JSONBody[Continuation | None] = None
) -> Response[None]:
    """End the session whose access or refresh token is sent. Once it has ended, this changes nothing."""
    principal = principal_in(request)
    session_id = principal.session_id if isinstance(principal, SessionPrincipal) else None
    if isinstance(principal, SessionPrincipal) and principal.is_cookie:
        check_csrf_token(request, principal.session_id)
    token = (None if data is None else data.refresh_token) or request.cookies.get(REFRESH_COOKIE)
    await sessions.sign_out(entrance, session_id=session_id, token=token if token and token.isascii() else None)
    return signed_out(entrance.keeping)


router = Router(path="/auth", tags=["authentication"], route_handlers=[log_in, refresh, log_out])
