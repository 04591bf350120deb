"""What may be done to bookings, and read of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from hse.domain.booking.guests import SEE_GUESTS
from hse.domain.booking.model import (
    OPEN,
    Booking,
    BookingHistoryEntry,
    BookingNotOpen,
    StayIsOver,
    status_at,
)
from hse.domain.booking.ports import BookingWork, Part
from hse.domain.errors import Invalid, NotFound
from hse.domain.metadata import check_metadata
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import EVERYWHERE, Reach
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen, values_of, within_act

SEE_BOOKINGS = "read_booking"
STAY_MAX = timedelta(days=732)
AHEAD_MAX = timedelta(days=3660)
GUESTS_MAX = 1000
REQUESTS_CHARS_MAX = 2000
REASON_CHARS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateBooking:
    """A booking of an area for a guest, from `check_in` until `check_out`. It is pending until it is confirmed."""

    area_id: UUID
    guest_id: UUID
    check_in: datetime
    check_out: datetime
    num_guests: int = 1
    special_requests: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBooking:
    """What changes of a booking; it moves to other areas of the same establishment."""

    area_id: UUID | Unchanged = UNCHANGED
    guest_id: UUID | Unchanged = UNCHANGED
    check_in: datetime | Unchanged = UNCHANGED
    check_out: datetime | Unchanged = UNCHANGED
    num_guests: int | Unchanged = UNCHANGED
    special_requests: str | Unchanged | None = UNCHANGED
    metadata: Mapping[str, Any] | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelBooking:
    """Why a booking is cancelled, when somebody says so."""

    reason: str | None = None


async def bookings(work: BookingWork, query: PageQuery) -> Page[Booking]:
    """A page of the bookings, the earliest check-in first. Raises `Forbidden`, `Invalid`."""
    return await work.bookings.page(work.actor.require(SEE_BOOKINGS), query)


async def booking(work: BookingWork, booking_id: UUID) -> Booking:
    """One booking. Raises `Forbidden`, `NotFound`."""
    return await seen(work.bookings, work.actor.require(SEE_BOOKINGS), booking_id)


async def booking_history(work: BookingWork, booking_id: UUID, query: PageQuery) -> Page[BookingHistoryEntry]:
    """A page of what happened to a booking, also to one that was deleted. Raises `Forbidden`, `NotFound`, `Invalid`."""
    found = await work.bookings.history(booking_id, work.actor.require(SEE_BOOKINGS), query)
    if not found.items and query.cursor is None:
        raise NotFound("booking", booking_id)
    return found


async def create_booking(work: BookingWork, command: CreateBooking) -> Booking:
    """Book an area for a guest. Raises `NotFound`, `Forbidden`, `Invalid`, `SlotTaken`, `StayIsOver`."""
    area = await within_act(work, work.areas, command.area_id, see="read_area", act="create_booking")
    _check_stay(command.check_in, command.check_out, work.now)
    check_metadata(command.metadata)
    await _check_guest(work, area.organization_id, command.guest_id, work.actor.reach(SEE_GUESTS))
    settings = await work.booking_settings.find(area.establishment_id)
    return await work.bookings.add(
        {
            **values_of(command),
            "organization_id": area.organization_id,
            "establishment_id": area.establishment_id,
            "free_from": command.check_out + settings.gap,
            "confirmation_code": work.new_confirmation_code(),
            "created_by": work.actor.user_id,
        }
    )


async def confirm_booking(work: BookingWork, booking_id: UUID) -> Booking:
    """Confirm a booking; done again, it is the same. Raises `NotFound`, `Forbidden`, `BookingNotOpen`, `StayIsOver`."""
    before = await within_act(work, work.bookings, booking_id, see=SEE_BOOKINGS, act="update_booking")
    if before.status == "confirmed":
        return before
    _check_open(before, work.now, "confirmed")
    if before.check_out <= work.now:
        raise StayIsOver
    return await work.bookings.change(before, {"status": "confirmed"})


async def change_booking(
    work: BookingWork, booking_id: UUID, command: ChangeBooking, *, version: int | None = None
) -> Booking:
    """Change a booking that has not begun; another time or area must be free.

    Raises `NotFound`, `Forbidden`, `Invalid`, `BookingNotOpen`, `SlotTaken`, `StayIsOver`, `Stale`.
    """
    before = await within_act(work, work.bookings, booking_id, see=SEE_BOOKINGS, act="update_booking")
    _check_open(before, work.now, "changed")
    changes = changes_of(command)
    if "metadata" in changes:
        check_metadata(changes["metadata"])
    if changes:
        guest_id = changes.get("guest_id", before.guest_id)
        # Who may change a booking need not see its guest to leave him there.
        reach = EVERYWHERE if guest_id == before.guest_id else work.actor.reach(SEE_GUESTS)
        await _check_guest(work, before.organization_id, guest_id, reach)
    if changes.get("area_id", before.area_id) != before.area_id:
        await _check_area(work, before, changes["area_id"])
    if changes.keys() & {"check_in", "check_out"}:
        check_in, check_out = (changes.get(name, getattr(before, name)) for name in ("check_in", "check_out"))
        _check_stay(check_in, check_out, work.now)
        settings = await work.booking_settings.find(before.establishment_id)
        changes["free_from"] = check_out + settings.gap
    return await work.bookings.change(before, changes, version=version)


async def cancel_booking(work: BookingWork, booking_id: UUID, command: CancelBooking) -> Booking:
    """Cancel a booking that has not begun; it is kept. Done again, it is the same.

    Raises `NotFound`, `Forbidden`, `BookingNotOpen`.
    """
    before = await within_act(work, work.bookings, booking_id, see=SEE_BOOKINGS, act="cancel_booking")
    if before.status == "cancelled":
        return before
    _check_open(before, work.now, "cancelled")
    cancelled = {"cancelled_at": work.now, "cancelled_by": work.actor.user_id, "cancellation_reason": command.reason}
    return await work.bookings.change(before, {"status": "cancelled", **cancelled})


async def delete_booking(work: BookingWork, booking_id: UUID) -> None:
    """Delete a booking that has not begun; its history stays. Raises `NotFound`, `Forbidden`, `BookingNotOpen`."""
    before = await within_act(work, work.bookings, booking_id, see=SEE_BOOKINGS, act="delete_booking")
    _check_open(before, work.now, "deleted")
    await work.bookings.remove(before)


def _check_open(booking: Booking, now: datetime, act: str) -> None:
    """By the clock: a stay has begun at its minute, whether or not the worker has said so yet."""
    status = status_at(booking, now)
    if status not in OPEN:
        raise BookingNotOpen(status, act)


def _check_stay(check_in: datetime, check_out: datetime, now: datetime) -> None:
    if check_out <= check_in:
        raise Invalid("check_out", "lies behind check_in")
    if check_out - check_in > STAY_MAX:
        raise Invalid("check_out", f"a stay lasts {STAY_MAX.days} days at most")
    if check_in - now > AHEAD_MAX:
        raise Invalid("check_in", f"is {AHEAD_MAX.days} days ahead at most")
    if check_out <= now:
        raise StayIsOver


async def _check_guest(work: BookingWork, organization_id: UUID, guest_id: UUID, reach: Reach) -> None:
    """Raises `Invalid` unless it is a guest of this organisation within the reach: one answer for both."""
    guest = await work.guests.find(guest_id, reach)
    if guest is None or guest.organization_id != organization_id:
        raise Invalid("guest_id", "is no guest of this organisation")
    if guest.erased_at is not None:
        raise Invalid("guest_id", "is a guest who was erased: register him anew")


async def _check_area(work: BookingWork, before: Booking, area_id: UUID) -> None:
    area: Part | None = await work.areas.find(area_id, work.actor.reach("read_area"))
    if area is None or area.establishment_id != before.establishment_id:
        raise Invalid("area_id", "is no area of this establishment: for another one, book anew")
