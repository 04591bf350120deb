"""The calendars of areas, for programs that know iCalendar."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, Router, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, PathParameter

from hse.adapters.icalendar import written
from hse.adapters.postgres.booking_calendars import read_feed
from hse.api.acting import Acts
from hse.domain.booking import booking_calendars
from hse.domain.booking.views import BookingCalendar, IssuedBookingCalendar
from hse.domain.errors import NotFound

MEDIA_TYPE = "text/calendar"
Token = Annotated[str, PathParameter(description="The secret of the link.", min_length=1, max_length=200)]


@get("/areas/{area_id:uuid}/booking-calendar")
async def get_booking_calendar(acting: Acts, area_id: FromPath[UUID]) -> BookingCalendar:
    """Read whether the calendar of an area has a link, and since when; the link itself was told once."""
    return await acting.read(lambda work: booking_calendars.booking_calendar(work, area_id))


@post("/areas/{area_id:uuid}/booking-calendar")
async def issue_booking_calendar(once: Acts, area_id: FromPath[UUID]) -> IssuedBookingCalendar:
    """Give the calendar of an area a link, told this once; a link that it had is worth nothing any more."""
    return await once.run(lambda work: booking_calendars.issue_booking_calendar(work, area_id), status=201)


@delete("/areas/{area_id:uuid}/booking-calendar")
async def revoke_booking_calendar(acting: Acts, area_id: FromPath[UUID]) -> None:
    """Take the link of an area's calendar away."""
    await acting.run(lambda work: booking_calendars.revoke_booking_calendar(work, area_id))


@get(
    "/booking-calendars/{area_id:uuid}/{token:str}",
    opt={"is_public": True},
    media_type=MEDIA_TYPE,
    responses={
        200: ResponseSpec(bytes, description="iCalendar (RFC 5545).", media_type=MEDIA_TYPE, generate_examples=False)
    },
)
async def read_booking_calendar(
    request: Request[Any, Any, Any], area_id: FromPath[UUID], token: Token
) -> Response[bytes]:
    """Read when an area is taken, by its link, and nothing of whom. Links that do not hold have one answer."""
    now = datetime.now(UTC)
    async with request.app.state.database.nobody() as connection:
        feed = await read_feed(connection, area_id, token, now)
    if feed is None:
        raise NotFound("booking calendar of area", area_id)
    return Response(content=await written(feed), media_type=MEDIA_TYPE)


router = Router(
    path="/",
    tags=["bookings"],
    route_handlers=[get_booking_calendar, issue_booking_calendar, revoke_booking_calendar, read_booking_calendar],
)
