"""What a request signs in through, and the cookies that a browser's session lives in.

A browser gets its tokens in cookies that its scripts cannot read, and never in a body; a program gets them in the body, and no
cookies. Which of the two it is says who signs in, and a session stays what it began as.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from hse.adapters.passwords import Argon2Passwords
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.entrance import PostgresEntranceWork
from hse.adapters.postgres.work import Origin
from hse.adapters.throttle import SignInThrottle
from hse.adapters.tokens import ACCESS_TOKEN_LIFETIME, AccessTokens, CsrfTokens, RefreshTokenMaker
from hse.adapters.totp import TotpFactor
from hse.api.security import ACCESS_COOKIE
from hse.domain.identity.sessions import OpenSession

REFRESH_COOKIE = "hse_refresh"
CSRF_COOKIE = "hse_csrf"
REFRESH_PATH = "/api/v1/auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorkeeping:
    """What signing in is wired from."""

    passwords: Argon2Passwords
    tokens: AccessTokens
    refresh_tokens: RefreshTokenMaker
    csrf_tokens: CsrfTokens
    second_factor: TotpFactor
    # False only where people open the api on their own machine, without TLS.
    has_secure_cookies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEntrance:
    """Where one request signs in."""

    database: Database
    origin: Origin
    keeping: Doorkeeping
    throttle: SignInThrottle

    @property
    def address(self) -> str | None:
        """The address that the request came from."""
        return self.origin.address

    @property
    def passwords(self) -> Argon2Passwords:
        """The passwords."""
        return self.keeping.passwords

    @property
    def refresh_tokens(self) -> RefreshTokenMaker:
        """The refresh tokens."""
        return self.keeping.refresh_tokens

    @property
    def second_factor(self) -> TotpFactor:
        """The one-time codes."""
        return self.keeping.second_factor

    def transaction(self) -> AbstractAsyncContextManager[PostgresEntranceWork]:
        """A transaction: kept by its `commit`, else undone."""
        return self.database.entrance(self.origin, datetime.now(UTC))


Entrances = NamedDependency[SkipValidation[RequestEntrance]]


async def provide_entrance(request: Request[Any, Any, Any]) -> RequestEntrance:
    """The request's way to sign in."""
    state = request.app.state
    return RequestEntrance(
        database=state.database,
        origin=request.scope["state"]["origin"],
        keeping=state.doorkeeping,
        throttle=SignInThrottle(state.limiter),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A session. Its tokens are here for a program, and in cookies for a browser, which sends `csrf_token` back as X-CSRF-Token."""

    user_id: str
    session_id: str
    expires_in: int
    refresh_expires_in: int
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (RFC 6750's word)
    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    csrf_token: str | None = field(default=None, repr=False)


def signed_in(keeping: Doorkeeping, opened: OpenSession, *, in_cookies: bool) -> Response[SignedIn]:
    """The answer to who begins or goes on with a session."""
    access_token = keeping.tokens.issue(opened.user_id, opened.session_id, opened.now)
    csrf_token = keeping.csrf_tokens.token_of(opened.session_id)
    lifetime = int((opened.expires_at - opened.now).total_seconds())
    content = SignedIn(
        user_id=str(opened.user_id),
        session_id=str(opened.session_id),
        expires_in=int(ACCESS_TOKEN_LIFETIME.total_seconds()),
        refresh_expires_in=lifetime,
        access_token=None if in_cookies else access_token,
        refresh_token=None if in_cookies else opened.refresh_token,
        csrf_token=csrf_token if in_cookies else None,
    )
    if not in_cookies:
        return Response(content=content)
    values = {ACCESS_COOKIE: access_token, REFRESH_COOKIE: opened.refresh_token, CSRF_COOKIE: csrf_token}
    ages = {ACCESS_COOKIE: content.expires_in, REFRESH_COOKIE: lifetime, CSRF_COOKIE: lifetime}
    cookies = [_cookie(keeping, name, value, ages[name]) for name, value in values.items()]
    return Response(content=content, cookies=cookies)


def signed_out(keeping: Doorkeeping) -> Response[None]:
    """The answer to who ends a session: a browser forgets it."""
    cookies = [_cookie(keeping, name, "", 0) for name in (ACCESS_COOKIE, REFRESH_COOKIE, CSRF_COOKIE)]
    return Response(content=None, status_code=204, cookies=cookies)


def _cookie(keeping: Doorkeeping, name: str, value: str, max_age: int) -> Cookie:
    return Cookie(
        key=name,
        value=value,
        max_age=max_age,
        path=REFRESH_PATH if name == REFRESH_COOKIE else "/",
        secure=keeping.has_secure_cookies,
        # The page reads the CSRF token; the other two are none of its business.
        httponly=name != CSRF_COOKIE,
        samesite="lax" if name == ACCESS_COOKIE else "strict",
    )
