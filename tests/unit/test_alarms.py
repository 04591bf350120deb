"""What reports of a device make of its alarm."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.domain.alerts.commands import after_report
from hse.domain.alerts.model import Alarm, AlarmReport, Place, report_of
from hse.domain.relevant import RelevantEvent

START = datetime(2030, 1, 1, tzinfo=UTC)
PLACE = Place(organization_id=uuid4(), establishment_id=uuid4())
DEVICE = uuid4()


def report(minute: int, **said: Any) -> AlarmReport:
    time = START + timedelta(minutes=minute)
    return report_of(RelevantEvent(id=minute, time=time, device_id=DEVICE, event_type="alarm", metadata=said))


def told(*reports: AlarmReport) -> list[Alarm]:
    """The alarms that come of reports, in the order in which they began to be known."""
    alarms: dict[UUID, Alarm] = {}
    latest: Alarm | None = None
    for one in reports:
        for after in after_report(latest, one, PLACE, uuid4()):
            latest = alarms[after.id] = after
    return list(alarms.values())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ("alarm", "major", False)),
        ({"alarm_type": "smoke", "severity": "CRITICAL"}, ("smoke", "critical", False)),
        ({"type": "door\nforced", "severity": "dreadful"}, ("door forced", "major", False)),
        ({"alarm": "leak", "state": "cleared"}, ("leak", "major", True)),
        ({"code": "E7", "status": "Normal", "severity": "info"}, ("E7", "info", True)),
        ({"alarm": 7, "type": "  ", "active": False}, ("alarm", "major", True)),
        ({"alarm": "x" * 200, "active": True}, ("x" * 100, "major", False)),
    ],
)
def test_what_a_device_says_is_read(said: dict[str, Any], expected: tuple[str, str, bool]) -> None:
    found = report(0, **said)
    assert (found.type, found.severity, found.is_over) == expected


def test_an_alarm_is_on_until_it_is_over_and_then_another_one_begins() -> None:
    first, second = told(
        report(1), report(2, severity="critical"), report(3, state="cleared"), report(4, state="cleared"), report(5)
    )
    assert (first.state, first.num_reports, first.severity) == ("cleared", 2, "critical")
    assert (first.raised_at, first.cleared_at) == (START + timedelta(minutes=1), START + timedelta(minutes=3))
    assert (second.state, second.raised_at, second.cleared_at) == ("active", START + timedelta(minutes=5), None)


def test_a_late_report_changes_when_it_began_and_not_what_was_said_last() -> None:
    (alarm,) = told(report(5, severity="minor"), report(2, severity="critical"))
    assert (alarm.severity, alarm.raised_at, alarm.num_reports) == ("minor", START + timedelta(minutes=2), 2)


def test_a_report_from_before_the_end_raises_nothing_anew() -> None:
    (alarm,) = told(report(1), report(5, state="cleared"), report(3))
    assert (alarm.state, alarm.num_reports) == ("cleared", 2)


def test_an_end_from_before_the_beginning_ends_nothing() -> None:
    (alarm,) = told(report(5), report(3, state="cleared"))
    assert alarm.state == "active"


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=30))
def test_whatever_comes_at_most_the_newest_is_open_and_no_end_is_before_its_beginning(
    reports: list[tuple[int, bool]],
) -> None:
    alarms = told(*(report(minute, active=not is_over) for minute, is_over in reports))
    assert all(alarm.state == "cleared" for alarm in alarms[:-1])
    assert all(alarm.raised_at <= alarm.last_reported_at for alarm in alarms)
    assert all(alarm.cleared_at is None or alarm.cleared_at >= alarm.raised_at for alarm in alarms)
    assert sum(alarm.num_reports for alarm in alarms) == sum(not is_over for _, is_over in reports)
