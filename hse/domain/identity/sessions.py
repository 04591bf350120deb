"""Sessions: how they go on by refresh tokens, each good for one use, and how they end.

A token that is presented twice was copied by somebody, or its answer was lost. The successor of a token is a function of it and
of this machine's key, so a repeated use within the grace, while the successor itself is unused, gets the very same answer. Any
other repeated use ends the session for both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from hse.domain.identity.entrance import Entrance, RefreshToken
from hse.domain.identity.principals import Unauthenticated

REFRESH_LIFETIME = timedelta(days=7)
# However often it is refreshed: then he signs in anew.
SESSION_LIFETIME_MAX = timedelta(days=90)
REUSE_GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """A session with the refresh token that goes on with it."""

    user_id: UUID
    session_id: UUID
    refresh_token: str = field(repr=False)
    now: datetime
    expires_at: datetime


async def refresh(entrance: Entrance, token: str, *, check_caller: Callable[[UUID], None]) -> OpenSession:
    """Go on with a session; `check_caller` gets its id, and may raise before anything is done.

    Raises `Unauthenticated`, also for a token that is used again, which ends the session.
    """
    token_hash, successor = entrance.refresh_tokens.hash(token), entrance.refresh_tokens.successor(token)
    async with entrance.transaction() as work:
        found = await work.sessions.locked_token(token_hash)
        if found is None or not found.is_session_alive or not found.account.is_admitted:
            raise Unauthenticated
        check_caller(found.session_id)
        expires_at = found.session_expires_at
        if found.used_at is None:
            expires_at = min(work.now + REFRESH_LIFETIME, found.session_created_at + SESSION_LIFETIME_MAX)
            await work.sessions.rotate(found, entrance.refresh_tokens.hash(successor), expires_at)
            await work.commit()
        elif not _is_lost_answer(found, work.now):
            await work.sessions.revoke(found.session_id, "refresh token reused")
            await work.record(found.account.record("session.refresh_reused"), found.account.user_id)
            await work.commit()
            raise Unauthenticated
        return OpenSession(
            user_id=found.account.user_id,
            session_id=found.session_id,
            refresh_token=successor,
            now=work.now,
            expires_at=expires_at,
        )


async def sign_out(entrance: Entrance, *, session_id: UUID | None, token: str | None) -> None:
    """End the session that an access token or a refresh token names; none, or one that has ended, is no mistake."""
    async with entrance.transaction() as work:
        if session_id is None and token is not None:
            found = await work.sessions.locked_token(entrance.refresh_tokens.hash(token))
            session_id = None if found is None else found.session_id
        user_id = None if session_id is None else await work.sessions.revoke(session_id, "signed out")
        account = None if user_id is None else await work.accounts.locked(user_id)
        if account is not None:
            await work.record(account.record("session.sign_out"), account.user_id)
        await work.commit()


def _is_lost_answer(token: RefreshToken, now: datetime) -> bool:
    return token.used_at is not None and not token.is_successor_used and now - token.used_at <= REUSE_GRACE
