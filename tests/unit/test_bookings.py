"""What the clock makes of bookings, and what is left free between them."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.domain.booking.availability import Asked, AskedNights, free_periods, instant_of, is_free, night_stays
from hse.domain.booking.guests import RELATIONSHIPS
from hse.domain.booking.model import TRANSITIONS, BookingStatus, Stay, Taken, due_transitions, next_transition

NOON = datetime(2028, 2, 28, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
STAY = Stay(check_in=NOON, check_out=NOON + DAY)


def test_every_transition_of_the_clock_is_an_allowed_one() -> None:
    for status, allowed in TRANSITIONS.items():
        for grace in (None, timedelta(0), HOUR):
            following = next_transition(STAY, status, grace)
            assert following is None or following.status in allowed


@given(
    status=st.sampled_from([*TRANSITIONS]),
    grace=st.none() | st.integers(0, 72).map(lambda hours: hours * HOUR),
    moments=st.lists(st.integers(-48, 120).map(lambda hours: NOON + hours * HOUR), max_size=8),
)
def test_what_is_due_does_not_depend_on_how_often_one_looks(
    status: BookingStatus, grace: timedelta | None, moments: list[datetime]
) -> None:
    """Looking now and then, and looking once at the end, come to the same; and what is due comes in order."""
    seen, at = [], status
    for moment in sorted(moments):
        for one in due_transitions(STAY, at, grace, moment):
            assert one.status in TRANSITIONS[at]
            seen.append(one)
            at = one.status
    once = due_transitions(STAY, status, grace, max(moments)) if moments else []
    assert seen == once
    assert all(one.due_at <= other.due_at for one, other in pairwise(seen))


def test_a_stay_holds_its_beginning_and_not_its_end() -> None:
    assert STAY.holds(NOON)
    assert not STAY.holds(NOON + DAY)
    assert not STAY.overlaps(Stay(check_in=NOON + DAY, check_out=NOON + 2 * DAY))
    assert STAY.overlaps(Stay(check_in=NOON + DAY - HOUR, check_out=NOON + 2 * DAY))


@given(
    hours=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), max_size=8),
    gap=st.integers(0, 5),
    span=st.tuples(st.integers(-20, 200), st.integers(1, 100)),
    wanted=st.tuples(st.integers(-20, 300), st.integers(1, 60)),
)
def test_a_stay_fits_if_and_only_if_it_lies_in_what_is_told_to_be_free(
    hours: list[tuple[int, int]], gap: int, span: tuple[int, int], wanted: tuple[int, int]
) -> None:
    taken: list[Taken] = []
    for begin, lasting in sorted(hours):
        check_in, check_out = NOON + begin * HOUR, NOON + (begin + lasting) * HOUR
        if not taken or taken[-1].free_from <= check_in:
            taken.append(Taken(check_in=check_in, check_out=check_out, free_from=check_out + gap * HOUR))
    asked = Asked(since=NOON + span[0] * HOUR, until=NOON + sum(span) * HOUR)
    begin_at, end_at = NOON + wanted[0] * HOUR, NOON + sum(wanted) * HOUR
    if not asked.since <= begin_at < end_at <= asked.until:
        return
    free = free_periods(asked, taken, gap * HOUR)
    lies_within = any(one.since <= begin_at and end_at <= one.until for one in free)
    assert lies_within == is_free(begin_at, end_at + gap * HOUR, taken)
    assert all(one.until < other.since for one, other in pairwise(free))


@pytest.mark.parametrize(
    ("zone", "day", "at", "instant"),
    [
        # Skipped: from 24:00 to 01:00. As much later as the clock is put forward.
        ("America/Santiago", "2028-09-03", "00:30", "2028-09-03T04:30Z"),
        ("America/Santiago", "2028-09-03", "00:00", "2028-09-03T04:00Z"),
        # Twice: from 24:00 back to 23:00. The first of the two.
        ("America/Santiago", "2028-04-01", "23:30", "2028-04-02T02:30Z"),
        ("Europe/Madrid", "2028-03-26", "02:30", "2028-03-26T01:30Z"),
        ("Europe/Madrid", "2028-10-29", "02:30", "2028-10-29T00:30Z"),
        ("UTC", "2028-02-29", "12:00", "2028-02-29T12:00Z"),
        ("Europe/Madrid", "2028-02-29", "00:00", "2028-02-28T23:00Z"),
        ("America/Santiago", "2028-02-29", "23:59", "2028-03-01T02:59Z"),
    ],
)
def test_a_time_of_the_clock_is_one_instant_also_where_it_is_skipped_or_comes_twice(
    zone: str, day: str, at: str, instant: str
) -> None:
    found = instant_of(date.fromisoformat(day), time.fromisoformat(at), ZoneInfo(zone))
    assert found == datetime.fromisoformat(instant)


@pytest.mark.parametrize("zone", ["America/Santiago", "Europe/Madrid", "UTC"])
@pytest.mark.parametrize("year", range(2024, 2033))
def test_the_nights_of_a_year_follow_one_another_without_overlap(zone: str, year: int) -> None:
    num_nights = (date(year + 1, 1, 1) - date(year, 1, 1)).days
    asked = AskedNights(first=date(year, 1, 1), num_nights=num_nights)
    nights = list(night_stays(asked, zone))
    assert [day for day, _, _ in nights][58:61] == [date(year, 1, 1) + number * DAY for number in (58, 59, 60)]
    lengths = {check_out - check_in for _, check_in, check_out in nights}
    assert lengths == ({20 * HOUR} if zone == "UTC" else {19 * HOUR, 20 * HOUR, 21 * HOUR})
    assert all(one[2] < other[1] for one, other in pairwise(nights))


def test_each_relationship_has_its_inverse() -> None:
    assert all(RELATIONSHIPS[RELATIONSHIPS[one]] == one for one in RELATIONSHIPS)
