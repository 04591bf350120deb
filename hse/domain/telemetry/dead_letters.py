"""What devices sent that could not be understood or stored: how much of it there is, and what it was.

How many there are, and why the last one, is told to whoever sees the device: it says that the device is ill. What was sent may be
anything, such as a code that was typed at a door, so to see it takes an action of its own. What a gateway says in a child's name
counts at the gateway, which said it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from hse.domain.paging import Page, PageQuery
from hse.domain.telemetry.ports import TelemetryWork
from hse.domain.telemetry.queries import SEE, named, visible

READ_LETTERS = "read_dead_letter"
COUNTED_MAX = 1000
CONTENT_CHARS_MAX = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSummary:
    """How many dead letters a device has: those that are tried again and those that are not, the 1000 newest at most.

    `has_more` says that there are more than were counted; `num_removed` how many were deleted, as they were too many or too old.
    The last one's `reason` is its first line.
    """

    device_id: UUID
    num_pending: int
    num_permanent: int
    has_more: bool
    num_removed: int
    last_code: str | None
    last_reason: str | None
    last_received_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDeadLetter:
    """What a device sent that could not be understood or stored, and why.

    `content` is the message, or the event as JSON: its first 2000 characters, and `is_whole` whether these are all; null when it is
    too large to be looked into. `num_bytes` is what the whole of it takes.
    """

    # A number, beyond what GraphQL takes for one.
    id: str
    device_id: UUID
    received_at: datetime
    source: str | None
    status: Literal["pending", "permanent"]
    code: str
    reason: str
    topic: str | None
    content: str | None
    is_whole: bool
    num_bytes: int


class DeadLetterStore(Protocol):
    """The dead letters of named devices, but those that an operator discarded."""

    async def summaries(self, device_ids: Sequence[UUID]) -> list[DeadLetterSummary]:
        """How many each of these has, in their order."""

    async def page(self, device_id: UUID, query: PageQuery) -> Page[DeviceDeadLetter]:
        """A page of a device's, the newest first. Raises `Invalid`."""


class DeadLettersWork(TelemetryWork, Protocol):
    """A transaction with what is needed here."""

    @property
    def dead_letters(self) -> DeadLetterStore:
        """The dead letters of named devices."""


async def summary(work: DeadLettersWork, device_id: UUID) -> DeadLetterSummary:
    """How many dead letters a device has, and why the last one. Raises `NotFound`."""
    await named(work, [device_id], action=SEE)
    (found,) = await work.dead_letters.summaries([device_id])
    return found


async def visible_summaries(work: DeadLettersWork, device_ids: Sequence[UUID]) -> list[DeadLetterSummary]:
    """The summaries of those of the devices that the actor may see."""
    devices = await visible(work, device_ids, SEE)
    return await work.dead_letters.summaries([one.id for one in devices])


async def dead_letters(work: DeadLettersWork, device_id: UUID, query: PageQuery) -> Page[DeviceDeadLetter]:
    """A page of a device's dead letters, the newest first. Raises `NotFound`, `Forbidden`, `Invalid`."""
    await named(work, [device_id], action=READ_LETTERS)
    return await work.dead_letters.page(device_id, query)
