"""Answers that were given to requests with an Idempotency-Key, kept in the transaction of the command."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.identity_tables import idempotency_keys

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """An answer as it was given."""

    request_hash: bytes
    status: int
    sealed: bytes = field(repr=False)


async def find_answer(
    connection: AsyncConnection, principal_id: UUID, key: str, request_hash: bytes, now: datetime
) -> KeptAnswer | None:
    """The answer that was given under this key; None when the caller is the first, who has it reserved then.

    Of several at once one is the first: the others wait here for its transaction, and find its answer, or that it failed.
    """
    is_own = (idempotency_keys.c.principal_id == principal_id, idempotency_keys.c.key == key)
    await connection.execute(sa.delete(idempotency_keys).where(*is_own, idempotency_keys.c.created_at < now - KEPT_FOR))
    reserve = (
        insert(idempotency_keys)
        .values(principal_id=principal_id, key=key, request_hash=request_hash)
        .on_conflict_do_nothing()
        .returning(idempotency_keys.c.key)
    )
    if (await connection.execute(reserve)).one_or_none() is not None:
        return None
    kept = sa.select(idempotency_keys.c.request_hash, idempotency_keys.c.status, idempotency_keys.c.sealed)
    row = (await connection.execute(kept.where(*is_own))).one()
    return KeptAnswer(request_hash=row.request_hash, status=row.status, sealed=row.sealed)


async def keep_answer(connection: AsyncConnection, principal_id: UUID, key: str, status: int, sealed: bytes) -> None:
    """Keep the answer with what it answers for."""
    await connection.execute(
        sa.update(idempotency_keys)
        .where(idempotency_keys.c.principal_id == principal_id, idempotency_keys.c.key == key)
        .values(status=status, sealed=sealed)
    )
