"""What is read of the events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind


class TooMuchHistory(DomainError):
    """A series asks for more at once than is answered: fewer devices, types or points, less time, or a coarser step."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "telemetry.too-much"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(
            f"{what}: {most} at most; ask for fewer devices, types or points, for less time, or a coarser step"
        )
        self.most = most


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing a device reported, as stored."""

    time: datetime
    device_id: UUID
    event_type: str
    value: float | None
    unit: str | None
    metadata: Mapping[str, object] | None
    source: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastEvent:
    """The newest thing that a device reported."""

    type: str
    time: datetime
    value: float | None
    unit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionState:
    """How a device is connected, or was last."""

    is_connected: bool
    last_seen: datetime | None
    protocol: str | None
    remote_address: str | None
    node: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """How a device is now.

    `status` is `online`, `offline` or `error`, and `unknown` while nobody can tell. `is_live` says that the ingest core keeps it up
    to date; else it was found in the database, which knows what a device reported, and not whether it is connected.
    `overdue_since` says since when nothing has come for longer than its profile lets expect; null: it is not so, or nobody waits.
    """

    device_id: UUID
    status: str
    is_live: bool
    last_event: LastEvent | None
    connection: ConnectionState | None
    updated_at: datetime | None
    overdue_since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One type of event of one device, a number a bucket and function; a function that was not asked for is null.

    A bucket without events is a gap: null, and a count of 0. `unit` is null when there is none or there are several.
    """

    device_id: UUID
    event_type: str
    unit: str | None
    has_several_units: bool
    avg: list[float | None] | None
    min: list[float | None] | None
    max: list[float | None] | None
    sum: list[float | None] | None
    count: list[int] | None
    stddev: list[float | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSet:
    """Several series over the same buckets: `times` are where they begin, `until` is where the last one ends.

    `step` is their length: of the calendar of `timezone` from a day on.
    """

    step: str
    timezone: str
    until: datetime
    times: list[datetime]
    series: list[Series]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSummary:
    """How much is stored and how much waits. `events_estimate` comes from statistics and may lag by a second or so."""

    event_storage: str
    events_estimate: int
    event_bytes: int
    outbox_waiting: int
    dead_letters_pending: int
    dead_letters_permanent: int
    devices: int
