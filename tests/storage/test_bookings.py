"""What the database itself holds to, whoever writes: no overlap, no other ways between states, nothing of an erased guest."""

import threading
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.booking_tables import bookings, guest_companions, guests
from hse.domain.booking.model import TRANSITIONS, BookingStatus
from tests.storage.bookings import NOON, a_room, book, change, status_of, what_happened

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
STATES: list[BookingStatus] = [*TRANSITIONS]


@pytest.fixture
def engine(plain_engine: sa.Engine) -> sa.Engine:
    """A database."""
    return plain_engine


def refused(of: type[psycopg.Error]) -> Any:
    """That the database refuses it."""
    return pytest.raises(sa.exc.DBAPIError, match=of.__name__)


def test_two_live_bookings_of_an_area_do_not_overlap_and_a_cancelled_one_is_in_nobody_s_way(engine: sa.Engine) -> None:
    room, other = a_room(engine), a_room(engine)
    first = book(engine, room, NOON, NOON + DAY, free_from=NOON + DAY + HOUR)
    for check_in, check_out in (
        (NOON - HOUR, NOON + HOUR),
        (NOON + DAY, NOON + 2 * DAY),
        (NOON + HOUR, NOON + 2 * HOUR),
    ):
        with refused(psycopg.errors.ExclusionViolation):
            book(engine, room, check_in, check_out)
    book(engine, room, NOON - HOUR, NOON)
    book(engine, room, NOON + DAY + HOUR, NOON + 2 * DAY)
    book(engine, other, NOON, NOON + DAY)
    change(engine, first, status="cancelled", cancelled_at=NOON)
    book(engine, room, NOON + HOUR, NOON + DAY)


def test_of_many_who_want_a_slot_at_once_one_gets_it_and_nobody_is_deadlocked(engine: sa.Engine) -> None:
    room, outcomes = a_room(engine), []
    start = threading.Barrier(20)

    def want() -> None:
        start.wait()
        try:
            book(engine, room, NOON, NOON + DAY)
            outcomes.append("won")
        except sa.exc.DBAPIError as error:
            outcomes.append(type(error.orig).__name__)

    threads = [threading.Thread(target=want) for _ in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(outcomes) == ["ExclusionViolation"] * 19 + ["won"]


def bring_to(engine: sa.Engine, booking: UUID, status: BookingStatus) -> None:
    ways: dict[BookingStatus, list[BookingStatus]] = {
        "pending": [],
        "confirmed": ["confirmed"],
        "in-progress": ["confirmed", "in-progress"],
        "completed": ["confirmed", "in-progress", "completed"],
        "cancelled": ["cancelled"],
    }
    for step in ways[status]:
        change(engine, booking, status=step, **cancelled_if(step))


def cancelled_if(status: BookingStatus) -> dict[str, object]:
    return {"cancelled_at": NOON, "cancelled_by": uuid4()} if status == "cancelled" else {"cancelled_at": None}


@pytest.mark.parametrize("before", STATES)
def test_the_states_and_the_ways_between_them_are_the_domain_s(engine: sa.Engine, before: BookingStatus) -> None:
    for after in STATES:
        booking = book(engine, a_room(engine), NOON, NOON + DAY)
        bring_to(engine, booking, before)
        if after in TRANSITIONS[before]:
            change(engine, booking, status=after, **cancelled_if(after))
            assert status_of(engine, booking) == after
        elif after != before:
            with refused(psycopg.errors.CheckViolation):
                change(engine, booking, status=after, **cancelled_if(after))


@pytest.mark.parametrize("status", STATES)
def test_what_has_begun_is_neither_moved_nor_deleted(engine: sa.Engine, status: BookingStatus) -> None:
    booking = book(engine, a_room(engine), NOON, NOON + DAY)
    bring_to(engine, booking, status)
    delete = sa.delete(bookings).where(bookings.c.id == booking)
    if status in ("in-progress", "completed"):
        with refused(psycopg.errors.CheckViolation), engine.begin() as connection:
            connection.execute(delete)
    if status not in ("pending", "confirmed"):
        with refused(psycopg.errors.CheckViolation):
            change(engine, booking, check_out=NOON + 2 * HOUR)
        return
    change(engine, booking, check_out=NOON + 2 * HOUR)
    with engine.begin() as connection:
        connection.execute(delete)
    assert what_happened(engine, booking)[-2:] == ["changed", "deleted"]


def test_a_companion_has_a_companion(engine: sa.Engine) -> None:
    room = a_room(engine)
    with engine.begin() as connection:
        values = {"organization_id": room.organization_id, "first_name": "Eva", "last_name": "Paz"}
        other = connection.execute(sa.insert(guests).values(values).returning(guests.c.id)).scalar_one()
    pair = {"organization_id": room.organization_id, "relationship": "friend"}
    both = [
        {**pair, "guest_id": room.guest_id, "companion_id": other},
        {**pair, "guest_id": other, "companion_id": room.guest_id},
    ]
    with refused(psycopg.errors.ForeignKeyViolation), engine.begin() as connection:
        connection.execute(sa.insert(guest_companions).values(both[0]))
    with engine.begin() as connection:
        connection.execute(sa.insert(guest_companions).values(both))
    with refused(psycopg.errors.ForeignKeyViolation), engine.begin() as connection:
        connection.execute(sa.delete(guest_companions).where(guest_companions.c.guest_id == other))


def test_an_erased_guest_holds_nothing(engine: sa.Engine) -> None:
    room = a_room(engine)
    erase = sa.update(guests).where(guests.c.id == room.guest_id).values(erased_at=NOON)
    for kept in ({}, {"first_name": ""}, {"first_name": "", "last_name": "", "email": "ana@example.com"}):
        with refused(psycopg.errors.CheckViolation), engine.begin() as connection:
            connection.execute(erase.values(kept))
    with engine.begin() as connection:
        connection.execute(erase.values(first_name="", last_name=""))
