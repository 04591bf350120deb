"""`hse worker` as a process that dies around check-in: stays begin and end once, in order, at their minute or right after."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from subprocess import Popen
from uuid import UUID

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.booking_queue import due_bookings
from hse.adapters.postgres.engine import create_engine
from tests.conftest import wait_until
from tests.link.conftest import SECONDS_MAX, NewProcess
from tests.storage.bookings import Room, a_room, book, change, status_of, what_happened

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
WHOLE_LIFE = ["created", "confirmed", "checked_in", "completed"]


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The database, as its owner."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def confirmed(engine: sa.Engine, room: Room, check_in: datetime, check_out: datetime) -> UUID:
    booking = book(engine, room, check_in, check_out)
    change(engine, booking, status="confirmed")
    return booking


def kill(process: Popen[bytes]) -> None:
    """kill -9, to the end."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_stay_begins_and_ends_with_a_running_worker(engine: sa.Engine, new_process: NewProcess) -> None:
    new_process()
    now = datetime.now(UTC)
    booking = confirmed(engine, a_room(engine), now + 3 * SECOND, now + 5 * SECOND)
    wait_until(lambda: status_of(engine, booking) == "completed", "the stay is over", seconds=SECONDS_MAX)
    assert what_happened(engine, booking) == WHOLE_LIFE


def test_what_was_due_while_no_worker_ran_is_made_up_for_in_order(engine: sa.Engine, new_process: NewProcess) -> None:
    room, now = a_room(engine), datetime.now(UTC)
    passed = [confirmed(engine, room, now - n * HOUR, now - (n - 1) * HOUR - SECOND) for n in (3, 2)]
    running = confirmed(engine, room, now - HOUR, now + HOUR)
    new_process()
    wait_until(lambda: status_of(engine, running) == "in-progress", "the stay has begun", seconds=SECONDS_MAX)
    for booking in passed:
        assert what_happened(engine, booking) == WHOLE_LIFE


def test_a_worker_that_is_killed_again_and_again_around_check_in_checks_everybody_in_once(
    engine: sa.Engine, new_process: NewProcess
) -> None:
    now = datetime.now(UTC)
    bookings = [
        confirmed(engine, a_room(engine), now + (number % 8) * SECOND, now + (8 + number % 4) * SECOND)
        for number in range(40)
    ]

    def is_anybody(status: str) -> bool:
        return any(status_of(engine, booking) == status for booking in bookings)

    for status in ("in-progress", "completed"):
        doomed = new_process()
        wait_until(partial(is_anybody, status), f"somebody is {status}", seconds=SECONDS_MAX)
        kill(doomed)
    new_process()
    new_process()
    wait_until(
        lambda: all(status_of(engine, booking) == "completed" for booking in bookings),
        "all are over",
        seconds=SECONDS_MAX,
    )
    for booking in bookings:
        assert what_happened(engine, booking) == WHOLE_LIFE
    with engine.begin() as connection:
        assert due_bookings(connection, datetime.now(UTC) + HOUR, limit=10) == []
