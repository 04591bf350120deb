"""When areas are free: as stretches of time, and as nights on the calendar of the site.

Times are instants. What stands on a calendar is turned into instants in the site's time zone: where the clock is put forward, a
time that is skipped is as much later as the clock is put forward, and where it is put back, a time that comes twice is the first of
the two (PEP 495, fold 0). So a night may be an hour longer or shorter than the one before.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from hse.domain.booking.model import Taken
from hse.domain.booking.ports import BookingWork, Part, Site
from hse.domain.booking.views import BookingSettings
from hse.domain.errors import Forbidden, Invalid, NotFound
from hse.domain.paging import Page, PageQuery
from hse.domain.work import seen

ACT = "read_booking"
# Of one area, and of all areas of an establishment.
RANGE_MAX, RANGE_OF_MANY_MAX = timedelta(days=400), timedelta(days=93)
NIGHTS_MAX = 400
MINUTES_MAX = 732 * 24 * 60
DAY = timedelta(days=1)
# What lies beyond would not fit into a datetime everywhere.
FIRST_DATE, LAST_DATE = date(1971, 1, 1), date(2199, 12, 31)
FIRST_TIME, LAST_TIME = (datetime.combine(day, time(), tzinfo=UTC) for day in (FIRST_DATE, LAST_DATE))


@dataclass(frozen=True, slots=True, kw_only=True)
class FreePeriod:
    """A stretch of time for which an area can be booked, all of it or a part."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaAvailability:
    """When an area is free. `gap_minutes` is how long it is kept free between two stays."""

    area_id: UUID
    area_name: str
    area_type: str
    establishment_id: UUID
    timezone: str
    gap_minutes: int
    free: Sequence[FreePeriod]


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A night on the site's calendar: from `check_in` on `date` until `check_out` on the day after."""

    date: date
    check_in: datetime
    check_out: datetime
    is_free: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaNights:
    """The nights of an area, on the calendar of its site."""

    area_id: UUID
    timezone: str
    nights: Sequence[Night]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """In which stretch of time, and for how long at least."""

    since: datetime
    until: datetime
    minutes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedNights:
    """Which nights, and at what time of day stays begin and end."""

    first: date
    num_nights: int
    check_in_time: time = time(15)
    check_out_time: time = time(11)


async def area_availability(work: BookingWork, area_id: UUID, asked: Asked) -> AreaAvailability:
    """When an area is free. Raises `Forbidden`, `NotFound`, `Invalid`."""
    _check(asked, RANGE_MAX)
    area, site, settings = await _looked_at(work, area_id)
    taken = await work.bookings.taken([area.id], asked.since, asked.until + settings.gap)
    return _availability(area, site, settings, free_periods(asked, taken.get(area.id, ()), settings.gap))


async def establishment_availability(
    work: BookingWork, establishment_id: UUID, asked: Asked, query: PageQuery
) -> Page[AreaAvailability]:
    """A page of the areas of an establishment, and when each is free; those that never are stand there, too.

    Raises `Forbidden`, `NotFound`, `Invalid`.
    """
    _check(asked, RANGE_OF_MANY_MAX)
    work.actor.require(ACT)
    site = await seen(work.establishments, work.actor.reach("read_establishment"), establishment_id)
    if not site.is_within(work.actor.reach(ACT)):
        raise Forbidden(ACT)
    settings = await work.booking_settings.find(site.id)
    within = replace(query, filters={**query.filters, "establishment_id": site.id})
    page = await work.areas.page(work.actor.reach("read_area"), within)
    taken = await work.bookings.taken([area.id for area in page.items], asked.since, asked.until + settings.gap)
    items = [
        _availability(area, site, settings, free_periods(asked, taken.get(area.id, ()), settings.gap))
        for area in page.items
    ]
    return Page(items=items, next_cursor=page.next_cursor, total=page.total)


async def area_nights(work: BookingWork, area_id: UUID, asked: AskedNights) -> AreaNights:
    """Which nights of an area are free, on the calendar of its site. Raises `Forbidden`, `NotFound`, `Invalid`."""
    if not 1 <= asked.num_nights <= NIGHTS_MAX:
        raise Invalid("nights", f"between 1 and {NIGHTS_MAX}")
    if not FIRST_DATE <= asked.first <= LAST_DATE - asked.num_nights * DAY:
        raise Invalid("first", f"between {FIRST_DATE} and {LAST_DATE}")
    area, site, settings = await _looked_at(work, area_id)
    stays = list(night_stays(asked, site.timezone))
    taken = await work.bookings.taken([area.id], stays[0][1], stays[-1][2] + settings.gap)
    nights = [
        Night(
            date=day,
            check_in=check_in,
            check_out=check_out,
            is_free=is_free(check_in, check_out + settings.gap, taken.get(area.id, ())),
        )
        for day, check_in, check_out in stays
    ]
    return AreaNights(area_id=area.id, timezone=site.timezone, nights=nights)


def free_periods(asked: Asked, taken: Iterable[Taken], gap: timedelta) -> list[FreePeriod]:
    """What is left of a stretch of time between stays, given in order: behind each until it is free again, before each the gap."""
    free: list[FreePeriod] = []
    shortest = max(timedelta(minutes=asked.minutes), timedelta(microseconds=1))
    since = asked.since
    for one in taken:
        until = min(one.check_in - gap, asked.until)
        if until - since >= shortest:
            free.append(FreePeriod(since=since, until=until))
        since = max(since, one.free_from)
    if asked.until - since >= shortest:
        free.append(FreePeriod(since=since, until=asked.until))
    return free


def is_free(check_in: datetime, free_from: datetime, taken: Iterable[Taken]) -> bool:
    """Whether a stay that keeps the area until `free_from` is in nobody's way."""
    return not any(one.check_in < free_from and check_in < one.free_from for one in taken)


def night_stays(asked: AskedNights, timezone: str) -> Iterator[tuple[date, datetime, datetime]]:
    """The nights, and the instants at which each begins and ends."""
    zone = ZoneInfo(timezone)
    for number in range(asked.num_nights):
        day = asked.first + number * DAY
        yield day, instant_of(day, asked.check_in_time, zone), instant_of(day + DAY, asked.check_out_time, zone)


def instant_of(day: date, at: time, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, at which the clocks of a zone show this on that day."""
    return datetime.combine(day, at, tzinfo=zone).astimezone(UTC)


async def _looked_at(work: BookingWork, area_id: UUID) -> tuple[Part, Site, BookingSettings]:
    """An area, its site and that one's settings, as far as the actor may see what is free there."""
    reach = work.actor.require(ACT)
    area = await seen(work.areas, work.actor.reach("read_area"), area_id)
    if not area.is_within(reach):
        raise Forbidden(ACT)
    # Whoever sees what is free in an area is told the site's time zone with it.
    site = await work.establishments.find(area.establishment_id, reach)
    if site is None:
        raise NotFound("area", area_id)
    return area, site, await work.booking_settings.find(area.establishment_id)


def _availability(area: Part, site: Site, settings: BookingSettings, free: Sequence[FreePeriod]) -> AreaAvailability:
    return AreaAvailability(
        area_id=area.id,
        area_name=area.name,
        area_type=area.type,
        establishment_id=area.establishment_id,
        timezone=site.timezone,
        gap_minutes=int(settings.gap.total_seconds()) // 60,
        free=free,
    )


def _check(asked: Asked, range_max: timedelta) -> None:
    for name, at in (("from", asked.since), ("to", asked.until)):
        if not FIRST_TIME <= at <= LAST_TIME:
            raise Invalid(name, f"between {FIRST_TIME.isoformat()} and {LAST_TIME.isoformat()}")
    if asked.until <= asked.since:
        raise Invalid("to", "lies behind from")
    if asked.until - asked.since > range_max:
        raise Invalid("to", f"lies {range_max.days} days behind from at most")
    if not 0 <= asked.minutes <= MINUTES_MAX:
        raise Invalid("minutes", f"between 0 and {MINUTES_MAX}")
