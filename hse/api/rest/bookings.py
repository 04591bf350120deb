"""Bookings of areas, and what happened to them."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter, SkipValidation
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import TEXT, Body, Metadata, given
from hse.api.paging import Paged, filtered
from hse.domain.booking import bookings
from hse.domain.booking.model import Booking, BookingHistoryEntry, BookingStatus
from hse.domain.errors import Invalid
from hse.domain.paging import Page

Moment = Annotated[datetime, msgspec.Meta(tz=True, examples=["2030-03-10T18:00:00Z"])]
NumGuests = Annotated[int, msgspec.Meta(ge=1, le=bookings.GUESTS_MAX, examples=[2])]
Requests = Annotated[
    str, msgspec.Meta(max_length=bookings.REQUESTS_CHARS_MAX, pattern=TEXT, examples=["A cot, please"])
]
Reason = Annotated[
    str, msgspec.Meta(min_length=1, max_length=bookings.REASON_CHARS_MAX, pattern=TEXT, examples=["Flight cancelled"])
]
From = Annotated[datetime | None, QueryParameter(name="from", description="Stays that end after this time.")]
To = Annotated[datetime | None, QueryParameter(name="to", description="Stays that begin before this time.")]


# Also without If-Match: the worker, or somebody else, may change a booking between its being read and changed here.
CHANGED_MEANWHILE = {"refusals": (412,)}


class NewBooking(Body):
    """A booking to be made."""

    area_id: UUID
    guest_id: UUID
    check_in: Moment
    check_out: Moment
    num_guests: NumGuests = 1
    special_requests: Requests | None = None
    metadata: Metadata = msgspec.field(default_factory=dict)


class BookingChange(Body):
    """What changes of a booking."""

    area_id: UUID | UnsetType = UNSET
    guest_id: UUID | UnsetType = UNSET
    check_in: Moment | UnsetType = UNSET
    check_out: Moment | UnsetType = UNSET
    num_guests: NumGuests | UnsetType = UNSET
    special_requests: Requests | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET


class BookingCancellation(Body):
    """Why a booking is cancelled."""

    reason: Reason | None = None


async def provide_filters(
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    area_id: FromQuery[UUID | None] = None,
    guest_id: FromQuery[UUID | None] = None,
    status: FromQuery[BookingStatus | None] = None,
    at_from: From = None,
    at_to: To = None,
) -> dict[str, Any]:
    """Which bookings a list is to show. Raises `Invalid`."""
    for name, moment in (("from", at_from), ("to", at_to)):
        if moment is not None:
            check_zone(name, moment)
    wanted = {"organization_id": organization_id, "establishment_id": establishment_id, "area_id": area_id}
    return {**wanted, "guest_id": guest_id, "status": status, "from": at_from, "to": at_to}


def check_zone(name: str, moment: datetime) -> None:
    """Raises `Invalid` for a time that is another one in each time zone."""
    if moment.tzinfo is None:
        raise Invalid(name, "name the time zone, such as 2030-01-01T00:00:00Z")


@get("/bookings", dependencies={"filters": Provide(provide_filters)})
async def list_bookings(
    acting: Acts, page: Paged, filters: NamedDependency[SkipValidation[dict[str, Any]]]
) -> Page[Booking]:
    """List the bookings that you may see, the earliest check-in first; `q` looks in their confirmation code."""
    return await acting.read(lambda work: bookings.bookings(work, filtered(page, **filters)))


@post("/bookings")
async def create_booking(once: Acts, data: JSONBody[NewBooking]) -> Booking:
    """Book an area for a guest. 409 `booking.slot-taken` says which stay is in the way. It is pending until it is confirmed."""
    command = bookings.CreateBooking(**given(data))
    return await once.run(lambda work: bookings.create_booking(work, command), status=201)


@get("/bookings/{booking_id:uuid}")
async def get_booking(acting: Acts, booking_id: FromPath[UUID]) -> Booking:
    """Read a booking."""
    return await acting.read(lambda work: bookings.booking(work, booking_id))


@get("/bookings/{booking_id:uuid}/history")
async def list_booking_history(acting: Acts, booking_id: FromPath[UUID], page: Paged) -> Page[BookingHistoryEntry]:
    """List what happened to a booking, the oldest first; also to one that was deleted."""
    return await acting.read(lambda work: bookings.booking_history(work, booking_id, page))


@patch("/bookings/{booking_id:uuid}")
async def change_booking(
    acting: Acts, booking_id: FromPath[UUID], data: JSONBody[BookingChange], version: Version
) -> Booking:
    """Change a booking that has not begun; another time or another area of the establishment must be free."""
    command = bookings.ChangeBooking(**given(data))
    return await acting.run(lambda work: bookings.change_booking(work, booking_id, command, version=version))


@post("/bookings/{booking_id:uuid}/confirm", status_code=200, opt=CHANGED_MEANWHILE)
async def confirm_booking(acting: Acts, booking_id: FromPath[UUID]) -> Booking:
    """Confirm a pending booking; done again, it is the same. It is checked in and out by the clock then."""
    return await acting.run(lambda work: bookings.confirm_booking(work, booking_id))


@post("/bookings/{booking_id:uuid}/cancel", status_code=200, opt=CHANGED_MEANWHILE)
async def cancel_booking(acting: Acts, booking_id: FromPath[UUID], data: JSONBody[BookingCancellation]) -> Booking:
    """Cancel a booking that has not begun. It is kept, and in nobody's way; done again, it is the same."""
    command = bookings.CancelBooking(**given(data))
    return await acting.run(lambda work: bookings.cancel_booking(work, booking_id, command))


@delete("/bookings/{booking_id:uuid}", opt=CHANGED_MEANWHILE)
async def delete_booking(acting: Acts, booking_id: FromPath[UUID]) -> None:
    """Delete a booking that has not begun; what happened to it stays readable."""
    await acting.run(lambda work: bookings.delete_booking(work, booking_id))


router = Router(
    path="/",
    tags=["bookings"],
    route_handlers=[
        list_bookings,
        create_booking,
        get_booking,
        list_booking_history,
        change_booking,
        confirm_booking,
        cancel_booking,
        delete_booking,
    ],
)
