"""What the database refused: looked at, sent round again, or given up by a person."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.tables import dead_letters

DeadLetterStatus = Literal["pending", "permanent", "discarded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A refused event; `event` is the MessagePack array as it came, `device_id` the device whose epoch and seq it has."""

    id: int
    device_id: UUID
    epoch: int
    seq: int
    received_at: datetime
    code: str
    reason: str
    event: bytes
    status: DeadLetterStatus
    attempts: int
    next_attempt_at: datetime | None
    # None in what an older release kept.
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters; None means any. Discarded ones are meant only when `ids` or `status` names them."""

    ids: Collection[int] | None = None
    device_id: UUID | None = None
    code: str | None = None
    status: DeadLetterStatus | None = None


def list_dead_letters(connection: sa.Connection, wanted: DeadLetterFilter, *, limit: int = 100) -> list[DeadLetter]:
    """The oldest `limit` of the wanted dead letters, in the order they came."""
    columns = [dead_letters.c[name] for name in DeadLetter.__slots__]
    statement = sa.select(*columns).where(*_conditions(wanted)).order_by(dead_letters.c.id).limit(limit)
    return [DeadLetter(**row) for row in connection.execute(statement).mappings()]


def requeue(connection: sa.Connection, wanted: DeadLetterFilter) -> int:
    """Has the wanted ones tried again now, with all their attempts; returns how many."""
    return connection.execute(
        sa.update(dead_letters)
        .where(*_conditions(wanted))
        .values(status="pending", attempts=0, next_attempt_at=sa.func.now())
    ).rowcount


def discard(connection: sa.Connection, wanted: DeadLetterFilter) -> int:
    """Gives the wanted ones up; returns how many. They stay as rows: an acknowledged event never vanishes."""
    return connection.execute(
        sa.update(dead_letters)
        .where(*_conditions(wanted), dead_letters.c.status != "discarded")
        .values(status="discarded", next_attempt_at=None)
    ).rowcount


def _conditions(wanted: DeadLetterFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.ids is not None:
        conditions.append(dead_letters.c.id.in_(wanted.ids))
    if wanted.device_id is not None:
        conditions.append(dead_letters.c.device_id == wanted.device_id)
    if wanted.code is not None:
        conditions.append(dead_letters.c.code == wanted.code)
    if wanted.status is not None:
        conditions.append(dead_letters.c.status == wanted.status)
    elif wanted.ids is None:
        conditions.append(dead_letters.c.status != "discarded")
    return conditions
