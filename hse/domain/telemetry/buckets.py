"""How a series cuts time into buckets, and from what each stretch of time is counted: days, hours, or the events themselves.

The database keeps aggregates of UTC hours and UTC days. Buckets of a fixed length lie on the clock of UTC; days, weeks, months and
years are those of a time zone, so they begin where its date begins, and have 23, 24 or 25 hours. A bucket is counted from the
largest pieces that lie in it whole; an hour that a bucket's edge cuts, as in zones that are half an hour off, is counted from
events.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from itertools import islice
from zoneinfo import ZoneInfo

from hse.domain.errors import Invalid

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Buckets of a fixed length, and those of the calendar, from the finest to the coarsest.
FIXED_STEPS = {
    "1s": timedelta(seconds=1),
    "5s": timedelta(seconds=5),
    "10s": timedelta(seconds=10),
    "30s": timedelta(seconds=30),
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "10m": timedelta(minutes=10),
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": HOUR,
    "3h": 3 * HOUR,
    "6h": 6 * HOUR,
    "12h": 12 * HOUR,
}
CALENDAR_STEPS = ("1d", "1w", "1mo", "1y")
STEPS = (*FIXED_STEPS, *CALENDAR_STEPS)
# What `auto` chooses among: a week belongs to no month.
AUTOMATIC_STEPS = tuple(step for step in STEPS if step != "1w")

# Events exist from the first to the second; calendars beyond would not fit into a datetime.
TIME_MIN = datetime(1971, 1, 1, tzinfo=UTC)
TIME_MAX = datetime(2200, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, without its end."""

    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What is counted from events, from hours, and from days; none of it twice."""

    events: tuple[Span, ...] = ()
    hours: tuple[Span, ...] = ()
    days: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaches:
    """How far the stored aggregates reach; events before `kept_from` were dropped, so what aggregates say there is final."""

    hours_until: datetime
    days_until: datetime
    kept_from: datetime


def is_counted_from_events(step: str) -> bool:
    """Whether buckets of this step are finer than what is aggregated."""
    return step in FIXED_STEPS and FIXED_STEPS[step] < HOUR


def check_range(since: datetime, until: datetime) -> None:
    """Raises `Invalid` unless `since` is before `until`, and both are times that there may be events of."""
    check_moment("from", since)
    check_moment("to", until)
    if since >= until:
        raise Invalid("to", "must be after `from`")


def check_moment(name: str, moment: datetime) -> None:
    """Raises `Invalid` unless there may be events of this moment."""
    if moment.tzinfo is None:
        raise Invalid(name, "name the time zone, such as 2030-01-01T00:00:00Z")
    if not TIME_MIN <= moment <= TIME_MAX:
        raise Invalid(name, f"between {TIME_MIN.year} and {TIME_MAX.year}")


def automatic_step(since: datetime, until: datetime, zone: ZoneInfo, points_max: int, *, finest: str = "1s") -> str:
    """The finest step, from `finest` on, that takes `points_max` buckets at most. Raises `Invalid` when none does."""
    candidates = AUTOMATIC_STEPS[AUTOMATIC_STEPS.index(finest) :]
    for step in candidates:
        if _count_at_most(step, since, until, zone, points_max):
            return step
    raise Invalid("points", "the range touches more years than that: ask for more points, or for less time")


def bucket_edges(step: str, since: datetime, until: datetime, zone: ZoneInfo, points_max: int) -> list[datetime]:
    """Where buckets begin and end that hold the range, in UTC: one edge more than there are buckets.

    The range is widened to whole buckets. Raises `Invalid` when there are more than `points_max` of them.
    """
    if not _count_at_most(step, since, until, zone, points_max):
        raise Invalid(
            "step", f"{step} makes more than {points_max} points of this range: choose a coarser one, or `auto`"
        )
    if step in FIXED_STEPS:
        length = FIXED_STEPS[step]
        first = EPOCH + (since - EPOCH) // length * length
        return [first + number * length for number in range(-((first - until) // length) + 1)]
    return list(_calendar_edges(step, since, until, zone))


def _count_at_most(step: str, since: datetime, until: datetime, zone: ZoneInfo, points_max: int) -> bool:
    if step in FIXED_STEPS:
        length = FIXED_STEPS[step]
        return -((EPOCH - until) // length) - (since - EPOCH) // length <= points_max
    edges = islice(_calendar_edges(step, since, until, zone), points_max + 2)
    return sum(1 for _ in edges) <= points_max + 1


def _calendar_edges(step: str, since: datetime, until: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    day = _first_day(step, since.astimezone(zone).date())
    last = None
    while True:
        edge = start_of_day(day, zone)
        # A date that a zone left out, moving over the date line, begins where the next one does.
        if edge != last:
            yield edge
        if edge >= until:
            return
        last, day = edge, _next_day(step, day)


def start_of_day(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a date in a zone, in UTC.

    Where midnight is skipped, its offset from before the change leads to the moment of the change; where it comes twice, the
    first one counts.
    """
    return datetime.combine(day, time_of_day(), tzinfo=zone).astimezone(UTC)


def _first_day(step: str, day: date) -> date:
    match step:
        case "1w":
            return day - timedelta(days=day.weekday())
        case "1mo":
            return day.replace(day=1)
        case "1y":
            return day.replace(month=1, day=1)
    return day


def _next_day(step: str, day: date) -> date:
    match step:
        case "1w":
            return day + timedelta(days=7)
        case "1mo":
            return (day + timedelta(days=31)).replace(day=1)
        case "1y":
            return day.replace(year=day.year + 1)
    return day + timedelta(days=1)


def plan(edges: Sequence[datetime], window: Span, reaches: Reaches, late: Iterable[Span], *, has_days: bool) -> Pieces:
    """From what the part of the buckets that lies in `window` is counted, for buckets of an hour and more.

    `late` are hours that the aggregates do not have as they are now. Days are used when `has_days` says that they know enough.
    An hour that is cut by an edge, and whose events were dropped, is counted where it begins.
    """
    whole = Span(max(edges[0], window.since), min(edges[-1], window.until))
    if whole.since >= whole.until:
        return Pieces()
    aggregated = Span(whole.since, min(whole.until, reaches.hours_until))
    if aggregated.since >= aggregated.until:
        return Pieces(events=(whole,))
    cut = [Span(hour, hour + HOUR) for hour in _cut_hours(edges)]
    known_late = [span for span in (*cut, *late) if span.until > reaches.kept_from]
    from_events = [*_within(merged(known_late), aggregated), Span(aggregated.until, whole.until)]
    from_hours = without([aggregated], _within(merged(known_late), aggregated))
    from_days = list(_whole_days(edges, from_hours, reaches.days_until)) if has_days else []
    return Pieces(
        events=tuple(merged(from_events)), hours=tuple(without(from_hours, from_days)), days=tuple(merged(from_days))
    )


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same time in order, in as few spans as it takes."""
    found: list[Span] = []
    for span in sorted((one for one in spans if one.since < one.until), key=lambda one: one.since):
        if found and span.since <= found[-1].until:
            found[-1] = Span(found[-1].since, max(found[-1].until, span.until))
        else:
            found.append(span)
    return found


def without(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """What of the spans is not taken. Both are in order and do not overlap among themselves."""
    found: list[Span] = []
    ends = [one.until for one in taken]
    for span in spans:
        since = span.since
        for one in taken[bisect_left(ends, since) :]:
            if one.since >= span.until:
                break
            if one.since > since:
                found.append(Span(since, one.since))
            since = max(since, one.until)
        if since < span.until:
            found.append(Span(since, span.until))
    return found


def hour_of(moment: datetime) -> datetime:
    """The UTC hour that a moment lies in."""
    return EPOCH + (moment - EPOCH) // HOUR * HOUR


def _cut_hours(edges: Sequence[datetime]) -> Iterator[datetime]:
    for edge in edges:
        if edge.minute or edge.second or edge.microsecond:
            yield hour_of(edge)


def _within(spans: Iterable[Span], bounds: Span) -> list[Span]:
    clipped = (Span(max(one.since, bounds.since), min(one.until, bounds.until)) for one in spans)
    return [one for one in clipped if one.since < one.until]


def _whole_days(edges: Sequence[datetime], spans: Sequence[Span], days_until: datetime) -> Iterator[Span]:
    """The UTC days of the spans that lie in one bucket whole."""
    for span in spans:
        first = max(bisect_left(edges, span.since), 1)
        for number in range(first, len(edges)):
            since, until = max(span.since, edges[number - 1]), min(span.until, edges[number])
            if since >= span.until:
                break
            first_day = EPOCH - (EPOCH - since) // DAY * DAY
            last_day = EPOCH + (min(until, days_until) - EPOCH) // DAY * DAY
            if first_day < last_day:
                yield Span(first_day, last_day)
