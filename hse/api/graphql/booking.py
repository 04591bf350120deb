"""Bookings, guests, and when areas are free."""

from collections.abc import AsyncGenerator
from datetime import date, datetime
from typing import Any
from uuid import UUID

import strawberry

from hse.adapters.postgres.work import PostgresWork
from hse.api.bodies import given
from hse.api.graphql.booking_notifications import BookingNotification
from hse.api.graphql.connections import (
    PageInfo,
    answer,
    connection,
    connection_of,
    list_of,
    node_of,
    page_info_of,
    reference,
    single,
)
from hse.api.graphql.context import Asked, context_of
from hse.api.graphql.entities import (
    AREAS,
    BOOKING_HISTORY,
    BOOKING_NOTIFICATIONS,
    BOOKINGS,
    DOOR_CODES,
    ESTABLISHMENTS,
    GUESTS,
    ORGANIZATIONS,
    USERS,
)
from hse.api.graphql.mutations import acts, acts_once, acts_with, changes, changes_to, creates, described
from hse.api.graphql.types import mirrors
from hse.api.rest import booking_settings as settings_bodies
from hse.api.rest import bookings as booking_bodies
from hse.api.rest import guests as guest_bodies
from hse.api.rest.availability import time_of_day
from hse.api.rest.bookings import check_zone
from hse.domain.booking import availability, booking_calendars, booking_settings, bookings, guests, model, views
from hse.domain.paging import PAGE_LIMIT, PageQuery


@mirrors(views.Guest)
class Guest:
    """A guest."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    bookings = list_of(BOOKINGS, "guest_id")


@mirrors(views.Companion)
class Companion:
    """A guest who accompanies another one."""

    companion = reference(GUESTS, "companion_id")


@mirrors(model.Booking)
class Booking:
    """A guest's booking of an area."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    area = reference(AREAS, "area_id")
    guest = reference(GUESTS, "guest_id")
    door_codes = list_of(DOOR_CODES, "booking_id")
    notifications = list_of(BOOKING_NOTIFICATIONS, "booking_id")


@mirrors(model.BookingHistoryEntry)
class BookingHistoryEntry:
    """One thing that happened to a booking. Its number is more than an Int holds."""

    id: strawberry.ID
    user = reference(USERS, "user_id")


@mirrors(views.GuestExport)
class GuestExport:
    """All that is kept of a guest, as far as the caller may see it."""

    guest: Guest
    companions: list[Companion]
    bookings: list[Booking]
    notifications: list[BookingNotification]


@mirrors(views.BookingSettings)
class BookingSettings:
    """How an establishment takes bookings."""


@mirrors(views.BookingCalendar)
class BookingCalendar:
    """That an area's calendar has a link."""


@mirrors(views.IssuedBookingCalendar)
class IssuedBookingCalendar:
    """The link of an area's calendar, told this once."""


@mirrors(availability.FreePeriod)
class FreePeriod:
    """A stretch of time for which an area can be booked."""


@mirrors(availability.AreaAvailability)
class AreaAvailability:
    """When an area is free."""

    free: list[FreePeriod]


@mirrors(availability.Night)
class Night:
    """A night on the site's calendar."""


@mirrors(availability.AreaNights)
class AreaNights:
    """The nights of an area."""

    nights: list[Night]


@strawberry.type
class AreaAvailabilityEdge:
    """An area in a list."""

    node: AreaAvailability


@strawberry.type(description="A page of the areas of an establishment, and when each is free.")
class AreaAvailabilityConnection:
    """A page of the areas of an establishment."""

    edges: list[AreaAvailabilityEdge]
    page_info: PageInfo


@strawberry.type(
    description="What changed of a calendar. `hasMissedSome` says that there is more: read it again. It does so at the beginning."
)
class CalendarChanges:
    """What changed of a calendar."""

    changed: list[Booking]
    gone_ids: list[UUID]
    has_missed_some: bool
    # Why nothing follows: session-ended, forbidden, shutting-down.
    ended: str | None


async def resolve_area_availability(
    info: Asked,
    id: UUID,  # noqa: A002 (the argument's name)
    since: datetime,
    until: datetime,
    minutes: int = 0,
) -> Any:
    """When an area is free."""
    asked = _asked(since, until, minutes)
    return await _read(info, lambda work: availability.area_availability(work, id, asked))


async def resolve_establishment_availability(
    info: Asked,
    id: UUID,  # noqa: A002
    since: datetime,
    until: datetime,
    minutes: int = 0,
    first: int = PAGE_LIMIT,
    after: str | None = None,
) -> Any:
    """The areas of an establishment, and when each is free."""
    asked, query = _asked(since, until, minutes), PageQuery(limit=first, cursor=after)
    page = await _read(info, lambda work: availability.establishment_availability(work, id, asked, query))
    edges = [AreaAvailabilityEdge(node=item) for item in page.items]
    return AreaAvailabilityConnection(edges=edges, page_info=page_info_of(page))


async def resolve_area_nights(
    info: Asked,
    id: UUID,  # noqa: A002
    first: date,
    nights: int = 31,
    check_in_time: str = "15:00",
    check_out_time: str = "11:00",
) -> Any:
    """Which nights of an area are free."""
    asked = availability.AskedNights(
        first=first,
        num_nights=nights,
        check_in_time=time_of_day("check_in_time", check_in_time),
        check_out_time=time_of_day("check_out_time", check_out_time),
    )
    return await _read(info, lambda work: availability.area_nights(work, id, asked))


async def resolve_add_companion(info: Asked, id: UUID, companion_id: UUID, relationship: str) -> Any:  # noqa: A002
    """Have two guests accompany each other."""
    context, command = context_of(info), guests.AddCompanion(companion_id=companion_id, relationship=relationship)
    return await context.run(lambda work: guests.add_companion(work, id, command), context.acting)


async def resolve_remove_companion(info: Asked, id: UUID, companion_id: UUID) -> UUID | None:  # noqa: A002
    """Have two guests not accompany each other any more."""
    context = context_of(info)
    await context.run(lambda work: guests.remove_companion(work, id, companion_id), context.acting)
    return id


async def _companions(work: PostgresWork, guest_id: UUID) -> list[views.Companion]:
    return (await guests.companions(work, guest_id)).items


@strawberry.type
class BookingQuery:
    """What may be read of the noun."""

    guest = single(GUESTS, guests.guest)
    guests = connection(
        GUESTS, "Those that you may see. By personal data, those only whose personal data you may read."
    )
    guest_companions = answer(_companions, list[Companion], "Who accompanies a guest, as far as you may see them.")
    booking = single(BOOKINGS, bookings.booking)
    booking_history = connection_of(
        BOOKING_HISTORY, bookings.booking_history, "What happened to a booking, also to one that was deleted."
    )
    bookings = connection(BOOKINGS, "Those that you may see, the earliest check-in first.")
    booking_settings = answer(
        booking_settings.booking_settings, BookingSettings, "How the establishment with this id takes bookings."
    )
    booking_calendar = answer(
        booking_calendars.booking_calendar, BookingCalendar, "Whether the calendar of the area with this id has a link."
    )
    area_availability = strawberry.field(
        resolver=resolve_area_availability, graphql_type=AreaAvailability | None, description="When an area is free."
    )
    establishment_availability = strawberry.field(
        resolver=resolve_establishment_availability,
        graphql_type=AreaAvailabilityConnection | None,
        description="The areas of an establishment, and when each is free.",
    )
    area_nights = strawberry.field(
        resolver=resolve_area_nights,
        graphql_type=AreaNights | None,
        description="Which nights of an area are free, on the calendar of its site.",
    )


@strawberry.type
class BookingMutation:
    """What may be done to the noun."""

    create_guest = creates(GUESTS, guest_bodies.NewGuest, guests.CreateGuest, guests.create_guest)
    change_guest = changes(GUESTS, guest_bodies.GuestChange, guests.ChangeGuest, guests.change_guest)
    add_companion = strawberry.mutation(
        resolver=resolve_add_companion, graphql_type=Companion | None, description=described(guests.add_companion)
    )
    remove_companion = strawberry.mutation(
        resolver=resolve_remove_companion, description=described(guests.remove_companion)
    )
    export_guest = acts(guests.export_guest, GuestExport)
    erase_guest = acts(guests.erase_guest, node_of(GUESTS))
    create_booking = creates(BOOKINGS, booking_bodies.NewBooking, bookings.CreateBooking, bookings.create_booking)
    change_booking = changes(BOOKINGS, booking_bodies.BookingChange, bookings.ChangeBooking, bookings.change_booking)
    confirm_booking = acts(bookings.confirm_booking, node_of(BOOKINGS))
    cancel_booking = acts_with(
        node_of(BOOKINGS),
        booking_bodies.BookingCancellation,
        lambda wanted: bookings.CancelBooking(reason=wanted.reason),
        bookings.cancel_booking,
    )
    delete_booking = acts(bookings.delete_booking)
    change_booking_settings = changes_to(
        BookingSettings,
        settings_bodies.BookingSettingsChange,
        lambda wanted, _: booking_settings.ChangeBookingSettings(**given(wanted)),
        booking_settings.change_booking_settings,
    )
    issue_booking_calendar = acts_once(booking_calendars.issue_booking_calendar, IssuedBookingCalendar)
    revoke_booking_calendar = acts(booking_calendars.revoke_booking_calendar)


async def _calendar(
    info: Asked, establishment_id: UUID, area_id: UUID | None = None
) -> AsyncGenerator[CalendarChanges, None]:
    context = context_of(info)
    watch = await context.booking_watches.open(context.acting, establishment_id, area_id)
    try:
        async for told in watch.batches():
            # What fields lead to is read anew each time.
            context.loaders.forget()
            yield CalendarChanges(
                changed=told.changed,  # type: ignore[arg-type]
                gone_ids=told.gone_ids,
                has_missed_some=told.has_missed_some,
                ended=told.ended,
            )
    finally:
        context.booking_watches.close(watch)


@strawberry.type
class BookingSubscription:
    """What is told of bookings as it happens."""

    calendar = strawberry.subscription(
        resolver=_calendar, description="Follow the bookings of an establishment, or of one of its areas."
    )


def _asked(since: datetime, until: datetime, minutes: int) -> availability.Asked:
    check_zone("since", since)
    check_zone("until", until)
    return availability.Asked(since=since, until=until, minutes=minutes)


async def _read(info: Asked, query: Any) -> Any:
    context = context_of(info)
    async with context.connections:
        return await context.acting.read(query)
