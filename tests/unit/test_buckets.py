"""Buckets of a series: where they begin, that every moment is counted once, and from what."""

import itertools
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.domain.errors import Invalid
from hse.domain.telemetry.buckets import (
    AUTOMATIC_STEPS,
    CALENDAR_STEPS,
    DAY,
    FIXED_STEPS,
    HOUR,
    STEPS,
    Reaches,
    Span,
    automatic_step,
    bucket_edges,
    hour_of,
    merged,
    plan,
    without,
)

# Where a clock goes back over midnight, a date comes twice with another one between; that has not happened since.
FIRST = datetime(2012, 1, 1, tzinfo=UTC)
LAST = datetime(2035, 1, 1, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
ZONES = sorted(
    name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/", "right/"))
)

moments = st.integers(min_value=0, max_value=22 * 366 * 24 * 60).map(
    lambda minutes: FIRST + timedelta(minutes=minutes, seconds=7)
)
lengths = st.timedeltas(min_value=timedelta(minutes=1), max_value=timedelta(days=400))
zones = st.sampled_from(ZONES).map(ZoneInfo)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


@given(since=moments, length=lengths, step=st.sampled_from(STEPS), zone=zones)
def test_buckets_hold_the_range_and_follow_one_another(
    since: datetime, length: timedelta, step: str, zone: ZoneInfo
) -> None:
    until = since + min(length, 2000 * FIXED_STEPS.get(step, DAY))
    edges = bucket_edges(step, since, until, zone, 3000)
    assert edges[0] <= since
    assert edges[-1] >= until
    assert edges == sorted(set(edges))
    # None could be left out.
    assert edges[1] > since
    assert edges[-2] < until
    if step in FIXED_STEPS:
        assert {later - earlier for earlier, later in itertools.pairwise(edges)} == {FIXED_STEPS[step]}


@given(moment=moments, zone=zones, step=st.sampled_from(CALENDAR_STEPS))
def test_a_bucket_of_the_calendar_holds_what_the_zone_s_calendar_says(
    moment: datetime, zone: ZoneInfo, step: str
) -> None:
    def name_of(one: datetime) -> tuple[int, ...]:
        day: date = one.astimezone(zone).date()
        names = {
            "1d": (day.year, day.month, day.day),
            "1w": tuple(day.isocalendar())[:2],
            "1mo": (day.year, day.month),
            "1y": (day.year,),
        }
        return names[step]

    since, until = bucket_edges(step, moment, moment + timedelta(microseconds=1), zone, 1)
    last = until - timedelta(microseconds=1)
    assert name_of(since) == name_of(moment) == name_of(last)
    assert name_of(since - timedelta(microseconds=1)) != name_of(moment) != name_of(until)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        # The clock skips midnight; it shows 23 to 24 o'clock twice.
        ("America/Santiago", utc(2025, 9, 7, 12), 23),
        ("America/Santiago", utc(2025, 4, 5, 12), 25),
        ("Europe/Madrid", utc(2025, 3, 30, 12), 23),
        ("Europe/Madrid", utc(2025, 10, 26, 12), 25),
        ("Australia/Lord_Howe", utc(2025, 10, 5, 0), 23.5),
        ("Asia/Kolkata", utc(2025, 10, 5, 0), 24),
    ],
)
def test_a_day_has_the_hours_that_it_has(zone: str, day: datetime, hours: float) -> None:
    since, until = bucket_edges("1d", day, day + HOUR, ZoneInfo(zone), 1)
    assert (until - since) / HOUR == hours


def test_a_date_that_a_zone_left_out_has_no_bucket() -> None:
    edges = bucket_edges("1d", utc(2011, 12, 29, 12), utc(2012, 1, 1), ZoneInfo("Pacific/Apia"), 10)
    assert edges == [utc(2011, 12, 29, 10), utc(2011, 12, 30, 10), utc(2011, 12, 31, 10), utc(2012, 1, 1, 10)]


@given(since=moments, length=lengths, points=st.integers(min_value=3, max_value=500), zone=zones)
def test_the_automatic_step_is_the_finest_that_is_not_too_much(
    since: datetime, length: timedelta, points: int, zone: ZoneInfo
) -> None:
    until = since + length
    step = automatic_step(since, until, zone, points)
    assert len(bucket_edges(step, since, until, zone, points)) <= points + 1
    finer = AUTOMATIC_STEPS[: AUTOMATIC_STEPS.index(step)]
    if finer:
        with pytest.raises(Invalid):
            bucket_edges(finer[-1], since, until, zone, points)


def test_more_points_than_asked_for_are_refused() -> None:
    with pytest.raises(Invalid, match="choose a coarser one"):
        bucket_edges("1m", utc(2025, 1, 1), utc(2025, 1, 2), ZoneInfo("UTC"), 1439)
    with pytest.raises(Invalid, match="touches more years"):
        automatic_step(utc(2024, 12, 31), utc(2025, 1, 2), ZoneInfo("UTC"), 1)


hours = st.integers(min_value=0, max_value=24 * 60).map(lambda number: utc(2025, 3, 1) + number * HOUR)
spans = st.lists(st.builds(lambda since: Span(since, since + HOUR), hours), max_size=8)
aggregated = st.sampled_from([step for step in STEPS if not step.endswith(("s", "m"))])


@given(
    since=hours,
    length=st.integers(min_value=1, max_value=24 * 50),
    step=aggregated,
    zone=zones,
    late=spans,
    reaches=st.builds(
        lambda until, kept: Reaches(hours_until=until, days_until=until.replace(hour=0), kept_from=kept), hours, hours
    ),
    has_days=st.booleans(),
)
def test_every_moment_is_counted_once_and_from_what_knows_it(
    since: datetime,
    length: int,
    step: str,
    zone: ZoneInfo,
    late: list[Span],
    reaches: Reaches,
    has_days: bool,
) -> None:
    edges = bucket_edges(step, since, since + length * HOUR, zone, 3000)
    whole = Span(edges[0], edges[-1])
    kept_from = reaches.kept_from
    pieces = plan(edges, whole, reaches, late, has_days=has_days)
    counted = sorted((*pieces.events, *pieces.hours, *pieces.days), key=lambda one: one.since)
    # All of the range, and nothing twice.
    assert merged(counted) == [whole]
    assert all(one.until <= other.since for one, other in itertools.pairwise(counted))
    for span in pieces.hours:
        assert span.until <= reaches.hours_until
        assert without([span], [one for one in merged(late) if one.until > kept_from]) == [span]
        # Whole hours, unless the events are gone by which one could be cut.
        assert all(hour_of(end) == end or end <= kept_from + HOUR for end in (span.since, span.until))
        assert not any(
            span.since < edge < span.until and hour_of(edge) != edge and edge > kept_from + HOUR for edge in edges
        )
    for span in pieces.days:
        assert has_days
        assert span.until <= reaches.days_until
        assert all(end.timetuple()[3:6] == (0, 0, 0) for end in (span.since, span.until))
        assert not any(span.since < edge < span.until and edge.hour for edge in edges)


def test_months_are_counted_from_days_and_only_their_ends_from_hours() -> None:
    zone = ZoneInfo("America/Santiago")
    edges = bucket_edges("1mo", utc(2025, 1, 15), utc(2025, 2, 15), zone, 10)
    reaches = Reaches(hours_until=LAST, days_until=LAST, kept_from=LONG_AGO)
    pieces = plan(edges, Span(edges[0], edges[-1]), reaches, [], has_days=True)
    assert pieces.events == ()
    assert pieces.days == (Span(utc(2025, 1, 2), utc(2025, 2, 1)), Span(utc(2025, 2, 2), utc(2025, 3, 1)))
    assert pieces.hours == (
        Span(utc(2025, 1, 1, 3), utc(2025, 1, 2)),
        Span(utc(2025, 2, 1), utc(2025, 2, 2)),
        Span(utc(2025, 3, 1), utc(2025, 3, 1, 3)),
    )


def test_an_hour_that_an_edge_cuts_is_counted_from_events() -> None:
    edges = bucket_edges("1d", utc(2025, 1, 1, 12), utc(2025, 1, 2, 12), ZoneInfo("Asia/Kolkata"), 10)
    reaches = Reaches(hours_until=LAST, days_until=LAST, kept_from=LONG_AGO)
    pieces = plan(edges, Span(edges[0], edges[-1]), reaches, [], has_days=True)
    assert pieces.events == (
        Span(utc(2024, 12, 31, 18, 30), utc(2024, 12, 31, 19)),
        Span(utc(2025, 1, 1, 18), utc(2025, 1, 1, 19)),
        Span(utc(2025, 1, 2, 18), utc(2025, 1, 2, 18, 30)),
    )


def covered(spans: Sequence[Span]) -> set[datetime]:
    return {span.since + number * HOUR for span in spans for number in range((span.until - span.since) // HOUR)}


@given(spans=spans, taken=spans)
def test_what_is_taken_away_is_gone_and_nothing_else(spans: list[Span], taken: list[Span]) -> None:
    left = without(merged(spans), merged(taken))
    assert covered(left) == covered(spans) - covered(taken)
