"""What users prove themselves with, and their sessions, in the database."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INET, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.identity_tables import (
    api_keys,
    credentials,
    recovery_codes,
    refresh_tokens,
    sessions,
    users,
)
from hse.adapters.throttle import network_of
from hse.domain.identity.entrance import Account, NewSession, RefreshToken, Totp

USER_AGENT_CHARS_MAX = 300

ACCOUNT_COLUMNS = (
    users.c.id.label("user_id"),
    users.c.email,
    users.c.first_name,
    users.c.last_name,
    users.c.partner_company_id,
    users.c.organization_id,
    sa.func.hse_is_admitted(users.c.id, type_=sa.Boolean).label("is_admitted"),
    credentials.c.password_hash,
    credentials.c.totp_sealed,
    credentials.c.totp_confirmed_at,
    credentials.c.totp_last_counter,
)


class Accounts:
    """What users prove themselves with."""

    def __init__(self, connection: AsyncConnection, address: str | None) -> None:
        self._connection = connection
        self._address = address

    async def by_email(self, email: str) -> Account | None:
        """The account with this address, however it is spelt."""
        statement = _accounts(self._came_before().label("is_address_known")).where(
            sa.func.lower(users.c.email) == sa.func.lower(email)
        )
        row = (await self._connection.execute(statement)).one_or_none()
        return None if row is None else account_of(row, is_address_known=row.is_address_known)

    async def by_id(self, user_id: UUID) -> Account | None:
        """The account of this user."""
        row = (await self._connection.execute(_accounts().where(users.c.id == user_id))).one_or_none()
        return None if row is None else account_of(row)

    async def locked(self, user_id: UUID) -> Account | None:
        """The account; nobody else changes it until this transaction ends."""
        lock = sa.select(users.c.id).where(users.c.id == user_id).with_for_update(key_share=True)
        await self._connection.execute(lock)
        # In a statement of its own, which sees what the one that held the lock before has changed.
        return await self.by_id(user_id)

    async def set_password(self, user_id: UUID, password_hash: str, *, is_same: bool = False) -> None:
        """Keep a new password, or with `is_same` a new hash of the same one."""
        statement = insert(credentials).values(user_id=user_id, password_hash=password_hash)
        changed = {"password_hash": password_hash} | ({} if is_same else {"password_changed_at": sa.func.now()})
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=changed))

    async def use_totp_counter(self, user_id: UUID, counter: int) -> bool:
        """Whether this step's code, or a later one's, was not used before; it counts as used from now on."""
        last = credentials.c.totp_last_counter
        statement = (
            sa.update(credentials)
            .where(credentials.c.user_id == user_id, sa.or_(last.is_(None), last < counter))
            .values(totp_last_counter=counter)
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def use_recovery_code(self, user_id: UUID, code_hash: bytes) -> bool:
        """Whether this is one of his codes that was not used before; it counts as used from now on."""
        codes = recovery_codes.c
        statement = (
            sa.update(recovery_codes)
            .where(codes.user_id == user_id, codes.code_hash == code_hash, codes.used_at.is_(None))
            .values(used_at=sa.func.now())
        )
        return (await self._connection.execute(statement)).rowcount == 1

    async def count_live_keys(self, user_id: UUID) -> int:
        """How many API keys act for him."""
        keys = api_keys.c
        is_live = sa.and_(keys.revoked_at.is_(None), sa.or_(keys.expires_at.is_(None), keys.expires_at > sa.func.now()))
        statement = sa.select(sa.func.count()).select_from(api_keys).where(keys.user_id == user_id, is_live)
        return int((await self._connection.execute(statement)).scalar_one())

    def _came_before(self) -> sa.ColumnElement[bool]:
        """Whether the user signed in from this network before."""
        if self._address is None:
            return sa.false()
        network = sa.cast(sa.literal(network_of(self._address)), INET)
        return sa.exists().where(sessions.c.user_id == users.c.id, sessions.c.address.op("<<=")(network))


class SessionKeeper:
    """The sessions, and their refresh tokens."""

    def __init__(self, connection: AsyncConnection, address: str | None, now: datetime) -> None:
        self._connection = connection
        self._address = address
        self._now = now

    async def begin(self, session: NewSession) -> None:
        """Begin a session with its first refresh token."""
        await self._connection.execute(
            sa.insert(sessions).values(
                id=session.session_id,
                user_id=session.user_id,
                address=self._address,
                user_agent=_printable(session.user_agent),
                created_at=self._now,
                last_used_at=self._now,
                expires_at=session.expires_at,
            )
        )
        await self._add_token(session.session_id, session.token_hash)

    async def locked_token(self, token_hash: bytes) -> RefreshToken | None:
        """A refresh token; the others of its session wait for this transaction."""
        which = sa.select(refresh_tokens.c.session_id).where(refresh_tokens.c.token_hash == token_hash)
        lock = sa.select(sessions.c.id).where(sessions.c.id == which.scalar_subquery()).with_for_update()
        if (await self._connection.execute(lock)).one_or_none() is None:
            return None
        # Read after the lock was got, and in a statement of its own: what the one before changed is seen.
        successor = refresh_tokens.alias("successor")
        is_alive = sa.and_(sessions.c.revoked_at.is_(None), sessions.c.expires_at > sa.func.now())
        columns = (
            refresh_tokens.c.session_id,
            refresh_tokens.c.used_at,
            successor.c.used_at.is_not(None).label("is_successor_used"),
            sessions.c.created_at.label("session_created_at"),
            sessions.c.expires_at.label("session_expires_at"),
            is_alive.label("is_session_alive"),
        )
        statement = (
            _accounts(*columns)
            .join(sessions, sessions.c.user_id == users.c.id)
            .join(refresh_tokens, refresh_tokens.c.session_id == sessions.c.id)
            .outerjoin(successor, successor.c.token_hash == refresh_tokens.c.successor_hash)
            .where(refresh_tokens.c.token_hash == token_hash)
        )
        row = (await self._connection.execute(statement)).one()
        return RefreshToken(
            token_hash=token_hash,
            account=account_of(row),
            session_id=row.session_id,
            session_created_at=row.session_created_at,
            session_expires_at=row.session_expires_at,
            is_session_alive=row.is_session_alive,
            used_at=row.used_at,
            is_successor_used=row.is_successor_used,
        )

    async def rotate(self, token: RefreshToken, successor_hash: bytes, expires_at: datetime) -> None:
        """Use a token up, and give the session its successor and so long a life."""
        await self._connection.execute(
            sa.update(refresh_tokens)
            .where(refresh_tokens.c.token_hash == token.token_hash)
            .values(used_at=self._now, successor_hash=successor_hash)
        )
        await self._add_token(token.session_id, successor_hash)
        await self._connection.execute(
            sa.update(sessions)
            .where(sessions.c.id == token.session_id)
            .values(last_used_at=self._now, expires_at=expires_at)
        )

    async def revoke(self, session_id: UUID, reason: str) -> UUID | None:
        """End a session; whose it was, None when there is none or it had ended before."""
        statement = _revoked(reason).where(sessions.c.id == session_id).returning(sessions.c.user_id)
        user_id: UUID | None = (await self._connection.execute(statement)).scalar_one_or_none()
        return user_id

    async def revoke_all_of(self, user_id: UUID, reason: str, *, kept: UUID | None = None) -> int:
        """End all sessions of a user but the `kept` one; returns how many."""
        statement = _revoked(reason).where(sessions.c.user_id == user_id)
        if kept is not None:
            statement = statement.where(sessions.c.id != kept)
        return (await self._connection.execute(statement)).rowcount

    async def _add_token(self, session_id: UUID, token_hash: bytes) -> None:
        await self._connection.execute(
            sa.insert(refresh_tokens).values(token_hash=token_hash, session_id=session_id, issued_at=self._now)
        )


def account_of(row: sa.Row[Any], *, is_address_known: bool = False) -> Account:
    """The account in a row of `ACCOUNT_COLUMNS`."""
    is_totp_on = row.totp_sealed is not None and row.totp_confirmed_at is not None
    return Account(
        user_id=row.user_id,
        email=row.email,
        first_name=row.first_name,
        last_name=row.last_name,
        partner_company_id=row.partner_company_id,
        organization_id=row.organization_id,
        is_admitted=row.is_admitted,
        password_hash=row.password_hash,
        totp=Totp(sealed=row.totp_sealed, last_counter=row.totp_last_counter) if is_totp_on else None,
        is_address_known=is_address_known,
    )


def _printable(user_agent: str | None) -> str | None:
    """What a browser says of itself, as far as it can be kept and shown."""
    if user_agent is None:
        return None
    return "".join(character for character in user_agent if character.isprintable())[:USER_AGENT_CHARS_MAX]


def _accounts(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    return (
        sa.select(*ACCOUNT_COLUMNS, *more)
        .select_from(users)
        .outerjoin(credentials, credentials.c.user_id == users.c.id)
    )


def _revoked(reason: str) -> sa.Update:
    return (
        sa.update(sessions)
        .where(sessions.c.revoked_at.is_(None))
        .values(revoked_at=sa.func.now(), revoked_reason=reason)
    )
