"""What is told at once: how devices are now, what they report, which alarms they raise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind, Invalid

SEE_DEVICES = "read_device"
SEE_REPORTS = "read_telemetry"
SEE_ALARMS = "read_alarm"
# What a stream may tell of.
KINDS = ("state", "event", "alarm")
DEVICES_NAMED_MAX = 1000
EVENT_TYPES_NAMED_MAX = 50


class TooManyStreams(DomainError):
    """A person has only so many live streams open at once."""

    kind: ClassVar[ErrorKind] = ErrorKind.TOO_MANY
    code: ClassVar[str] = "live.too-many-streams"

    def __init__(self, streams_max: int, retry_after_seconds: int) -> None:
        super().__init__(f"{streams_max} live streams are open already: close one first")
        self.streams_max = streams_max
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFilter:
    """What a stream is asked for, of what its owner may see; what is empty filters nothing."""

    kinds: frozenset[str] = frozenset(KINDS)
    device_ids: frozenset[UUID] = frozenset()
    establishment_id: UUID | None = None
    event_types: frozenset[str] = frozenset()


def checked_filter(wanted: LiveFilter) -> LiveFilter:
    """Returns the filter. Raises `Invalid`."""
    if unknown := sorted(wanted.kinds - set(KINDS)):
        raise Invalid("kinds", f"{unknown[0][:40]!r} is none of {', '.join(KINDS)}")
    if len(wanted.device_ids) > DEVICES_NAMED_MAX:
        raise Invalid("device_ids", f"{DEVICES_NAMED_MAX} at most: ask for the establishment, or for all")
    if len(wanted.event_types) > EVENT_TYPES_NAMED_MAX:
        raise Invalid("event_types", f"{EVENT_TYPES_NAMED_MAX} at most")
    return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlace:
    """Where a device stands now."""

    organization_id: UUID
    establishment_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """An event as it came in. `received_at` is the clock of the node that took it."""

    device_id: UUID
    type: str
    value: float | None
    unit: str | None
    time: datetime
    received_at: datetime | None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """What changed about a device since it was last told: None stands for what did not."""

    device_id: UUID
    is_connected: bool | None = None
    last_event: LiveEvent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAlarm:
    """An alarm that was raised, said again, or is over."""

    alarm_id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    device_id: UUID
    type: str
    severity: str
    state: str
    raised_at: datetime
    cleared_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Changes that were not told: as many at most, of any device that the stream may tell of; None when nobody knows."""

    num_missed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """How many ingest nodes there are, and how many of them cannot be heard just now: their devices are not told of."""

    num_nodes: int
    num_away: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The stream ends here, and why: `session-ended`, `forbidden` or `shutting-down`; after the last one come again."""

    reason: str


Told = LiveState | LiveEvent | LiveAlarm | Missed | Sources | Ended


def merged(earlier: LiveState | None, later: LiveState) -> LiveState:
    """Both changes of one device as one: of each kind the newest, events by their time."""
    if earlier is None:
        return later
    events = [one for one in (earlier.last_event, later.last_event) if one is not None]
    return LiveState(
        device_id=later.device_id,
        is_connected=earlier.is_connected if later.is_connected is None else later.is_connected,
        # Of two with the same time the later one: `max` would take the first.
        last_event=max(reversed(events), key=lambda event: event.time, default=None),
    )
