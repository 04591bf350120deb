"""What locks report of their keypads is counted once, and who guesses is noticed; backup codes wait where they are wanted."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from hse.adapters.postgres import door_code_alarms
from hse.adapters.postgres.maintenance import run_maintenance
from hse.wiring.outbox import HANDLERS, EventDispatcher
from tests.storage.bookings import change
from tests.storage.door_codes import DAY, HOUR, MINUTE, House, a_house


@pytest.fixture
def house(plain_engine: sa.Engine) -> House:
    """A room behind a front door, and room for its events."""
    made = a_house(plain_engine)
    run_maintenance(plain_engine, now=made.now - DAY, retention_days=730)
    return made


def report(house: House, lock_id: UUID, event_type: str, time: datetime, **metadata: Any) -> None:
    """An event of a lock as the core stores it: in the history, and in the outbox."""
    for table in ("device_events", "event_outbox"):
        house.execute(
            f"insert into {table} (time, device_id, event_type, metadata, source)"
            " values (:time, :device_id, :event_type, cast(:metadata as jsonb), 'hdp')",
            time=time,
            device_id=lock_id,
            event_type=event_type,
            metadata=json.dumps(metadata),
        )


def hand_out(house: House) -> None:
    """The worker handles what waits in the outbox."""
    dispatcher = EventDispatcher(engine=house.engine, handlers=HANDLERS)
    while dispatcher.dispatch_batch():
        pass
    assert house.execute("select reason from parked_events") == []


def test_each_use_counts_once_for_the_code_of_that_lock(house: House) -> None:
    start = house.now - HOUR
    booking = house.book(start, start + DAY)
    house.run()
    front, room = sorted(house.codes(booking), key=lambda row: row.device_id != house.front_door)
    for number in range(3):
        report(house, front.device_id, "code_used", start + number * MINUTE, code_id=str(front.id))
    report(house, room.device_id, "code_used", start, code_id=str(front.id))
    report(house, room.device_id, "code_used", start, code_id="none")
    hand_out(house)
    hand_out(house)
    used = {row.device_id: (row.usage_count, row.last_used_at) for row in house.codes(booking)}
    assert used == {front.device_id: (3, start + 2 * MINUTE), room.device_id: (0, None)}


def test_wrong_codes_within_some_minutes_are_an_alarm_which_ends_when_the_keypad_is_used_rightly(house: House) -> None:
    began = house.now - HOUR
    for number in range(4):
        report(house, house.front_door, "code_rejected", began + number * MINUTE, reason="unknown")
    hand_out(house)
    report(house, house.front_door, "code_rejected", began + 11 * MINUTE, reason="unknown")
    hand_out(house)
    assert house.alarms() == [], "no five of them lie within ten minutes"
    for number in range(12, 16):
        report(house, house.front_door, "code_rejected", began + number * MINUTE, reason="unknown")
    hand_out(house)
    assert house.alarms() == [("wrong_door_codes", "active")]
    report(house, house.front_door, "code_used", began + 40 * MINUTE, code_id=str(UUID(int=1)))
    hand_out(house)
    assert house.alarms() == [("wrong_door_codes", "cleared")]


def test_a_night_s_guesses_that_a_lock_tells_of_together_in_the_morning_are_noticed(house: House) -> None:
    for number in range(6):
        report(house, house.front_door, "code_rejected", house.now - 5 * HOUR + number * MINUTE, reason="unknown")
    report(house, house.front_door, "code_used", house.now, code_id=str(UUID(int=1)))
    hand_out(house)
    assert house.alarms() == [("wrong_door_codes", "cleared")]
    (alarm,) = house.execute("select raised_at, num_reports from device_alarms")
    assert (alarm.raised_at, alarm.num_reports) == (house.now - 5 * HOUR + 4 * MINUTE, 2)


def alarm_of(house: House) -> tuple[datetime, datetime, int]:
    """The one alarm: since when it is on, when it was said last, how many wrong codes it then was."""
    (row,) = house.execute("select raised_at, last_reported_at, metadata from device_alarms")
    return row.raised_at, row.last_reported_at, row.metadata["num_wrong"]


def test_each_burst_of_an_upload_is_told_of_by_its_ends(house: House) -> None:
    began = house.now - 5 * HOUR
    for burst in range(3):
        for number in range(7):
            report(house, house.front_door, "code_rejected", began + burst * HOUR + number * MINUTE, reason="unknown")
    hand_out(house)
    assert house.execute("select num_reports from device_alarms") == [(6,)]
    assert alarm_of(house) == (began + 4 * MINUTE, began + 2 * HOUR + 6 * MINUTE, 7)


def test_wrong_codes_without_end_at_one_moment_are_a_few_reports_of_one_alarm(house: House) -> None:
    for _ in range(3):
        for _ in range(20):
            report(house, house.front_door, "code_rejected", house.now, reason="unknown")
        hand_out(house)
    assert house.execute("select num_reports <= 6 from device_alarms") == [(True,)]
    assert alarm_of(house) == (house.now, house.now, 60)


def test_wrong_codes_of_a_device_that_is_no_lock_are_nobody_s(house: House) -> None:
    house.execute("update devices set device_type = 'sensor' where id = :id", id=house.front_door)
    for number in range(6):
        report(house, house.front_door, "code_rejected", house.now + number * MINUTE, reason="unknown")
    hand_out(house)
    assert house.alarms() == []


@pytest.mark.parametrize(
    ("limit", "num_reports", "raised_after"),
    [({"reports_max": 3}, 3, 2 * HOUR + 6 * MINUTE), ({"events_max": 10}, 2, 3 * HOUR + 4 * MINUTE)],
)
def test_of_a_lock_that_tells_too_much_at_once_the_newest_counts(
    house: House, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], num_reports: int, raised_after: timedelta
) -> None:
    monkeypatch.setattr(door_code_alarms, "BURSTS", door_code_alarms.BURSTS.bindparams(**limit))
    began = house.now - 5 * HOUR
    for burst in range(4):
        for number in range(7):
            report(house, house.front_door, "code_rejected", began + burst * HOUR + number * MINUTE, reason="unknown")
    hand_out(house)
    assert house.execute("select num_reports from device_alarms") == [(num_reports,)]
    assert alarm_of(house) == (began + raised_after, began + 3 * HOUR + 6 * MINUTE, 7)


def test_how_many_wrong_codes_are_an_alarm_is_said_for_each_lock(house: House) -> None:
    house.execute(
        "insert into door_locks (device_id, wrong_codes_max, wrong_codes_minutes, configured_by)"
        " values (:id, 2, 60, gen_random_uuid())",
        id=house.front_door,
    )
    for number in range(2):
        report(house, house.front_door, "code_rejected", house.now - number * 30 * MINUTE, reason="unknown")
    hand_out(house)
    assert house.alarms() == [("wrong_door_codes", "active")]


def test_backup_codes_wait_on_their_lock_and_are_renewed_before_they_end(house: House) -> None:
    house.execute(
        "insert into door_locks (device_id, num_backup_codes, configured_by) values (:id, 2, gen_random_uuid())",
        id=house.front_door,
    )
    house.run()
    first = house.codes(lock_id=house.front_door)
    assert [(row.is_backup, row.booking_id, row.state) for row in first] == [(True, None, "active")] * 2
    assert len(house.locks[house.front_door].codes) == 2
    for _ in range(4):
        house.pass_time(4 * DAY)
        house.run()
        alive = [row for row in house.codes(lock_id=house.front_door) if row.state == "active"]
        assert len(alive) >= 2
        assert all(str(row.id) in house.locks[house.front_door].codes for row in alive)
    assert {row.state for row in house.codes() if row.id in {one.id for one in first}} == {"revoked"}
    house.execute("update door_locks set num_backup_codes = 0")
    house.run()
    assert house.locks[house.front_door].codes == {}
    assert house.execute("select 1 from booking_queue") == []


def test_a_backup_code_that_was_given_to_a_booking_is_narrowed_to_its_stay_and_taken_off_after_it(house: House) -> None:
    house.execute(
        "insert into door_locks (device_id, num_backup_codes, configured_by) values (:id, 1, gen_random_uuid())",
        id=house.front_door,
    )
    house.run()
    (backup,) = house.codes(lock_id=house.front_door)
    start = house.now + 2 * HOUR
    house.powered.clear()
    booking = house.book(start, start + DAY)
    house.run()
    house.execute("update door_lock_codes set booking_id = :booking where id = :id", booking=booking, id=backup.id)
    house.run()
    given = next(row for row in house.codes(booking) if row.is_backup)
    assert (given.state, given.on_lock_until) == ("set", backup.valid_until), "it opens for longer than it should"
    assert (given.valid_from, given.valid_until) == (start, start + DAY)
    house.powered |= house.locks.keys()
    house.run()
    given = next(row for row in house.codes(booking) if row.is_backup)
    kept = house.locks[house.front_door].codes[str(backup.id)]
    assert (kept.valid_from, kept.valid_until) == (start, start + DAY) == (given.on_lock_from, given.on_lock_until)
    assert [row.state for row in house.codes(lock_id=house.front_door) if row.booking_id is None] == ["active"]
    house.pass_time(timedelta(days=2))
    house.run()
    assert {row.state for row in house.codes(booking)} == {"revoked"}


def test_a_backup_code_that_was_given_to_a_guest_is_not_the_next_one_s(house: House) -> None:
    house.execute(
        "insert into door_locks (device_id, num_backup_codes, configured_by) values (:id, 1, gen_random_uuid())",
        id=house.front_door,
    )
    house.run()
    booking = house.book(house.now + 2 * HOUR, house.now + DAY)
    house.run()
    house.execute("update door_lock_codes set booking_id = :booking where is_backup", booking=booking)
    house.run()
    (given,) = [row for row in house.codes(booking) if row.is_backup]
    assert (given.state, given.guest_id) == ("set", house.room.guest_id)
    other = house.another_guest()
    change(house.engine, booking, guest_id=other)
    house.run()
    alive = [row for row in house.codes(booking) if row.ended_at is None]
    assert [(row.device_id, row.guest_id) for row in alive] == [(lock, other) for lock in house.locks]
    assert str(given.id) not in house.locks[house.front_door].codes
