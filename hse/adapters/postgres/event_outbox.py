"""The outbox of relevant events, which the core's drain fills in the transaction that stores them: claimed, handled, removed.

A claim, what the handlers do, and the removal are one transaction, so an effect in this database happens exactly once, whichever
process dies when. Any number of workers may work at once: rows are claimed with SKIP LOCKED, and a device's rows only by who gets
its oldest one, so that they are handled in the order in which they were stored. An event that its handler refuses is tried again
later, and does not keep the device's next ones waiting: after a retry the order is not kept, and a handler that cares looks at the
time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import sqlalchemy as sa

from hse.adapters.postgres.tables import event_outbox, parked_events
from hse.domain.relevant import RelevantEvent

# What is handed events of its type, in a transaction that also removes them. If it raises, each is handed to it alone.
Handler = Callable[[sa.Connection, Sequence[RelevantEvent]], None]

# How far ahead a claim looks for devices that no other worker is at, and how much of that it takes, as the devices' average has it:
# several can work at once on one backlog.
WINDOW_EVENTS_MAX = 2000
WINDOW_SHARE = 4
ATTEMPTS_MAX = 8
# Doubled at each attempt: 2 s, 4 s, ... 2 min; four minutes in all.
FIRST_WAIT = timedelta(seconds=2)
# Types that no handler is registered for are left this long, for the workers of a newer release may know them.
UNKNOWN_KEPT_FOR = timedelta(minutes=5)
REASON_CHARS_MAX = 500
# A worker that is frozen in the middle must not keep its events for good.
TRANSACTION_SETTINGS = (
    "set local statement_timeout = '30s'",
    "set local lock_timeout = '5s'",
    "set local idle_in_transaction_session_timeout = '60s'",
)
# Classes of SQLSTATE that tell how the database is, and nothing of what it was asked: a rollback because of other transactions, too
# few resources, a lock that somebody else has, an operator who intervenes, a failure of the system.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
TRANSIENT_CLASSES = frozenset({"40", "53", "55", "57", "58"})
# Of these, what takes longer than it may: that may be the event's own doing, and would hold up all others for ever.
STATEMENT_TIMED_OUT = "57014"

CLAIM = sa.text(
    """
    with ahead as materialized (
        select id, device_id from event_outbox
         where event_type = any(:types) and (next_attempt_at is null or next_attempt_at <= now())
         order by id limit :window
    ), claimed as materialized (
        select oldest.device_id from event_outbox oldest
         where oldest.id in (select min(ahead.id) from ahead group by ahead.device_id)
           and (oldest.next_attempt_at is null or oldest.next_attempt_at <= now())
         order by oldest.id
         limit (select ceil(count(distinct ahead.device_id) / cast(:share as numeric)) from ahead)
           for update skip locked
    )
    select o.id, o.time, o.device_id, o.event_type, o.value, o.unit, o.metadata, o.source, o.attempts
      from event_outbox o
     where o.id in (select ahead.id from ahead join claimed using (device_id))
       and (o.next_attempt_at is null or o.next_attempt_at <= now())
     order by o.id
       for update of o skip locked
    """
)
STATE = sa.text(
    "select (select count(*) from event_outbox) as waiting,"
    " (select extract(epoch from now() - min(created_at)) from event_outbox) as oldest_seconds,"
    " (select count(*) from parked_events) as parked"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxState:
    """How much waits, for how long the oldest has, and how much no handler could handle."""

    num_waiting: int
    oldest_seconds: float
    num_parked: int


def claim_events(connection: sa.Connection, types: Sequence[str]) -> list[RelevantEvent]:
    """The oldest events of these types that are due and nobody else is at, locked until this transaction ends."""
    for setting in TRANSACTION_SETTINGS:
        connection.execute(sa.text(setting))
    given = {"types": list(types), "window": WINDOW_EVENTS_MAX, "share": WINDOW_SHARE}
    return [
        RelevantEvent(
            id=row.id,
            time=row.time,
            device_id=row.device_id,
            event_type=row.event_type,
            value=row.value,
            unit=row.unit,
            metadata=row.metadata if isinstance(row.metadata, dict) else {},
            source=row.source,
            attempts=row.attempts,
        )
        for row in connection.execute(CLAIM, given)
    ]


def remove_events(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
    """These are handled."""
    connection.execute(sa.delete(event_outbox).where(event_outbox.c.id.in_([event.id for event in events])))


def is_transient(error: sa.exc.DBAPIError) -> bool:
    """Whether the database could not do something, rather than refuse it: the same may be done later."""
    sqlstate = (error.orig.sqlstate if isinstance(error.orig, psycopg.Error) else None) or ""
    return error.connection_invalidated or (sqlstate[:2] in TRANSIENT_CLASSES and sqlstate != STATEMENT_TIMED_OUT)


def put_off(connection: sa.Connection, event: RelevantEvent, reason: str) -> bool:
    """Have an event tried again later, after the last attempt park it for a person to see; returns whether it was parked."""
    attempts = event.attempts + 1
    is_parked = attempts >= ATTEMPTS_MAX
    row = event_outbox.c.id == event.id
    if not is_parked:
        wait = FIRST_WAIT * 2**event.attempts
        changes = {
            "attempts": attempts,
            "next_attempt_at": sa.func.now() + wait,
            "last_error": reason[:REASON_CHARS_MAX],
        }
        connection.execute(sa.update(event_outbox).where(row).values(changes))
        return False
    names = ["id", "time", "device_id", "event_type", "value", "unit", "metadata", "source", "created_at"]
    columns = [event_outbox.c[name] for name in names]
    parked = sa.select(*columns, sa.literal(attempts), sa.literal(reason[:REASON_CHARS_MAX])).where(row)
    connection.execute(sa.insert(parked_events).from_select([*names, "attempts", "reason"], parked))
    connection.execute(sa.delete(event_outbox).where(row))
    return True


def drop_unknown(connection: sa.Connection, types: Sequence[str]) -> int:
    """Remove the events of other types that nobody has come for; returns how many."""
    outbox = event_outbox.c
    old = sa.select(outbox.id).where(
        outbox.event_type.not_in(list(types)), outbox.created_at < sa.func.now() - UNKNOWN_KEPT_FOR
    )
    taken = old.order_by(outbox.id).limit(WINDOW_EVENTS_MAX).with_for_update(skip_locked=True)
    return connection.execute(sa.delete(event_outbox).where(outbox.id.in_(taken))).rowcount


def outbox_state(connection: sa.Connection) -> OutboxState:
    """What waits."""
    row = connection.execute(STATE).one()
    return OutboxState(num_waiting=row.waiting, oldest_seconds=float(row.oldest_seconds or 0.0), num_parked=row.parked)
