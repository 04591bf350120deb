"""Second factors in the database while they are set up. What is sealed, and how codes are hashed, is not known here."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.identity_tables import credentials, recovery_codes


class SecondFactors:
    """The secrets and the recovery codes."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def pending(self, user_id: UUID) -> bytes | None:
        """The sealed secret that waits for its first code."""
        statement = sa.select(credentials.c.totp_sealed).where(
            credentials.c.user_id == user_id, credentials.c.totp_confirmed_at.is_(None)
        )
        sealed: bytes | None = (await self._connection.execute(statement)).scalar_one_or_none()
        return sealed

    async def begin(self, user_id: UUID, sealed: bytes) -> None:
        """Keep a secret that counts once its first code was sent."""
        await self._change(user_id, totp_sealed=sealed, totp_confirmed_at=None, totp_last_counter=None)

    async def confirm(self, user_id: UUID, counter: int) -> None:
        """Let the secret count; the code of this step is used up."""
        await self._change(user_id, totp_confirmed_at=sa.func.now(), totp_last_counter=counter)

    async def remove(self, user_id: UUID) -> None:
        """Forget the secret and the recovery codes."""
        await self._change(user_id, totp_sealed=None, totp_confirmed_at=None, totp_last_counter=None)
        await self.set_recovery_codes(user_id, [])

    async def set_recovery_codes(self, user_id: UUID, hashes: list[bytes]) -> None:
        """Keep new recovery codes, and none of the old ones."""
        await self._connection.execute(sa.delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
        if hashes:
            rows = [{"user_id": user_id, "code_hash": one} for one in hashes]
            await self._connection.execute(sa.insert(recovery_codes), rows)

    async def recovery_codes_left(self, user_id: UUID) -> int:
        """How many recovery codes were not used."""
        codes = recovery_codes.c
        statement = (
            sa.select(sa.func.count())
            .select_from(recovery_codes)
            .where(codes.user_id == user_id, codes.used_at.is_(None))
        )
        return int((await self._connection.execute(statement)).scalar_one())

    async def _change(self, user_id: UUID, **values: object) -> None:
        await self._connection.execute(sa.update(credentials).where(credentials.c.user_id == user_id).values(**values))
