"""A booking, its states, and what the clock makes of it.

`pending` is confirmed by a person, or cancelled. `confirmed` becomes `in-progress` at check-in and that `completed` at check-out,
by the clock alone; until check-in it can be cancelled. There are no other ways (source plan §6.3.1). A booking that nobody has
confirmed so long after its check-in as the establishment allows is released: cancelled for the reason `no_show`
(docs/adr/0021-a-booking-is-looked-at-until-it-fits.md).

What is due counts from its minute on, also while the worker that writes it down is away: see `status_at`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind
from hse.domain.policy import Reach

BookingStatus = Literal["pending", "confirmed", "in-progress", "completed", "cancelled"]
TRANSITIONS: Mapping[BookingStatus, frozenset[BookingStatus]] = {
    "pending": frozenset({"confirmed", "cancelled"}),
    "confirmed": frozenset({"in-progress", "cancelled"}),
    "in-progress": frozenset({"completed"}),
    "completed": frozenset(),
    "cancelled": frozenset(),
}
# In these a booking can be changed, cancelled and deleted.
OPEN: frozenset[BookingStatus] = frozenset({"pending", "confirmed"})
# In these something is still to come: a door code is wanted, a letter may follow.
LIVE: frozenset[BookingStatus] = OPEN | {"in-progress"}
NO_SHOW = "no_show"


class BookingNotOpen(DomainError):
    """A booking is confirmed, changed, cancelled and deleted before it begins or ends: after that it stays as it is."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "booking.not-open"

    def __init__(self, status: BookingStatus, act: str) -> None:
        super().__init__(f"this booking is {status}: it cannot be {act} any more")
        self.booking_status = status


class SlotTaken(DomainError):
    """The area is booked for a part of this time, or is kept free between two stays: `check_in` to `check_out` is the other stay.

    Without the three times, whoever had it has just let go of it.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "booking.slot-taken"

    def __init__(self, area_id: UUID, taken: "Taken | None") -> None:
        reason = (
            "has just been in use: send it again"
            if taken is None
            else f"is booked from {taken.check_in.isoformat()} to {taken.check_out.isoformat()}, and free again from"
            f" {taken.free_from.isoformat()} on"
        )
        super().__init__(f"this area {reason}")
        self.area_id = area_id
        self.check_in = None if taken is None else taken.check_in
        self.check_out = None if taken is None else taken.check_out
        self.free_from = None if taken is None else taken.free_from


class StayIsOver(DomainError):
    """A stay that is over is neither booked nor confirmed."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "booking.stay-is-over"

    def __init__(self) -> None:
        super().__init__("this stay would be over already: choose a check-out that is still to come")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """The period [check_in, check_out) for which an area is booked."""

    check_in: datetime
    check_out: datetime

    def overlaps(self, other: "Stay") -> bool:
        """Whether there is a moment in both."""
        return self.check_in < other.check_out and other.check_in < self.check_out

    def holds(self, moment: datetime) -> bool:
        """Whether the moment lies in it."""
        return self.check_in <= moment < self.check_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """A guest's booking of an area. From `free_from` on, a margin after check-out, the area is free for the next one.

    `cancelled_by` is None with a booking that was released: the clock did it.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID
    area_id: UUID
    guest_id: UUID
    check_in: datetime
    check_out: datetime
    free_from: datetime
    status: BookingStatus
    confirmation_code: str
    special_requests: str | None
    num_guests: int
    metadata: Mapping[str, Any]
    created_by: UUID | None
    cancelled_at: datetime | None
    cancelled_by: UUID | None
    cancellation_reason: str | None
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def stay(self) -> Stay:
        """For when it is."""
        return Stay(check_in=self.check_in, check_out=self.check_out)

    @property
    def is_live(self) -> bool:
        """Whether something is still to come of it."""
        return self.status in LIVE

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


BookingAction = Literal[
    "created", "changed", "confirmed", "checked_in", "completed", "cancelled", "released", "deleted"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingHistoryEntry:
    """One thing that happened to a booking, and how it was after it; without a user the clock did it.

    `changed` names the fields that changed. Nothing of the guest is kept here but his id.
    """

    id: int
    booking_id: UUID
    at: datetime
    user_id: UUID | None
    action: BookingAction
    status: BookingStatus
    area_id: UUID
    guest_id: UUID
    check_in: datetime
    check_out: datetime
    num_guests: int
    changed: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """When an area is taken: for the stay, and until it is free again."""

    check_in: datetime
    check_out: datetime
    free_from: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of state that the clock makes, and when it is due."""

    due_at: datetime
    status: BookingStatus


def next_transition(stay: Stay, status: BookingStatus, no_show_grace: timedelta | None) -> Transition | None:
    """What the clock does next to a booking in this state, None for nothing; without a grace nobody is released."""
    match status:
        case "pending" if no_show_grace is not None:
            return Transition(due_at=stay.check_in + no_show_grace, status="cancelled")
        case "confirmed":
            return Transition(due_at=stay.check_in, status="in-progress")
        case "in-progress":
            return Transition(due_at=stay.check_out, status="completed")
        case _:
            return None


def due_transitions(
    stay: Stay, status: BookingStatus, no_show_grace: timedelta | None, now: datetime
) -> list[Transition]:
    """What is due by now, in order: a stay that passed while nobody looked begins, and then ends."""
    due: list[Transition] = []
    while (following := next_transition(stay, status, no_show_grace)) is not None and following.due_at <= now:
        due.append(following)
        status = following.status
    return due


def status_at(booking: Booking, now: datetime) -> BookingStatus:
    """The state that a booking is in by the clock, whether or not it was written down.

    A release is not foreseen: until the worker has done it, a person may still confirm.
    """
    due = due_transitions(booking.stay, booking.status, None, now)
    return due[-1].status if due else booking.status
