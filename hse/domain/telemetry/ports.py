"""What the noun needs of a transaction, and of what stands beside the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from hse.domain.paging import Page
from hse.domain.policy import Reach
from hse.domain.telemetry.buckets import Pieces, Reaches, Span
from hse.domain.telemetry.model import DeviceState, Event
from hse.domain.telemetry.partials import Partial
from hse.domain.work import Work

# Event type -> number of the bucket, the first being 1 -> what its events amount to.
Parts = Mapping[str, Mapping[int, Partial]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDevice:
    """A device that the actor may see; only if it `is_readable` its history is shown. `timezone` is that of its establishment.

    After `expected_interval_s` its next event is expected; None when nobody waits for it, or that was not asked.
    """

    id: UUID
    timezone: str | None
    is_readable: bool
    expected_interval_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LateHours:
    """Hours of a device that the aggregates may not have as they are now, and by which transactions they became so."""

    hours: tuple[Span, ...]
    marked_by: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How the stored history stands now. `snapshot` says which transactions are in it."""

    reaches: Reaches
    snapshot: str
    late: Mapping[UUID, LateHours]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events of one device, and from where on; newest first unless `is_ascending`."""

    device_id: UUID
    event_types: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    cursor: str | None = None
    limit: int = 20
    is_ascending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsQuery:
    """Which parts of aggregates: of these devices and types, for the buckets between these edges, counted from these pieces."""

    device_ids: tuple[UUID, ...]
    event_types: tuple[str, ...]
    edges: Sequence[datetime] = field(repr=False)
    pieces: Pieces = field(repr=False)
    has_deviation: bool = False


class TelemetryStore(Protocol):
    """The events and their aggregates. It shows those of named devices and of no others."""

    async def name(
        self, device_ids: Sequence[UUID], *, see: Reach, read: Reach, with_expected: bool = False
    ) -> list[NamedDevice]:
        """Those of the devices that lie within `see`. Those within `read`, too, are named: until others are, they can be read."""

    async def moment(self, device_ids: Sequence[UUID], span: Span) -> Moment:
        """How the history of named devices stands; `late` within the span."""

    async def parts(self, query: PartsQuery) -> Mapping[UUID, Parts]:
        """What the events of named devices amount to, by device, type and bucket."""

    async def events(self, query: EventQuery, now: datetime) -> Page[Event]:
        """A page of a named device's events. Raises `Invalid` for a cursor of another list."""

    async def latest(self, device_ids: Sequence[UUID], event_types: Sequence[str], reaches: Reaches) -> list[Event]:
        """The newest event of each named device and type, unless it is older than a year."""

    def has_seen(self, snapshot: str, marked_by: frozenset[int]) -> bool:
        """Whether all these transactions were in a snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptParts:
    """Parts of one device as they were at a snapshot."""

    snapshot: str
    parts: Parts


class HistoryCache(Protocol):
    """Keeps parts of one device each, for some minutes, under a name that says all that they depend on but the device's events.

    It knows nothing of who may see what: it is asked only for devices that the transaction has named.
    """

    async def find(self, names: Sequence[str]) -> Mapping[str, KeptParts]:
        """Those that are kept; none while the cache is away."""

    async def keep(self, kept: Mapping[str, KeptParts]) -> None:
        """Keep them, if the cache is there."""

    def note(self, hits: int, misses: int, outdated: int) -> None:
        """Count what was found, was not there, or was there and had been overtaken by a late event."""


class LiveStates(Protocol):
    """The states that the ingest core keeps up to date."""

    async def find(self, device_ids: Sequence[UUID]) -> Mapping[UUID, DeviceState] | None:
        """Those that there are; None while nobody can tell."""


class TelemetryWork(Work, Protocol):
    """A transaction with what this noun needs."""

    @property
    def telemetry(self) -> TelemetryStore:
        """The events and their aggregates."""
