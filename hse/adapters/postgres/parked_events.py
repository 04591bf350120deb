"""Relevant events that no handler could handle: looked at, handed out again, or given up by a person."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.tables import event_outbox, parked_events

# What the outbox has of an event; the rest it sets anew.
OF_THE_EVENT = ("time", "device_id", "event_type", "value", "unit", "metadata", "source", "created_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedEvent:
    """An event whose handler refused it `attempts` times, the last time for `reason`. The history has it in any case."""

    id: int
    time: datetime
    device_id: UUID
    event_type: str
    attempts: int
    reason: str
    parked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedEventFilter:
    """Which parked events; None means any."""

    ids: Collection[int] | None = None
    device_id: UUID | None = None
    event_type: str | None = None


def list_parked(connection: sa.Connection, wanted: ParkedEventFilter, *, limit: int = 100) -> list[ParkedEvent]:
    """The oldest `limit` of the wanted events, in the order in which they were stored."""
    columns = [parked_events.c[name] for name in ParkedEvent.__slots__]
    statement = sa.select(*columns).where(*_conditions(wanted)).order_by(parked_events.c.id).limit(limit)
    return [ParkedEvent(**row) for row in connection.execute(statement).mappings()]


def requeue(connection: sa.Connection, wanted: ParkedEventFilter) -> int:
    """Have the wanted ones handed to their handlers again, with all their attempts; returns how many.

    They stand in the outbox under new ids, behind what waits there, in the order they had.
    """
    gone = sa.delete(parked_events).where(*_conditions(wanted)).returning(parked_events).cte("gone")
    again = sa.select(*(gone.c[name] for name in OF_THE_EVENT)).order_by(gone.c.id)
    put = sa.insert(event_outbox).from_select(OF_THE_EVENT, again).returning(event_outbox.c.id)
    return len(connection.execute(put).all())


def discard(connection: sa.Connection, wanted: ParkedEventFilter) -> int:
    """Give the wanted ones up; returns how many. What the device reported stays in its history."""
    return connection.execute(sa.delete(parked_events).where(*_conditions(wanted))).rowcount


def _conditions(wanted: ParkedEventFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.ids is not None:
        conditions.append(parked_events.c.id.in_(wanted.ids))
    if wanted.device_id is not None:
        conditions.append(parked_events.c.device_id == wanted.device_id)
    if wanted.event_type is not None:
        conditions.append(parked_events.c.event_type == wanted.event_type)
    return conditions
