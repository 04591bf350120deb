"""What the ingest core's drain does to the database, for tests: events and marks by COPY in one transaction."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import sqlalchemy as sa


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A row of `device_events`, as far as the aggregates see it."""

    time: datetime
    device_id: UUID
    value: float | None
    event_type: str = "temperature"
    unit: str | None = None


def readings(device_ids: Sequence[UUID], start: datetime, period: timedelta, count: int, seed: int) -> list[Reading]:
    """Events at random times of [start, start + period). Values are quarters, whose sums are exact in any order."""
    rng = random.Random(seed)
    return [
        Reading(
            time=start + period * rng.random(),
            device_id=rng.choice(device_ids),
            value=None if rng.random() < 0.1 else rng.randrange(-400, 400) / 4,
            event_type=rng.choice(["temperature", "humidity"]),
        )
        for _ in range(count)
    ]


def ensure_partitions(engine: sa.Engine, events: Sequence[Reading]) -> None:
    with engine.begin() as connection:
        for day in sorted({event.time.date() for event in events}):
            connection.execute(sa.text("select ensure_event_partitions(:day, :day)"), {"day": f"{day} 12:00+00"})


def copy_events(connection: sa.Connection, events: Sequence[Reading]) -> None:
    """Copies events, the hours of theirs that have ended, and in the plain form their marks, in the caller's transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with driver.cursor() as cursor:
        with cursor.copy("copy device_events (time, device_id, event_type, value, unit) from stdin") as copy:
            for event in sorted(events, key=lambda e: (e.time.date(), e.device_id, e.time)):
                copy.write_row((event.time, event.device_id, event.event_type, event.value, event.unit))
        marks = {(e.device_id, e.time.replace(minute=0, second=0, microsecond=0)) for e in events}
        ended = "copy late_hours (device_id, bucket) from stdin where bucket < date_trunc('hour', now(), 'UTC')"
        with cursor.copy(ended) as copy:
            for mark in marks:
                copy.write_row(mark)
        if connection.execute(sa.text("select event_storage()")).scalar_one() == "partitions":
            with cursor.copy("copy rollup_dirty (device_id, bucket) from stdin") as copy:
                for mark in marks:
                    copy.write_row(mark)


def drain(engine: sa.Engine, events: Sequence[Reading]) -> None:
    ensure_partitions(engine, events)
    with engine.begin() as connection:
        copy_events(connection, events)
