"""Somebody who may read the history of everything, and the history as it is counted without any aggregate."""

import math
import statistics
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hse.adapters.postgres.engine import psycopg_url
from hse.adapters.postgres.history import Telemetry
from hse.domain.policy import Actor
from hse.domain.telemetry.buckets import EPOCH, FIXED_STEPS
from hse.domain.work import Record
from tests.storage.drain import Reading

READER = Actor(
    user_id=uuid4(),
    email="reader@example.com",
    role_id=uuid4(),
    hierarchy=1,
    partner_company_id=None,
    organization_id=None,
    has_all_establishments=False,
    actions=frozenset({"view_all_organizations", "read_device", "read_telemetry"}),
    organization_ids=frozenset(),
)


class ReadingWork:
    """A transaction of the reader."""

    actor = READER

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry

    @property
    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC)

    def new_id(self) -> UUID:
        """An id."""
        return uuid4()

    async def record(self, record: Record) -> None:
        """Reading is not recorded."""


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[ReadingWork]:
    """A transaction in which the history can be read."""
    async with engine.connect() as connection:
        yield ReadingWork(Telemetry(connection))


def async_engine(engine: sa.Engine) -> AsyncEngine:
    """The same database, for asking it as the api does."""
    return create_async_engine(psycopg_url(engine.url.render_as_string(hide_password=False)))


def register(engine: sa.Engine, count: int, timezone: str = "America/Santiago") -> list[UUID]:
    """Register devices at an establishment of their own."""
    with engine.begin() as connection:
        organization = connection.execute(
            sa.text("insert into organizations (name) values (:name) returning id"), {"name": uuid4().hex}
        ).scalar_one()
        site = connection.execute(
            sa.text(
                "insert into establishments (organization_id, name, timezone) values (:organization, 'Site', :timezone)"
                " returning id"
            ),
            {"organization": organization, "timezone": timezone},
        ).scalar_one()
        return [
            connection.execute(
                sa.text(
                    "insert into devices (organization_id, establishment_id, name) values (:organization, :site, :name)"
                    " returning id"
                ),
                {"organization": organization, "site": site, "name": f"meter {number}"},
            ).scalar_one()
            for number in range(count)
        ]


def bucket_name(moment: datetime, step: str, zone: ZoneInfo) -> object:
    """What the bucket of a moment is called, found without any arithmetic on buckets' edges."""
    if step in FIXED_STEPS:
        return (moment - EPOCH) // FIXED_STEPS[step]
    day = moment.astimezone(zone).date()
    names: Mapping[str, object] = {
        "1d": day,
        "1w": tuple(day.isocalendar())[:2],
        "1mo": (day.year, day.month),
        "1y": day.year,
    }
    return names[step]


def counted(
    events: Iterable[Reading], step: str, zone: ZoneInfo
) -> dict[tuple[UUID, str], dict[object, list[Reading]]]:
    """The events by device and type, and by the name of their bucket."""
    found: dict[tuple[UUID, str], dict[object, list[Reading]]] = {}
    for event in events:
        of_series = found.setdefault((event.device_id, event.event_type), {})
        of_series.setdefault(bucket_name(event.time, step, zone), []).append(event)
    return found


def amounts(events: Sequence[Reading]) -> dict[str, Any]:
    """What events amount to."""
    values = [event.value for event in events if event.value is not None]
    return {
        "count": len(events),
        "sum": math.fsum(values) if values else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "avg": statistics.fmean(values) if values else None,
        "stddev": statistics.pstdev(values) if values else None,
    }
