"""When areas are free."""

from datetime import date, datetime, time
from typing import Annotated
from uuid import UUID

from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, QueryParameter, SkipValidation

from hse.api.acting import Acts
from hse.api.paging import Paged, filtered
from hse.api.rest.bookings import check_zone
from hse.domain.booking import availability
from hse.domain.booking.availability import AreaAvailability, AreaNights, Asked, AskedNights
from hse.domain.errors import Invalid
from hse.domain.paging import Page

From = Annotated[datetime, QueryParameter(name="from", description="Not before this time.")]
To = Annotated[datetime, QueryParameter(name="to", description="Not after this time.")]
Minutes = Annotated[
    int, QueryParameter(description="Only what is free for so long.", ge=0, le=availability.MINUTES_MAX)
]
FirstNight = Annotated[date, QueryParameter(name="first", description="The date of the first night, at the site.")]
NumNights = Annotated[
    int, QueryParameter(name="nights", description="How many nights.", ge=1, le=availability.NIGHTS_MAX)
]
CheckInTime = Annotated[str, QueryParameter(description="When stays begin, by the site's clock.", max_length=8)]
CheckOutTime = Annotated[str, QueryParameter(description="When stays end, by the site's clock.", max_length=8)]

AskedFor = NamedDependency[SkipValidation[Asked]]
AskedForNights = NamedDependency[SkipValidation[AskedNights]]


async def provide_asked(at_from: From, at_to: To, minutes: Minutes = 0) -> Asked:
    """Which stretch of time is asked about. Raises `Invalid`."""
    check_zone("from", at_from)
    check_zone("to", at_to)
    return Asked(since=at_from, until=at_to, minutes=minutes)


async def provide_asked_nights(
    first: FirstNight,
    num_nights: NumNights = 31,
    check_in_time: CheckInTime = "15:00",
    check_out_time: CheckOutTime = "11:00",
) -> AskedNights:
    """Which nights are asked about. Raises `Invalid`."""
    return AskedNights(
        first=first,
        num_nights=num_nights,
        check_in_time=time_of_day("check_in_time", check_in_time),
        check_out_time=time_of_day("check_out_time", check_out_time),
    )


def time_of_day(name: str, text: str) -> time:
    """A time as a clock shows it. Raises `Invalid`."""
    try:
        found = time.fromisoformat(text)
    except ValueError as error:
        raise Invalid(name, "write the time as 15:00") from error
    if found.tzinfo is not None:
        raise Invalid(name, "is by the site's clock: leave the time zone out")
    return found


@get("/areas/{area_id:uuid}/availability", dependencies={"asked": Provide(provide_asked)})
async def get_area_availability(acting: Acts, area_id: FromPath[UUID], asked: AskedFor) -> AreaAvailability:
    """Read when an area is free: the stretches of time that a booking may lie in, margins already taken off."""
    return await acting.read(lambda work: availability.area_availability(work, area_id, asked))


@get("/establishments/{establishment_id:uuid}/availability", dependencies={"asked": Provide(provide_asked)})
async def list_establishment_availability(
    acting: Acts,
    establishment_id: FromPath[UUID],
    asked: AskedFor,
    page: Paged,
    type: FromQuery[str | None] = None,  # noqa: A002 (the parameter's name)
    parent_area_id: FromQuery[UUID | None] = None,
) -> Page[AreaAvailability]:
    """List the areas of an establishment, and when each of them is free; `q` looks in their names."""
    query = filtered(page, type=type, parent_area_id=parent_area_id)
    return await acting.read(lambda work: availability.establishment_availability(work, establishment_id, asked, query))


@get("/areas/{area_id:uuid}/nights", dependencies={"asked": Provide(provide_asked_nights)})
async def list_area_nights(acting: Acts, area_id: FromPath[UUID], asked: AskedForNights) -> AreaNights:
    """List nights on the calendar of the area's site, and which of them are free."""
    return await acting.read(lambda work: availability.area_nights(work, area_id, asked))


router = Router(
    path="/",
    tags=["bookings"],
    route_handlers=[get_area_availability, list_establishment_availability, list_area_nights],
)
