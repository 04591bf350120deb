"""Links for a new password in the database, which knows their hashes only."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.authentication import Accounts
from hse.adapters.postgres.identity_tables import credentials, password_resets
from hse.domain.identity.entrance import Account

LINKS = password_resets.c
# Who has chosen another password since has no use for the link; somebody else who holds it may have.
IS_OVERTAKEN = sa.exists().where(
    credentials.c.user_id == LINKS.user_id, credentials.c.password_changed_at > LINKS.created_at
)
IS_GOOD = sa.and_(LINKS.used_at.is_(None), LINKS.expires_at > sa.func.now(), ~IS_OVERTAKEN)


class PasswordResets:
    """Links for a new password, each good for one use."""

    def __init__(self, connection: AsyncConnection, accounts: Accounts) -> None:
        self._connection = connection
        self._accounts = accounts

    async def add(self, token_hash: bytes, user_id: UUID, expires_at: datetime) -> None:
        """Keep a link; what is too old to be of use to anybody goes."""
        await self._connection.execute(
            sa.delete(password_resets).where(LINKS.user_id == user_id, LINKS.expires_at < sa.func.now())
        )
        values = {"token_hash": token_hash, "user_id": user_id, "expires_at": expires_at}
        await self._connection.execute(sa.insert(password_resets).values(**values))

    async def account_of(self, token_hash: bytes) -> Account | None:
        """Whose link it is; None for one that is not good, or not any more."""
        statement = sa.select(LINKS.user_id).where(LINKS.token_hash == token_hash, IS_GOOD)
        user_id = (await self._connection.execute(statement)).scalar_one_or_none()
        return None if user_id is None else await self._accounts.by_id(user_id)

    async def use(self, token_hash: bytes) -> bool:
        """Whether the link was good until now; it and the others of its user are not any more."""
        statement = (
            sa.update(password_resets)
            .where(LINKS.token_hash == token_hash, IS_GOOD)
            .values(used_at=sa.func.now())
            .returning(LINKS.user_id)
        )
        user_id = (await self._connection.execute(statement)).scalar_one_or_none()
        if user_id is None:
            return False
        others = sa.update(password_resets).where(LINKS.user_id == user_id, LINKS.used_at.is_(None))
        await self._connection.execute(others.values(used_at=sa.func.now()))
        return True
