"""The worker's look at bookings: what the clock does is done in order, once, whoever works, dies or fails beside it."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.booking_queue import make_due_transitions, put_off, take_in_hand, wait_after
from hse.adapters.postgres.booking_tables import bookings
from hse.wiring.bookings import BookingKeeper, Consequence
from tests.storage.bookings import a_room, allow_no_shows, book, change, queued, status_of, what_happened

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
# Rows of the queue are due by the database's clock, so the jumping one begins here.
NOW = datetime.now(UTC).replace(microsecond=0) + HOUR


@pytest.fixture
def engine(plain_engine: sa.Engine) -> sa.Engine:
    """A database."""
    return plain_engine


def keeper(engine: sa.Engine, *consequences: Consequence) -> BookingKeeper:
    return BookingKeeper(engine=engine, consequences=consequences)


def test_a_confirmed_stay_begins_and_ends_at_its_minute(engine: sa.Engine) -> None:
    booking = book(engine, a_room(engine), NOW + DAY, NOW + 2 * DAY)
    change(engine, booking, status="confirmed")
    worker = keeper(engine)
    seen = []
    for moment in (NOW, NOW + DAY - MINUTE, NOW + DAY, NOW + 2 * DAY - MINUTE, NOW + 2 * DAY, NOW + 9 * DAY):
        worker.keep_due(moment)
        seen.append(status_of(engine, booking))
    assert seen == ["confirmed", "confirmed", "in-progress", "in-progress", "completed", "completed"]
    assert what_happened(engine, booking) == ["created", "confirmed", "checked_in", "completed"]
    assert queued(engine, booking) == []


def test_a_stay_that_passed_while_no_worker_ran_begins_and_then_ends(engine: sa.Engine) -> None:
    room = a_room(engine)
    later = book(engine, room, NOW + 3 * DAY, NOW + 4 * DAY)
    passed = book(engine, room, NOW + DAY, NOW + 2 * DAY)
    for booking in (later, passed):
        change(engine, booking, status="confirmed")
    assert keeper(engine).keep_due(NOW + 3 * DAY + HOUR) == 2
    assert what_happened(engine, passed) == ["created", "confirmed", "checked_in", "completed"]
    assert what_happened(engine, later) == ["created", "confirmed", "checked_in"]
    assert queued(engine, later) == [NOW + 4 * DAY]


def test_the_booking_that_was_due_first_is_looked_at_first(engine: sa.Engine) -> None:
    room, looked = a_room(engine), []
    booked = {number: book(engine, room, NOW + number * DAY, NOW + number * DAY + HOUR) for number in (3, 1, 2)}
    for booking in booked.values():
        change(engine, booking, status="confirmed")
    keeper(engine).keep_due(NOW)

    keeper(engine, lambda _, booking_id, __: looked.append(booking_id)).keep_due(NOW + 9 * DAY)
    assert looked == [booked[1], booked[2], booked[3]]


def test_what_nobody_confirms_is_released_after_the_grace_and_never_without_one(engine: sa.Engine) -> None:
    strict, patient = a_room(engine), a_room(engine)
    allow_no_shows(engine, strict, 30)
    released = book(engine, strict, NOW + HOUR, NOW + DAY)
    kept = book(engine, patient, NOW + HOUR, NOW + DAY)
    worker = keeper(engine)
    for moment in (NOW, NOW + HOUR + 29 * MINUTE):
        worker.keep_due(moment)
        assert status_of(engine, released) == "pending"
    worker.keep_due(NOW + HOUR + 30 * MINUTE)
    worker.keep_due(NOW + 9 * DAY)
    assert status_of(engine, kept) == "pending"
    with engine.connect() as connection:
        row = connection.execute(sa.select(bookings).where(bookings.c.id == released)).one()
    assert (row.status, row.cancelled_by, row.cancellation_reason) == ("cancelled", None, "no_show")
    assert row.cancelled_at == NOW + HOUR + 30 * MINUTE
    assert what_happened(engine, released) == ["created", "released"]


def test_a_grace_that_is_set_later_counts_for_what_is_booked_already(engine: sa.Engine) -> None:
    room = a_room(engine)
    booking = book(engine, room, NOW + HOUR, NOW + DAY)
    worker = keeper(engine)
    worker.keep_due(NOW)
    assert queued(engine, booking) == []
    allow_no_shows(engine, room, 0)
    worker.keep_due(NOW + HOUR)
    assert status_of(engine, booking) == "cancelled"


def test_a_booking_is_looked_at_when_the_first_of_its_consequences_wants_to(engine: sa.Engine) -> None:
    booking = book(engine, a_room(engine), NOW + 4 * DAY, NOW + 5 * DAY)
    change(engine, booking, status="confirmed")
    keeper(engine, lambda *_: NOW + 3 * DAY, lambda *_: None, lambda *_: NOW + 2 * DAY).keep_due(NOW)
    assert queued(engine, booking) == [NOW + 2 * DAY]


def test_a_deleted_booking_is_looked_at_once_more(engine: sa.Engine) -> None:
    booking = book(engine, a_room(engine), NOW + DAY, NOW + 2 * DAY)
    keeper(engine).keep_due(NOW)
    with engine.begin() as connection:
        connection.execute(sa.delete(bookings).where(bookings.c.id == booking))
    looked: list[UUID] = []
    keeper(engine, lambda _, booking_id, __: looked.append(booking_id)).keep_due(NOW)
    assert looked == [booking]
    assert queued(engine, booking) == []


def test_a_consequence_that_raises_is_undone_alone_and_tried_again_ever_later(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("create table done (what text)"))

    def write(connection: sa.Connection, what: str) -> None:
        connection.execute(sa.text("insert into done values (:what)"), {"what": what})

    def broken(connection: sa.Connection, *_: object) -> None:
        write(connection, "broken")
        raise ValueError("no")

    def refused(connection: sa.Connection, *_: object) -> None:
        connection.execute(sa.text("select 1 / 0"))

    def sound(connection: sa.Connection, *_: object) -> None:
        write(connection, "sound")

    booking = book(engine, a_room(engine), NOW, NOW + DAY)
    change(engine, booking, status="confirmed")
    worker, moment, waits = keeper(engine, broken, refused, sound), NOW, []
    for _ in range(3):
        worker.keep_due(moment)
        (due_at,) = queued(engine, booking)
        waits.append(due_at - moment)
        moment = due_at
    assert waits == [wait_after(tries) for tries in range(3)]
    assert waits[2] > waits[1] > waits[0]
    assert status_of(engine, booking) == "in-progress"
    with engine.connect() as connection:
        assert connection.execute(sa.text("select what from done")).scalars().all() == ["sound"] * 3
    assert "broken" in caplog.text
    # And once it succeeds, the next failure begins at the first wait again.
    keeper(engine, sound).keep_due(moment)
    assert queued(engine, booking) == [NOW + DAY]


def test_what_changes_while_a_worker_looks_is_looked_at_again(engine: sa.Engine) -> None:
    booking, looks = book(engine, a_room(engine), NOW + DAY, NOW + 2 * DAY), []

    def wake(_: sa.Connection, booking_id: UUID, __: datetime) -> None:
        looks.append(booking_id)
        if len(looks) == 1:
            # Beside the booking's own row, which is locked.
            with engine.begin() as other:
                other.execute(sa.select(sa.func.hse_queue_booking(booking)))

    worker = keeper(engine, wake)
    while worker.keep_due(NOW):
        pass
    assert len(looks) == 2
    assert queued(engine, booking) == []


def test_what_the_worker_itself_changes_wakes_nobody(engine: sa.Engine) -> None:
    booking, looks = book(engine, a_room(engine), NOW, NOW + DAY), []
    change(engine, booking, status="confirmed")
    worker = keeper(engine, lambda _, booking_id, __: looks.append(booking_id))
    while worker.keep_due(NOW):
        pass
    assert status_of(engine, booking) == "in-progress"
    assert looks == [booking]


def test_one_worker_at_a_time_has_a_booking_and_the_others_do_the_others(engine: sa.Engine) -> None:
    room = a_room(engine)
    first, second = book(engine, room, NOW, NOW + HOUR), book(engine, room, NOW + DAY, NOW + 2 * DAY)
    with engine.begin() as connection:
        assert take_in_hand(connection, first, NOW) is not None
        looked: list[UUID] = []
        other = keeper(engine, lambda _, booking_id, __: looked.append(booking_id))
        assert other.keep_due(NOW) == 1
        assert looked == [second]
    assert keeper(engine).keep_due(NOW) == 1


def test_a_booking_that_cannot_be_looked_at_waits_and_lets_the_others_go_first(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = a_room(engine)
    stuck, sound = book(engine, room, NOW, NOW + HOUR), book(engine, room, NOW + 2 * HOUR, NOW + 3 * HOUR)
    for booking in (stuck, sound):
        change(engine, booking, status="confirmed")

    def broken(connection: sa.Connection, booking_id: UUID, now: datetime) -> datetime | None:
        if booking_id == stuck:
            raise ValueError("no")
        return make(connection, booking_id, now)

    make = make_due_transitions
    monkeypatch.setattr("hse.wiring.bookings.make_due_transitions", broken)
    keeper(engine).keep_due(NOW + 2 * HOUR)
    assert (status_of(engine, stuck), status_of(engine, sound)) == ("confirmed", "in-progress")
    monkeypatch.undo()
    keeper(engine).keep_due(NOW + 2 * HOUR)
    assert status_of(engine, stuck) == "confirmed"
    keeper(engine).keep_due(NOW + 2 * HOUR + wait_after(0))
    assert status_of(engine, stuck) == "completed"


def test_a_worker_that_dies_in_the_middle_leaves_the_booking_as_it_was(engine: sa.Engine) -> None:
    booking = book(engine, a_room(engine), NOW, NOW + DAY)
    change(engine, booking, status="confirmed")

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        keeper(engine, die).keep_due(NOW)
    assert status_of(engine, booking) == "confirmed"
    keeper(engine).keep_due(NOW)
    assert status_of(engine, booking) == "in-progress"


def test_putting_off_what_nobody_queued_does_nothing(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        put_off(connection, uuid4(), NOW)
