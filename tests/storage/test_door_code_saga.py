"""The way of a door code, from the booking to the lock and off it again: with locks that are away, full, or do not answer."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.command_queues import claim
from hse.domain.devices.device_commands import Report, Told
from hse.simulation.locks import KeptCode
from tests.storage.bookings import change
from tests.storage.door_codes import DAY, HOUR, MINUTE, House, a_house


@pytest.fixture
def house(plain_engine: sa.Engine) -> House:
    """A room behind a front door."""
    return a_house(plain_engine)


def on_locks(house: House) -> list[str]:
    """The ids of all codes that locks have."""
    return sorted(code_id for lock in house.locks.values() for code_id in lock.codes)


def test_a_code_is_planned_put_on_every_lock_of_the_way_used_and_taken_off(house: House) -> None:
    start = house.now + 3 * DAY
    booking = house.book(start, start + 2 * DAY)
    house.run()
    assert (house.states(booking), house.told) == (["planned", "planned"], [])
    house.pass_time(2 * DAY)
    house.look()
    assert house.states(booking) == ["pushing", "pushing"]
    house.run()
    assert house.states(booking) == ["set", "set"]
    front, room = house.codes(booking)
    assert {front.device_id, room.device_id} == house.locks.keys()
    for row in (front, room):
        lock, digits = house.locks[row.device_id], house.digits(row)
        assert lock.enter(digits, start - timedelta(seconds=1)).event_type == "code_rejected"
        assert lock.enter(digits, start).event_type == "code_used"
        assert lock.enter(digits, start + 2 * DAY).event_type == "code_rejected"
    house.pass_time(DAY)
    house.run()
    assert house.states(booking) == ["active", "active"]
    house.pass_time(2 * DAY)
    house.look()
    assert house.states(booking) == ["revoking", "revoking"]
    house.run()
    assert (house.states(booking), on_locks(house)) == (["revoked", "revoked"], [])
    assert [(row.sealed_code, row.code_mac) for row in house.codes(booking)] == [(None, None)] * 2
    assert house.alarms() == []


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_a_code_does_not_outlive_its_booking(house: House, end: str) -> None:
    booking = house.book(house.now + 2 * HOUR, house.now + DAY)
    house.run()
    assert (house.states(booking), len(on_locks(house))) == (["set", "set"], 2)
    getattr(house, end)(booking)
    house.run()
    assert (house.states(booking), on_locks(house)) == (["revoked", "revoked"], [])


def test_a_code_that_was_never_sent_is_gone_at_once_and_its_lock_hears_nothing(house: House) -> None:
    house.powered.clear()
    booking = house.book(house.now + 2 * HOUR, house.now + DAY)
    house.run()
    assert house.states(booking) == ["pushing", "pushing"]
    house.pass_time(MINUTE)
    house.run()
    assert {row.reason for row in house.codes(booking)} == {"offline"}
    house.cancel(booking)
    house.run()
    assert house.states(booking) == ["revoked", "revoked"]
    house.come_to_rest()
    assert house.told == []


def test_a_changed_stay_moves_its_code_and_another_room_gets_another(house: House) -> None:
    other = house.add_room()
    start = house.now + 3 * HOUR
    booking = house.book(start, start + 2 * DAY)
    house.run()
    change(house.engine, booking, check_in=start + HOUR, check_out=start + DAY, free_from=start + DAY)
    house.run()
    for row in house.codes(booking):
        kept = house.locks[row.device_id].codes[str(row.id)]
        assert (kept.valid_from, kept.valid_until) == (start + HOUR, start + DAY)
        assert (row.on_lock_from, row.on_lock_until, row.state) == (start + HOUR, start + DAY, "set")
    change(house.engine, booking, area_id=other)
    house.run()
    assert house.states(booking) == ["revoked", "set", "set"]
    gone = next(row for row in house.codes(booking) if row.state == "revoked")
    assert house.locks[gone.device_id].codes == {}


def test_a_lock_that_is_away_for_a_day_raises_an_alarm_at_the_deadline_and_takes_the_code_when_it_is_back(
    house: House,
) -> None:
    lock_id = next(one for one in house.locks if one != house.front_door)
    start = house.now + 20 * HOUR
    house.powered.discard(lock_id)
    booking = house.book(start, start + 3 * DAY)
    house.run()
    house.pass_time(start - HOUR - house.now - timedelta(seconds=1))
    house.run()
    assert (house.states(booking), house.alarms()) == (["pushing", "set"], [])
    house.pass_time(timedelta(seconds=1))
    house.run()
    assert house.states(booking) == ["failed", "set"]
    assert [row.reason for row in house.codes(booking, lock_id)] == ["offline"]
    assert house.alarms() == [("door_code_not_on_lock", "active")]
    (alarm,) = house.execute("select * from device_alarms")
    assert (alarm.device_id, alarm.metadata["source"], alarm.metadata["booking_id"]) == (
        lock_id,
        "booking",
        str(booking),
    )
    assert alarm.establishment_id == house.room.establishment_id
    house.pass_time(5 * HOUR)
    house.run()
    assert house.states(booking) == ["active", "failed"]
    house.powered.add(lock_id)
    house.run()
    assert house.states(booking) == ["active", "active"]
    assert house.alarms() == [("door_code_not_on_lock", "cleared")]
    assert sum(one[0] == lock_id for one in house.told) == 1


def test_a_lock_that_is_full_is_asked_again_and_has_room_when_others_have_left(plain_engine: sa.Engine) -> None:
    house = a_house(plain_engine, capacity=1)
    first = house.book(house.now + 2 * HOUR, house.now + 5 * HOUR)
    house.run()
    second = house.book(house.now + 7 * HOUR, house.now + 9 * HOUR)
    house.run()
    assert (house.states(first), house.states(second)) == (["set", "set"], ["pushing", "pushing"])
    assert {(row.reason, row.num_tries) for row in house.codes(second)} == {("full", 1)}
    house.cancel(first)
    house.run()
    house.pass_time(MINUTE)
    house.run()
    assert (house.states(first), house.states(second)) == (["revoked", "revoked"], ["set", "set"])


def test_digits_that_a_lock_has_from_somebody_else_are_drawn_again(house: House) -> None:
    numbers = iter([482_913, 739_164, 550_918])
    house.random_below = lambda _: next(numbers)
    foreign = KeptCode(
        digits="482913", valid_from=house.now, valid_until=house.now + 9 * DAY, max_usages=None, version=1
    )
    house.locks[house.front_door].codes["by hand"] = foreign
    room_lock = next(one for one in house.locks if one != house.front_door)
    house.execute("delete from devices where id = :id", id=room_lock)
    booking = house.book(house.now + 2 * HOUR, house.now + DAY)
    house.run()
    (row,) = house.codes(booking)
    assert (row.state, house.digits(row)) == ("set", "739164")
    assert house.locks[house.front_door].codes[str(row.id)].digits == "739164"


def test_two_codes_of_a_lock_are_never_the_same_but_two_locks_may_have_one(house: House) -> None:
    numbers = [482_913, 482_913, 482_913, 482_913, 739_164, 739_164]
    house.random_below = lambda _: numbers.pop(0)
    for number in range(2):
        house.book(house.now + (2 + 4 * number) * HOUR, house.now + (4 + 4 * number) * HOUR)
        house.run()
    by_lock: dict[object, set[str]] = {}
    for row in house.codes():
        by_lock.setdefault(row.device_id, set()).add(house.digits(row))
    assert list(by_lock.values()) == [{"482913", "739164"}] * 2


def test_a_lock_that_does_not_answer_is_told_again_and_nothing_is_doubled(house: House) -> None:
    booking = house.book(house.now + 5 * HOUR, house.now + DAY)
    house.run(answers=False)
    assert house.states(booking) == ["pushing", "pushing"]
    assert all(row.may_be_on_lock and row.on_lock_from is None for row in house.codes(booking))
    house.pass_time(MINUTE)
    house.run(hears=False)
    house.pass_time(MINUTE)
    house.run(hears=False)
    assert house.states(booking) == ["pushing", "pushing"]
    house.come_to_rest()
    assert house.states(booking) == ["set", "set"]
    assert [len(lock.codes) for lock in house.locks.values()] == [1, 1]


def test_a_code_that_the_lock_may_have_is_taken_off_although_it_never_said_so(house: House) -> None:
    booking = house.book(house.now + 5 * HOUR, house.now + DAY)
    house.run(answers=False)
    house.cancel(booking)
    house.look()
    assert house.states(booking) == ["revoking", "revoking"]
    house.run()
    assert (house.states(booking), on_locks(house)) == (["revoked", "revoked"], [])


def test_a_code_that_a_dead_worker_may_have_sent_is_taken_off_although_the_next_one_found_the_lock_away(
    house: House, plain_engine: sa.Engine
) -> None:
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    house.look()

    def claimed() -> None:
        with plain_engine.begin() as connection:
            claim(connection, uuid4(), devices_max=10)

    claimed()
    commands = house.execute("select * from device_commands")
    for command in commands:
        house.do(command)
    house.execute("update device_command_queues set claimed_until = now(), due_at = now()")
    claimed()
    for command in commands:
        house.report(command, Report(told=Told.NOT_SENT, at=house.now, message="offline"))
    house.look()
    house.cancel(booking)
    house.come_to_rest()
    assert (house.states(booking), on_locks(house)) == (["revoked", "revoked"], [])
    assert {row.state for row in house.execute("select * from device_commands")} == {"succeeded"}


def test_a_lock_that_is_gone_takes_its_codes_along_and_that_is_said(house: House) -> None:
    booking = house.book(house.now + 5 * HOUR, house.now + DAY)
    house.run()
    house.execute("delete from devices where id = :id", id=house.front_door)
    house.run()
    assert house.states(booking) == ["failed", "set"]
    gone = next(row for row in house.codes(booking) if row.state == "failed")
    assert (gone.reason, gone.sealed_code is None, gone.ended_at is not None) == ("lock-gone", True, True)
    assert house.alarms() == []


def test_a_lock_that_comes_late_gets_the_codes_of_those_who_stay_and_one_that_moves_away_loses_them(
    house: House,
) -> None:
    booking = house.book(house.now + 5 * HOUR, house.now + DAY)
    house.run()
    late = house.add_lock(house.room.area_id)
    house.run()
    assert house.states(booking) == ["set"] * 3
    house.execute("update devices set area_id = :area where id = :id", id=late, area=house.add_room())
    house.run()
    assert house.states(booking) == ["revoked", "set", "set"]
    assert house.locks[late].codes == {}


def test_a_lock_behind_a_gateway_is_told_through_it(house: House) -> None:
    (gateway,) = house.execute(
        "insert into devices (organization_id, establishment_id, name, device_type)"
        " values (:owner, :site, 'gateway', 'gateway') returning id",
        owner=house.room.organization_id,
        site=house.room.establishment_id,
    )
    child = house.add_lock(house.room.area_id, gateway.id)
    booking = house.book(house.now + 5 * HOUR, house.now + DAY)
    house.run()
    assert house.states(booking) == ["set"] * 3
    commanded = house.execute("select device_id from device_commands where params ? 'lock_id'")
    assert [row.device_id for row in commanded] == [gateway.id]
    assert len(house.locks[child].codes) == 1


def test_a_gateway_that_stands_elsewhere_is_handed_what_its_lock_is_to_be_told(house: House) -> None:
    (gateway,) = house.execute(
        "insert into devices (organization_id, name, device_type) values (:owner, 'gateway', 'gateway') returning id",
        owner=house.room.organization_id,
    )
    child = house.add_lock(house.room.area_id, gateway.id)
    house.book(house.now + 5 * HOUR, house.now + DAY)
    house.look()
    with house.engine.begin() as connection:
        claimed = claim(connection, UUID(int=1), devices_max=100)
    assert claimed is not None
    assert [one.params["lock_id"] for one in claimed.commands[gateway.id]] == [str(child)]
    assert claimed.ended == []


def test_a_booking_of_the_last_minute_gets_ten_before_anybody_is_called(house: House) -> None:
    house.powered.clear()
    booking = house.book(house.now + MINUTE, house.now + DAY)
    house.run()
    assert (house.states(booking), house.alarms()) == (["pushing", "pushing"], [])
    house.pass_time(10 * MINUTE)
    house.run()
    assert house.states(booking) == ["failed", "failed"]
    assert [one[1] for one in house.alarms()] == ["active", "active"]


def test_what_was_told_in_secret_stands_nowhere(house: House) -> None:
    booking = house.book(house.now + 5 * HOUR, house.now + DAY)
    house.look()
    digits = [house.digits(row) for row in house.codes(booking)]
    kept: list[Any] = house.execute("select t::text as row from device_commands t")
    kept += house.execute("select t::text as row from door_lock_codes t")
    assert len(kept) == 4
    assert not any(one in row.row for one in digits for row in kept)
    house.run()
    assert house.execute("select count(sealed_params) as left from device_commands")[0].left == 0


class Killed(BaseException):
    """The worker dies here."""


def test_a_worker_that_dies_before_any_statement_of_any_look_leaves_lock_and_database_in_agreement(
    house: House,
) -> None:
    """Whatever a look writes, and after whatever of it the worker dies: the next look makes up for it, and doubles nothing."""
    deadly = [-1]

    def count(*_: object) -> None:
        deadly[0] -= 1
        if deadly[0] == 0:
            raise Killed

    sa.event.listen(house.engine, "before_cursor_execute", count)
    num_deaths = 0

    def look_with_deaths() -> None:
        nonlocal num_deaths
        statement = 1
        while True:
            deadly[0] = statement
            try:
                house.keeper.keep_due(house.now)
            except Killed:
                num_deaths += 1
                statement += 1
                continue
            finally:
                deadly[0] = -1
            return

    start = house.now + 2 * HOUR
    booking = house.book(start, start + 2 * HOUR)
    for step in (HOUR, HOUR, HOUR, 2 * HOUR, HOUR):
        for _ in range(3):
            look_with_deaths()
            house.carry()
        house.pass_time(step)
    house.run()
    assert num_deaths > 60
    assert (house.states(booking), on_locks(house)) == (["revoked", "revoked"], [])
    kinds = [kind for _, kind, _ in house.told]
    assert (kinds.count("set_code"), kinds.count("clear_code")) == (2, 2)
    assert house.execute("select 1 from booking_queue") == []
