"""When a device is overdue."""

from datetime import UTC, datetime, timedelta

import pytest

from hse.domain.telemetry.overdue import overdue_since

NEWEST = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expected_interval_s", "patience_s"), [(1, 60), (20, 60), (21, 63), (60, 180), (2_678_400, 3 * 2_678_400)]
)
def test_a_device_is_overdue_after_three_intervals_and_no_sooner_than_after_a_minute(
    expected_interval_s: int, patience_s: int
) -> None:
    due = NEWEST + timedelta(seconds=patience_s)
    assert overdue_since(NEWEST, expected_interval_s, due - timedelta(microseconds=1)) is None
    assert overdue_since(NEWEST, expected_interval_s, due) == due
    assert overdue_since(NEWEST, expected_interval_s, due + timedelta(days=400)) == due


def test_nobody_waits_for_a_device_that_never_spoke_or_of_which_nothing_is_expected() -> None:
    assert overdue_since(None, 60, NEWEST) is None
    assert overdue_since(NEWEST, None, NEWEST + timedelta(days=400)) is None


def test_a_clock_that_is_ahead_makes_nothing_overdue() -> None:
    assert overdue_since(NEWEST + timedelta(hours=1), 60, NEWEST) is None
