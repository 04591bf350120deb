"""Signing in, going on, signing out."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response, Router, post
from litestar.background_tasks import BackgroundTask
from litestar.params import JSONBody

from hse.api.bodies import Body, KnownEmail
from hse.api.entrance import REFRESH_COOKIE, Entrances, RequestEntrance, SignedIn, signed_in, signed_out
from hse.api.security import check_csrf_token, principal_in
from hse.domain.identity import password_resets, sessions
from hse.domain.identity.authentication import Codes, SignIn, sign_in
from hse.domain.identity.passwords import PASSWORD_CHARS_MAX
from hse.domain.identity.principals import SessionPrincipal, Unauthenticated

Password = Annotated[str, msgspec.Meta(min_length=1, max_length=PASSWORD_CHARS_MAX, examples=["correct horse battery"])]
# Its length is checked with the rest of what makes a password weak, under one code.
NewPassword = Annotated[str, msgspec.Meta(min_length=1, max_length=1000, examples=["seven otters juggle plums"])]
TotpCode = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}$(?!\n)", examples=["123456"])]
RecoveryCode = Annotated[str, msgspec.Meta(min_length=1, max_length=40, examples=["abcd-efgh-ijkl-mnop"])]
OpaqueToken = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")]

logger = structlog.get_logger(__name__)


class Credentials(Body):
    """Who signs in, and whether as a browser, whose tokens go into cookies."""

    email: KnownEmail
    password: Password
    totp_code: TotpCode | None = None
    recovery_code: RecoveryCode | None = None
    in_cookies: bool = False


class Continuation(Body):
    """A program's refresh token; a browser sends its cookie instead, and X-CSRF-Token."""

    refresh_token: OpaqueToken | None = None


@post("/login", status_code=200, opt={"is_public": True, "refusals": (401,)})
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
    with request.app.state.metrics.counted_sign_in():
        opened = await sign_in(entrance, command)
    return signed_in(entrance.keeping, opened, in_cookies=data.in_cookies)


@post("/refresh", status_code=200, opt={"is_public": True, "refusals": (401,)})
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


class Forgetful(Body):
    """Who has forgotten his password."""

    email: KnownEmail


class NewPasswordByLink(Body):
    """The token of the link, and the password to have from now on."""

    token: OpaqueToken
    new_password: NewPassword


async def send_link(entrance: RequestEntrance, email: str) -> None:
    """Send the letter after the answer: how long that takes tells nobody whether there is such an account."""
    try:
        await password_resets.send_link(entrance, email)
    except Exception as error:
        logger.error("no link for a new password was sent", exc_info=error)


@post("/password-reset", status_code=202, opt={"is_public": True})
async def ask_for_reset(entrance: Entrances, data: JSONBody[Forgetful]) -> Response[None]:
    """Have a link for a new password sent, if there is an account with this address. The answer is the same if there is none."""
    await password_resets.may_ask(entrance, data.email)
    return Response(content=None, status_code=202, background=BackgroundTask(send_link, entrance, data.email))


@post("/password-reset/confirm", status_code=204, opt={"is_public": True})
async def confirm_reset(entrance: Entrances, data: JSONBody[NewPasswordByLink]) -> None:
    """Choose a new password with the token of the link that was sent. It ends all your sessions.

    Your API keys stay; the letter that tells of the new password says how many there are.
    """
    await password_resets.reset_password(entrance, data.token, data.new_password)


router = Router(
    path="/auth", tags=["authentication"], route_handlers=[log_in, refresh, log_out, ask_for_reset, confirm_reset]
)
