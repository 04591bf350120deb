"""The loop that does what follows from bookings: check-in and check-out by the clock, then whatever else hangs on a booking.

It is level-triggered: a look at a booking compares what should be with what is, and does what is missing. It does not matter who
woke it, how often, or whether what it was told before was lost, so a worker may be killed between any two steps.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.booking_queue import (
    due_bookings,
    look_again,
    make_due_transitions,
    put_off,
    take_in_hand,
    wait_after,
)
from hse.adapters.postgres.door_code_keeper import compose_door_code_keeper
from hse.adapters.postgres.notification_keeper import keep_notifications
from hse.settings import Settings

# What follows from a booking: given the transaction, the booking's id and the time, it looks at the booking (which may be deleted)
# and at rows of its own, does what is missing, and says when it wants to look again.
Consequence = Callable[[sa.Connection, UUID, datetime], datetime | None]

POLL_SECONDS = 0.5
AWAY_SECONDS = 2.0
BOOKINGS_PER_LOOK = 50

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingKeeper:
    """Looks at the bookings that are due. Any number may work at once."""

    engine: sa.Engine
    # In this order, so that a later one sees what an earlier one did.
    consequences: Sequence[Consequence] = ()

    def keep_until(self, stopping: threading.Event) -> None:
        """Look for bookings twice a second, until told to stop; a database that is away is waited for."""
        wait = 0.0
        while not stopping.wait(wait):
            try:
                wait = 0.0 if self.keep_due(datetime.now(UTC)) > 0 else POLL_SECONDS
            except sa.exc.DBAPIError as error:
                logger.warning("bookings wait for the database: %s", type(error).__name__)
                wait = AWAY_SECONDS
            except Exception:
                # A defect outside of every look; the bookings are as they were.
                logger.exception("bookings could not be looked at")
                wait = AWAY_SECONDS

    def keep_due(self, now: datetime) -> int:
        """Look at the bookings that are due by now, some of them at most; returns at how many. Raises SQLAlchemy's errors."""
        with self.engine.begin() as connection:
            due = due_bookings(connection, now, limit=BOOKINGS_PER_LOOK)
        return sum(self._look_or_put_off(booking_id, now) for booking_id in due)

    def keep_one(self, booking_id: UUID, now: datetime) -> bool:
        """One look at one booking; False when another worker is at it, or nothing is due. Raises SQLAlchemy's errors."""
        with self.engine.begin() as connection:
            waking = take_in_hand(connection, booking_id, now)
            if waking is None:
                return False
            wanted = [make_due_transitions(connection, booking_id, now)]
            tries = 0
            for consequence in self.consequences:
                try:
                    with connection.begin_nested():
                        wanted.append(consequence(connection, booking_id, now))
                except Exception as error:
                    if isinstance(error, sa.exc.DBAPIError) and (error.connection_invalidated or connection.closed):
                        raise
                    tries = waking.tries + 1
                    wanted.append(now + wait_after(waking.tries))
                    self._log(consequence, booking_id, tries, error)
            look_again(connection, waking, min((at for at in wanted if at is not None), default=None), tries=tries)
        return True

    def _look_or_put_off(self, booking_id: UUID, now: datetime) -> bool:
        try:
            return self.keep_one(booking_id, now)
        except Exception as error:
            # Also when somebody holds the booking's row for too long. If the database is away, putting it off raises.
            told = (booking_id, _first_line(error))
            is_defect = not isinstance(error, sa.exc.DBAPIError)
            logger.warning("a booking could not be looked at: booking=%s reason=%s", *told, exc_info=is_defect)
            with self.engine.begin() as connection:
                put_off(connection, booking_id, now)
            return True

    @staticmethod
    def _log(consequence: Consequence, booking_id: UUID, tries: int, error: Exception) -> None:
        name = getattr(consequence, "__qualname__", repr(consequence))
        told = (name, booking_id, tries, _first_line(error))
        logger.warning("what follows from a booking is tried again: what=%s booking=%s tries=%s reason=%s", *told)


def compose_booking_keeper(settings: Settings, engine: sa.Engine) -> BookingKeeper:
    """The one who looks at bookings, and does what follows from them; without the processes' key nothing is that must be sealed."""
    if settings.secret_key is None:
        logger.warning("HSE_SECRET_KEY is not set: this worker makes no door codes, and tells guests nothing")
        return BookingKeeper(engine=engine)
    codes = compose_door_code_keeper(settings.secret_key)
    return BookingKeeper(engine=engine, consequences=[codes.keep, keep_notifications])


def _first_line(error: Exception) -> str:
    """What a driver adds is the statement with everything in it."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
