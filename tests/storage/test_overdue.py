"""Devices that are overdue: told of once, as an alarm, until they speak again or nobody waits for them any more."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.overdue_devices import watch_alone
from hse.domain.telemetry.overdue import patience
from hse.wiring.overdue import OverdueWatch
from tests.storage.drain import Reading, drain

NOW = datetime.now(UTC).replace(microsecond=0)
MINUTE = timedelta(minutes=1)


def make_device(engine: sa.Engine, expected_interval_s: int | None = 60, *, is_enabled: bool = True) -> UUID:
    """A device of an organisation of its own, of which something is expected every so many seconds."""
    statement = (
        "with organization as (insert into organizations (name) values (:name) returning id),"
        " profile as (insert into device_profiles (organization_id, name, expected_interval_s, points, format)"
        "   select id, 'meter', :expected, '[]', '{\"kind\": \"hdp\"}' from organization returning id, organization_id)"
        " insert into devices (organization_id, name, profile_id, is_enabled)"
        " select organization_id, 'meter', id, :is_enabled from profile returning id"
    )
    values = {"name": uuid4().hex, "expected": expected_interval_s, "is_enabled": is_enabled}
    with engine.begin() as connection:
        return UUID(str(connection.execute(sa.text(statement), values).scalar_one()))


def speak(engine: sa.Engine, device_id: UUID, *times: datetime) -> None:
    drain(engine, [Reading(time=time, device_id=device_id, value=1.0) for time in times])


def alarms_of(engine: sa.Engine, device_id: UUID) -> Sequence[Any]:
    statement = "select * from device_alarms where device_id = :device order by raised_at"
    with engine.connect() as connection:
        return connection.execute(sa.text(statement), {"device": device_id}).all()


def states_of(engine: sa.Engine, device_id: UUID) -> list[str]:
    return [alarm.state for alarm in alarms_of(engine, device_id)]


def test_a_silent_device_is_told_of_once_and_until_it_speaks(engine: sa.Engine) -> None:
    silent, lively = make_device(engine), make_device(engine)
    speak(engine, silent, NOW - timedelta(days=2), NOW - 3 * MINUTE)
    speak(engine, lively, NOW - 3 * MINUTE + timedelta(seconds=1))
    watch = OverdueWatch(engine=engine)
    watch.look(NOW)
    assert alarms_of(engine, silent) == [], "what was said may still be in a journal"
    watch.look(NOW)
    (alarm,) = alarms_of(engine, silent)
    assert (alarm.type, alarm.severity, alarm.state) == ("device_overdue", "major", "active")
    assert (alarm.raised_at, alarm.num_reports) == (NOW, 1)
    assert (
        alarm.message == f"nothing has come since {NOW - 3 * MINUTE:%Y-%m-%d %H:%M:%S} UTC, and every 60 s is expected"
    )
    assert alarms_of(engine, lively) == []
    for _ in range(3):
        watch.look(NOW + MINUTE / 2)
    assert [(one.state, one.num_reports) for one in alarms_of(engine, silent)] == [("active", 1)]
    speak(engine, silent, NOW + MINUTE)
    watch.look(NOW + 2 * MINUTE)
    (alarm,) = alarms_of(engine, silent)
    assert (alarm.state, alarm.cleared_at) == ("cleared", NOW + 2 * MINUTE)
    # The other one has been silent meanwhile.
    watch.look(NOW + 2 * MINUTE)
    assert states_of(engine, lively) == ["active"]
    for _ in range(2):
        watch.look(NOW + 5 * MINUTE)
    assert states_of(engine, silent) == ["cleared", "active"]


def test_who_listens_is_told_when_it_begins_and_when_it_ends(plain_engine: sa.Engine) -> None:
    device = make_device(plain_engine)
    speak(plain_engine, device, NOW - 4 * MINUTE)
    url = plain_engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    watch = OverdueWatch(engine=plain_engine)
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute("listen hse_notices")
        for _ in range(4):
            watch.look(NOW)
        speak(plain_engine, device, NOW)
        for _ in range(2):
            watch.look(NOW)
        told = [one.payload for one in listener.notifies(timeout=5, stop_after=2)]
        told += [one.payload for one in listener.notifies(timeout=0.1)]
    assert ["active" in told[0], "cleared" in told[1], len(told)] == [True, True, 2]


@pytest.mark.parametrize("expected_interval_s", [1, 1_200, 1_201, 28_800, 28_801, 201_600, 201_601, 2_678_400])
def test_however_often_something_is_expected_three_times_as_long_is_waited(
    engine: sa.Engine, expected_interval_s: int
) -> None:
    due, not_due, week_ago = (make_device(engine, expected_interval_s) for _ in range(3))
    last = NOW - patience(expected_interval_s)
    speak(engine, due, last)
    speak(engine, not_due, last + timedelta(seconds=1))
    speak(engine, week_ago, last - timedelta(days=6))
    watch = OverdueWatch(engine=engine)
    for _ in range(2):
        watch.look(NOW)
    assert [states_of(engine, one) for one in (due, not_due, week_ago)] == [["active"], [], ["active"]]
    speak(engine, due, last + timedelta(seconds=1))
    watch.look(NOW)
    assert states_of(engine, due) == ["cleared"]


@pytest.mark.parametrize("why", ["nothing is expected", "disabled", "never spoke", "a clock that is ahead"])
def test_nobody_is_waited_for_without_a_reason(engine: sa.Engine, why: str) -> None:
    device = make_device(engine, None if why == "nothing is expected" else 60, is_enabled=why != "disabled")
    if why != "never spoke":
        speak(engine, device, NOW + timedelta(hours=1) if why == "a clock that is ahead" else NOW - timedelta(hours=1))
    watch = OverdueWatch(engine=engine)
    for _ in range(2):
        watch.look(NOW)
    assert alarms_of(engine, device) == []


@pytest.mark.parametrize(
    "change",
    [
        "update devices set is_enabled = false where id = :device",
        "update devices set profile_id = null where id = :device",
        "update device_profiles set expected_interval_s = null where id = (select profile_id from devices where id = :device)",
        "update device_profiles set expected_interval_s = 3600 where id = (select profile_id from devices where id = :device)",
    ],
)
def test_an_alarm_ends_when_nobody_waits_any_more(engine: sa.Engine, change: str) -> None:
    device = make_device(engine)
    speak(engine, device, NOW - timedelta(hours=1))
    watch = OverdueWatch(engine=engine)
    for _ in range(2):
        watch.look(NOW)
    assert states_of(engine, device) == ["active"]
    with engine.begin() as connection:
        connection.execute(sa.text(change), {"device": device})
    for _ in range(2):
        watch.look(NOW)
    assert states_of(engine, device) == ["cleared"]


def test_the_alarms_of_a_deleted_device_hold_nobody_up(engine: sa.Engine) -> None:
    gone, other = make_device(engine), make_device(engine)
    speak(engine, gone, NOW - timedelta(hours=1))
    watch = OverdueWatch(engine=engine)
    for _ in range(2):
        watch.look(NOW)
    with engine.begin() as connection:
        connection.execute(sa.text("delete from devices where id = :device"), {"device": gone})
    speak(engine, other, NOW - timedelta(hours=1))
    for _ in range(2):
        watch.look(NOW)
    assert states_of(engine, other) == ["active"]


def test_several_workers_tell_of_a_device_once(plain_engine: sa.Engine) -> None:
    device = make_device(plain_engine)
    speak(plain_engine, device, NOW - timedelta(hours=1))
    watches = [OverdueWatch(engine=plain_engine) for _ in range(4)]
    for _ in range(3):
        threads = [threading.Thread(target=watch.look, args=[NOW]) for watch in watches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for watch in watches:
        watch.look(NOW)
        watch.look(NOW)
    assert [(one.state, one.num_reports) for one in alarms_of(plain_engine, device)] == [("active", 1)]


def test_while_one_worker_watches_the_others_do_not_wait(plain_engine: sa.Engine) -> None:
    device = make_device(plain_engine)
    speak(plain_engine, device, NOW - timedelta(hours=1))
    watch = OverdueWatch(engine=plain_engine)
    with plain_engine.begin() as connection:
        assert watch_alone(connection)
        for _ in range(2):
            watch.look(NOW)
    assert alarms_of(plain_engine, device) == []


def test_after_the_database_was_away_what_was_said_meanwhile_is_waited_for(plain_engine: sa.Engine) -> None:
    device = make_device(plain_engine)
    speak(plain_engine, device, NOW - timedelta(hours=1))
    away = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 2})
    watch = OverdueWatch(engine=plain_engine)
    watch.look(NOW)
    watch.engine = away
    stopping = Once()
    watch.watch_until(stopping)
    watch.engine = plain_engine
    watch.look(NOW)
    assert alarms_of(plain_engine, device) == []
    watch.look(NOW)
    assert states_of(plain_engine, device) == ["active"]


class Once(threading.Event):
    """Is set when it was waited for once."""

    def wait(self, timeout: float | None = None) -> bool:
        """False once, then True."""
        was_set = self.is_set()
        self.set()
        return was_set
