"""The read side of the events."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.tables import dead_letters, device_events, devices, event_outbox
from hse.domain.telemetry.model import Event, StorageSummary


def last_events(connection: sa.Connection, device_id: UUID, last: int) -> list[Event]:
    """The `last` events of a device by time, newest first; read backwards along the table's one index."""
    statement = (
        sa.select(device_events)
        .where(device_events.c.device_id == device_id)
        .order_by(device_events.c.time.desc())
        .limit(last)
    )
    return [event_of(row) for row in connection.execute(statement)]


def event_of(row: sa.Row[Any]) -> Event:
    """The event of a row of the table, or of what shows it under the same names."""
    return Event(
        time=row.time,
        device_id=row.device_id,
        event_type=row.event_type,
        value=row.value,
        unit=row.unit,
        metadata=row.metadata,
        source=row.source,
    )


def storage_summary(connection: sa.Connection) -> StorageSummary:
    """What is stored and what waits, cheap enough to be asked every second: the events are estimated, never counted."""
    row = connection.execute(
        sa.select(
            sa.func.event_storage().label("event_storage"),
            sa.func.event_count_estimate().label("events_estimate"),
            sa.func.event_bytes().label("event_bytes"),
            _count(event_outbox).label("outbox_waiting"),
            _count(dead_letters, dead_letters.c.status == "pending").label("dead_letters_pending"),
            _count(dead_letters, dead_letters.c.status == "permanent").label("dead_letters_permanent"),
            _count(devices).label("devices"),
        )
    ).one()
    return StorageSummary(
        event_storage=row.event_storage,
        events_estimate=row.events_estimate,
        event_bytes=row.event_bytes,
        outbox_waiting=row.outbox_waiting,
        dead_letters_pending=row.dead_letters_pending,
        dead_letters_permanent=row.dead_letters_permanent,
        devices=row.devices,
    )


def _count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(*conditions).scalar_subquery()
