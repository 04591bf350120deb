"""What guests are told of their bookings: each thing once, what is so, when it is so, whoever works or dies."""

import re
import threading

import pytest
import sqlalchemy as sa

from hse.adapters.channels import Notice
from hse.adapters.postgres.notification_keeper import OVERTAKEN
from tests.conftest import wait_until
from tests.storage.bookings import change
from tests.storage.door_codes import DAY, HOUR, MINUTE
from tests.storage.notices import Hotel, a_hotel, pending_booking

SIX_DIGITS = re.compile(r"\b[0-9]{6}\b")


@pytest.fixture
def hotel(plain_engine: sa.Engine) -> Hotel:
    """A hotel."""
    return a_hotel(plain_engine)


def test_over_a_whole_stay_each_thing_is_told_once_at_its_time(hotel: Hotel) -> None:
    house = hotel.house
    booking = pending_booking(hotel)
    hotel.run()
    assert hotel.ear.types == ["booking_created"]
    change(house.engine, booking, status="confirmed")
    hotel.run()
    assert hotel.ear.types[1:] == ["booking_confirmed"]
    house.pass_time(DAY)
    hotel.run()
    hotel.run()
    assert hotel.ear.types[2:] == ["check_in_instructions"]
    assert house.states(booking) == ["set", "set"]
    house.pass_time(DAY)
    hotel.run()
    house.pass_time(2 * DAY - 121 * MINUTE)
    hotel.run()
    assert hotel.ear.types[3:] == []
    house.pass_time(MINUTE)
    hotel.run()
    assert hotel.ear.types[3:] == ["check_out_reminder"]
    house.pass_time(DAY)
    hotel.run()
    assert len(hotel.ear.heard) == 4
    assert {status for _, status in hotel.states(booking)} == {"sent"}


def test_codes_are_told_once_all_are_on_their_locks_and_kept_nowhere_here(hotel: Hotel) -> None:
    house = hotel.house
    front, room = house.locks
    house.powered.discard(front)
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    hotel.run()
    assert "check_in_instructions" not in hotel.ear.types
    house.powered.add(front)
    house.pass_time(15 * MINUTE)
    hotel.run()
    told = hotel.ear.heard[-1]
    assert told.type == "check_in_instructions"
    digits = {row.device_id: house.digits(row) for row in house.codes(booking)}
    assert f"lock 0: {digits[front]}" in told.message
    assert f"lock 1: {digits[room]}" in told.message
    kept = hotel.said(hotel.rows(booking)[-1])["message"]
    assert "lock 0: ••••••" in kept
    assert not any(code in kept for code in digits.values())
    assert set(SIX_DIGITS.findall(told.message)) == set(digits.values())
    with house.engine.connect() as connection:
        lying = connection.execute(sa.text("select n::text, n.sealed_content from booking_notifications n")).all()
    for text, sealed in lying:
        assert "Ana" not in text
        assert sealed is None or b"Ana" not in sealed


def test_what_is_late_is_not_waited_for_and_told_of_when_it_comes(hotel: Hotel) -> None:
    house = hotel.house
    front, _ = house.locks
    house.powered.discard(front)
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    hotel.run()
    house.pass_time(2 * HOUR)
    hotel.run()
    assert hotel.ear.types == ["booking_created", "booking_confirmed", "check_in_instructions"]
    assert "lock 0" not in hotel.ear.heard[-1].message
    house.come_to_rest()
    hotel.run()
    assert hotel.ear.types[3:] == ["check_in_instructions"]
    assert "lock 0" in hotel.ear.heard[-1].message
    first, second = hotel.rows(booking)[2:]
    assert first.about != second.about


def test_codes_that_left_their_lock_before_they_were_told_are_not_told(hotel: Hotel) -> None:
    house = hotel.house
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    house.run()
    assert ("check_in_instructions", "pending") in hotel.states(booking)
    house.powered.clear()
    change(house.engine, booking, check_out=house.now + 2 * DAY, free_from=house.now + 2 * DAY)
    hotel.send()
    house.run()
    hotel.send()
    assert "check_in_instructions" not in hotel.ear.types
    house.come_to_rest()
    hotel.run()
    assert hotel.ear.types.count("check_in_instructions") == 1


def test_a_change_is_told_with_what_is_so_and_other_codes_with_it(hotel: Hotel) -> None:
    house = hotel.house
    other = house.add_room()
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    hotel.run()
    assert hotel.ear.types == ["booking_created", "booking_confirmed", "check_in_instructions"]
    change(house.engine, booking, metadata={"note": "late"})
    hotel.run()
    assert len(hotel.ear.heard) == 3, "nothing that the guest goes by has changed"
    change(house.engine, booking, area_id=other)
    hotel.run()
    assert hotel.ear.types[3:] == ["booking_modified", "check_in_instructions"]
    assert "room 1" in hotel.ear.heard[3].message
    assert "lock 2: " in hotel.ear.heard[4].message
    change(house.engine, booking, num_guests=3)
    change(house.engine, booking, num_guests=1)
    hotel.run()
    assert len(hotel.ear.heard) == 5


def test_a_change_that_another_letter_has_told_meanwhile_is_taken_back_at_the_next_look(hotel: Hotel) -> None:
    booking = pending_booking(hotel, hotel.house.now + 5 * DAY)
    hotel.run()
    later = hotel.house.now + 9 * DAY
    change(hotel.house.engine, booking, status="confirmed", check_out=later, free_from=later)
    hotel.run()
    hotel.run()
    assert hotel.states(booking) == [
        ("booking_created", "sent"),
        ("booking_confirmed", "sent"),
        ("booking_modified", "failed"),
    ]
    assert [row.reason for row in hotel.rows(booking)] == [None, None, OVERTAKEN]
    assert hotel.send() == 0


@pytest.mark.parametrize("is_under_way", [False, True])
def test_who_takes_a_booking_over_is_told_codes_that_nobody_else_knows(hotel: Hotel, is_under_way: bool) -> None:
    house = hotel.house
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    hotel.run()
    if is_under_way:
        # Each code opens for long enough, and a command is out that has to be taken back before the code can be.
        house.powered.clear()
        change(house.engine, booking, check_out=house.now + 20 * HOUR, free_from=house.now + 20 * HOUR)
        house.look()
    change(house.engine, booking, guest_id=house.another_guest())
    house.keeper.keep_due(house.now)
    hotel.send()
    house.come_to_rest()
    hotel.run()
    instructions = [notice for notice in hotel.ear.heard if notice.type == "check_in_instructions"]
    assert [notice.recipient for notice in instructions] == ["ana@example.com", "eva@example.com"]
    hers, his = (set(SIX_DIGITS.findall(notice.message)) for notice in instructions)
    assert len(hers) == len(his) == 2
    assert not hers & his
    assert {code.digits for lock in house.locks.values() for code in lock.codes.values()} == his
    assert house.states(booking) == ["revoked", "revoked", "set", "set"]


def test_after_a_cancellation_nothing_but_it_is_told(hotel: Hotel) -> None:
    house = hotel.house
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    house.run()
    house.cancel(booking)
    hotel.send()
    assert hotel.ear.types == []
    hotel.run()
    house.pass_time(HOUR)
    hotel.run()
    assert hotel.ear.types == ["booking_cancelled"]
    assert [status for kind, status in hotel.states(booking) if kind != "booking_cancelled"] == ["failed"] * 3
    assert all(row.is_withdrawn for row in hotel.rows(booking) if row.status == "failed")


def test_of_a_deleted_booking_nothing_is_told(hotel: Hotel) -> None:
    booking = pending_booking(hotel)
    hotel.house.run()
    hotel.house.delete(booking)
    hotel.send()
    hotel.run()
    hotel.house.pass_time(HOUR)
    hotel.run()
    assert hotel.ear.types == []
    assert hotel.states(booking) == [("booking_created", "failed")]


def test_a_cancellation_waits_for_what_is_just_leaving_and_nothing_leaves_after_it(hotel: Hotel) -> None:
    house = hotel.house
    booking = house.book(house.now + 3 * HOUR, house.now + DAY)
    house.run()
    is_sending, may_go_on, happened = threading.Event(), threading.Event(), []

    def hold(notice: Notice) -> None:
        is_sending.set()
        may_go_on.wait(10)
        happened.append(notice.type)

    def cancel() -> None:
        house.cancel(booking)
        happened.append("cancelled")

    hotel.ear.before = hold
    sending = threading.Thread(target=hotel.send)
    sending.start()
    is_sending.wait(10)
    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    wait_until(lambda: len(house.execute(waits)) == 1, "the cancellation waits")
    assert happened == []
    may_go_on.set()
    cancelling.join()
    sending.join()
    house.run()
    house.pass_time(HOUR)
    hotel.send()
    first_after = happened.index("cancelled") + 1
    assert happened[first_after:] == ["booking_cancelled"]
    assert happened[0] == "booking_created"
