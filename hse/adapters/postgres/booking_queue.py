"""The queue of bookings as the worker works on it: which are due, one taken in hand, what the clock makes of it, when again.

Whoever changes a booking, or what hangs on one, adds a row by a trigger: adding waits for nobody, so it is part of no deadlock.
The worker takes a booking in hand with an advisory lock, as a deleted one has no row to lock. It removes those rows that it saw
before it looked at anything else; what is added meanwhile stays, and has the booking looked at once more. Any number of workers may
do this at once and die anywhere: all of it is one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.booking_tables import booking_queue, booking_settings, bookings
from hse.domain.booking.model import NO_SHOW, Stay, Transition, due_transitions, next_transition

# A worker that is frozen in the middle must not keep a booking for good.
TRANSACTION_SETTINGS = (
    "set local statement_timeout = '30s'",
    "set local lock_timeout = '5s'",
    "set local idle_in_transaction_session_timeout = '60s'",
)
# What could not be done is tried again after 2, 4, 8 ... s, up to five minutes.
FIRST_WAIT, WAIT_MAX = timedelta(seconds=2), timedelta(minutes=5)
TRIES_COUNTED_MAX = 20

queue = booking_queue.c
TAKE_IN_HAND = sa.text(
    "select pg_try_advisory_xact_lock(hashtextextended('hse booking in hand ' || cast(:id as text), 0)) as is_taken,"
    " set_config('hse.booking_in_hand', cast(:id as text), true)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waking:
    """A booking in hand: the rows of the queue that said to look at it, and how often in a row that did not succeed."""

    booking_id: UUID
    row_ids: Sequence[int]
    tries: int


def due_bookings(connection: sa.Connection, now: datetime, *, limit: int) -> list[UUID]:
    """The bookings to look at by now, the one that was due first first."""
    statement = (
        sa.select(queue.booking_id)
        .where(queue.due_at <= now)
        .group_by(queue.booking_id)
        .order_by(sa.func.min(queue.due_at), sa.func.min(queue.id))
        .limit(limit)
    )
    return list(connection.execute(statement).scalars())


def take_in_hand(connection: sa.Connection, booking_id: UUID, now: datetime) -> Waking | None:
    """Have a booking until the transaction ends; None when another worker has it, or has just done what was due."""
    for setting in TRANSACTION_SETTINGS:
        connection.execute(sa.text(setting))
    if not connection.execute(TAKE_IN_HAND, {"id": str(booking_id)}).one().is_taken:
        return None
    rows = connection.execute(
        sa.select(queue.id, queue.due_at, queue.tries).where(queue.booking_id == booking_id)
    ).all()
    if not any(row.due_at <= now for row in rows):
        return None
    tries = max(row.tries for row in rows)
    return Waking(booking_id=booking_id, row_ids=[row.id for row in rows], tries=tries)


def make_due_transitions(connection: sa.Connection, booking_id: UUID, now: datetime) -> datetime | None:
    """Lock the booking and change its state as far as is due, one after the other; returns when the next change is due."""
    grace = sa.select(booking_settings.c.no_show_grace_minutes).where(
        booking_settings.c.establishment_id == bookings.c.establishment_id
    )
    row = connection.execute(
        sa.select(
            bookings.c.check_in, bookings.c.check_out, bookings.c.status, grace.scalar_subquery().label("grace_minutes")
        )
        .where(bookings.c.id == booking_id)
        .with_for_update(of=bookings)
    ).one_or_none()
    if row is None:
        return None
    stay = Stay(check_in=row.check_in, check_out=row.check_out)
    no_show_grace = None if row.grace_minutes is None else timedelta(minutes=row.grace_minutes)
    status = row.status
    for transition in due_transitions(stay, status, no_show_grace, now):
        _make(connection, booking_id, transition, now)
        status = transition.status
    following = next_transition(stay, status, no_show_grace)
    return None if following is None else following.due_at


def _make(connection: sa.Connection, booking_id: UUID, transition: Transition, now: datetime) -> None:
    changes: dict[str, object] = {"status": transition.status}
    if transition.status == "cancelled":
        changes |= {"cancelled_at": now, "cancelled_by": None, "cancellation_reason": NO_SHOW}
    connection.execute(sa.update(bookings).where(bookings.c.id == booking_id).values(changes))


def look_again(connection: sa.Connection, waking: Waking, due_at: datetime | None, *, tries: int = 0) -> None:
    """End a look at a booking: look at it again then, or not before somebody changes it."""
    connection.execute(sa.delete(booking_queue).where(queue.id.in_(waking.row_ids)))
    if due_at is not None:
        counted = min(tries, TRIES_COUNTED_MAX)
        row = {"booking_id": waking.booking_id, "due_at": due_at, "tries": counted}
        connection.execute(sa.insert(booking_queue).inline().values(row))


def wake(connection: sa.Connection, booking_id: UUID, now: datetime) -> None:
    """Have a booking looked at that nobody has changed."""
    connection.execute(sa.insert(booking_queue).inline().values(booking_id=booking_id, due_at=now))


def put_off(connection: sa.Connection, booking_id: UUID, now: datetime) -> None:
    """After a look that came to nothing as a whole: let the others go first."""
    rows = sa.and_(queue.booking_id == booking_id, queue.due_at <= now)
    tries = connection.execute(sa.select(sa.func.max(queue.tries)).where(rows)).scalar_one() or 0
    later = {"due_at": now + wait_after(tries), "tries": min(tries + 1, TRIES_COUNTED_MAX)}
    connection.execute(sa.update(booking_queue).where(rows).values(later))


def wait_after(tries: int) -> timedelta:
    """How long to wait after so many tries."""
    return min(FIRST_WAIT * (1 << min(tries, TRIES_COUNTED_MAX)), WAIT_MAX)
