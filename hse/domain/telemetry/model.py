"""What is read of the events."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


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
class StorageSummary:
    """How much is stored and how much waits. `events_estimate` comes from statistics and may lag by a second or so."""

    event_storage: str
    events_estimate: int
    event_bytes: int
    outbox_waiting: int
    dead_letters_pending: int
    dead_letters_permanent: int
    devices: int
