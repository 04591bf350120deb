"""What must be done to the storage again and again: partitions made ahead, rollups refreshed, old events dropped.

Any number of workers may run this at once, and any of them may die anywhere: every step is one transaction or can be
taken up where it stopped. On TimescaleDB its own jobs do the work, and only the retention is set here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from hse.adapters.postgres.dead_letters import remove_excess
from hse.adapters.postgres.expiry import delete_expired
from hse.adapters.postgres.maintenance_clock import look

PARTITIONS_AHEAD = timedelta(days=7)

# A week is the reach of the columnstore policy; less would drop events before they are ever compressed.
RETENTION_DAYS_MIN = 7

# One transaction recomputes at most so many (device, hour) buckets: short enough that a crash redoes little.
MARKS_PER_TRANSACTION_MAX = 10_000
# Marks may come as fast as they are taken. What else a run does must have its turn; the next run goes on with them.
BITES_PER_RUN_MAX = 30

# Detaching waits for every transaction that has touched the events. One that outlasts this (a dump, a report) is not
# worth holding the next partitions up for; the drop is finished by a later run.
DROP_TIMEOUT = timedelta(seconds=60)

# The snapshot is older than every refresh of this run.
STORAGE_AND_SNAPSHOT = sa.text("select event_storage(), pg_current_snapshot()::text")
FORGET_LATE_HOURS = sa.text("select forget_late_hours(cast(:refreshed as pg_snapshot))")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceReport:
    """What a run did. `as_of` is the time that it went by, earlier than the clock's where that one is doubted.

    `drop_postponed` tells why expired partitions are still there, None when none had to wait.
    """

    event_storage: str
    as_of: datetime
    is_clock_doubted: bool = False
    rows_expired: int = 0
    dead_letters_removed: int = 0
    late_hours_forgotten: int = 0
    partitions_made: int = 0
    marks_refreshed: int = 0
    partitions_dropped: tuple[str, ...] = ()
    drop_postponed: str | None = None


def run_maintenance(engine: sa.Engine, *, now: datetime, retention_days: int) -> MaintenanceReport:
    """Does what is due at `now` (aware), or at what is believed of it (`maintenance_clock`). Events of UTC days that ended
    `retention_days` ago are dropped, aggregates stay.

    Raises `ValueError` for a naive `now` or a retention below a week.
    """
    if now.tzinfo is None:
        raise ValueError("now must be aware")
    if retention_days < RETENTION_DAYS_MIN:
        raise ValueError(f"events are kept for {RETENTION_DAYS_MIN} days at least, not {retention_days}")
    clock = look(engine, now)
    now = min(now, clock.believed_at)
    rows_expired = delete_expired(engine, now)
    dead_letters_removed = remove_excess(engine, now=now, retention=timedelta(days=retention_days))
    with engine.begin() as connection:
        storage: str
        storage, snapshot = connection.execute(STORAGE_AND_SNAPSHOT).one()
        if storage == "timescaledb":
            _set_retention_policy(connection, retention_days)
            num_forgotten = _forget_late_hours(connection, snapshot)
            return MaintenanceReport(
                event_storage=storage,
                as_of=now,
                is_clock_doubted=clock.is_doubted,
                rows_expired=rows_expired,
                dead_letters_removed=dead_letters_removed,
                late_hours_forgotten=num_forgotten,
            )
        partitions_made: int = connection.execute(
            sa.select(sa.func.ensure_event_partitions(now, now + PARTITIONS_AHEAD))
        ).scalar_one()
    # The open hour waits until it has ended: its rows would be read again at every run. Readers get it from the events.
    marks_refreshed = refresh_rollups(engine, before=now.replace(minute=0, second=0, microsecond=0))
    num_forgotten = 0
    # A late hour is remembered until it is counted, and any of them may be among the marks that are left.
    if not clock.is_doubted and marks_refreshed < MARKS_PER_TRANSACTION_MAX * BITES_PER_RUN_MAX:
        with engine.begin() as connection:
            num_forgotten = _forget_late_hours(connection, snapshot)
    dropped, postponed = _drop_expired_partitions(engine, until=now - timedelta(days=retention_days))
    return MaintenanceReport(
        event_storage=storage,
        as_of=now,
        is_clock_doubted=clock.is_doubted,
        rows_expired=rows_expired,
        dead_letters_removed=dead_letters_removed,
        partitions_made=partitions_made,
        marks_refreshed=marks_refreshed,
        late_hours_forgotten=num_forgotten,
        partitions_dropped=dropped,
        drop_postponed=postponed,
    )


def refresh_rollups(engine: sa.Engine, *, before: datetime) -> int:
    """Recomputes marked hours before `before` (a whole UTC hour), a transaction a bite; returns the marks taken.

    All of them, unless they are more than `BITES_PER_RUN_MAX` bites.
    """
    num_taken_all = 0
    for _ in range(BITES_PER_RUN_MAX):
        with engine.begin() as connection:
            num_taken = _refresh_bite(connection, before)
        num_taken_all += num_taken
        if num_taken < MARKS_PER_TRANSACTION_MAX:
            break
    return num_taken_all


def _refresh_bite(connection: sa.Connection, before: datetime) -> int:
    # Equal marks that came since the last bite would each take a place in this one.
    connection.execute(sa.select(sa.func.compact_rollup_marks()))
    num_taken: int = connection.execute(
        sa.select(sa.func.refresh_rollups(before, MARKS_PER_TRANSACTION_MAX))
    ).scalar_one()
    return num_taken


def _forget_late_hours(connection: sa.Connection, snapshot: str) -> int:
    num_forgotten: int = connection.execute(FORGET_LATE_HOURS, {"refreshed": snapshot}).scalar_one()
    return num_forgotten


def _set_retention_policy(connection: sa.Connection, retention_days: int) -> None:
    retention = timedelta(days=retention_days)
    if connection.execute(sa.select(sa.func.event_retention())).scalar_one() != retention:
        connection.execute(sa.select(sa.func.set_event_retention(retention)))


def _drop_expired_partitions(engine: sa.Engine, *, until: datetime) -> tuple[tuple[str, ...], str | None]:
    """Drops what ended at or before `until`: closes its rollups, detaches without stopping writers, then drops."""
    dropped: list[str] = []
    expired = sa.text(
        "select partition_name, ends_at, is_attached, is_detach_pending from expired_event_partitions(:until)"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        partitions = connection.execute(expired, {"until": until}).all()
        if not partitions:
            return (), None
        if not connection.execute(sa.text("select pg_try_advisory_lock(hashtext('hse.event_drop'))")).scalar_one():
            return (), "another worker is dropping partitions"
        try:
            connection.execute(sa.text(f"set statement_timeout = '{DROP_TIMEOUT.seconds}s'"))
            if not _close_rollups(engine, until=partitions[-1].ends_at):
                return (), "too many late hours are still to be counted"
            for partition in connection.execute(expired, {"until": until}).all():
                name = connection.dialect.identifier_preparer.quote(partition.partition_name)
                if partition.is_attached:
                    how = "finalize" if partition.is_detach_pending else "concurrently"
                    connection.execute(sa.text(f"alter table device_events detach partition {name} {how}"))
                connection.execute(sa.text(f"drop table {name}"))
                dropped.append(partition.partition_name)
        except sa.exc.OperationalError as error:
            if connection.invalidated:
                raise
            return tuple(dropped), str(error.orig)
        finally:
            if not connection.invalidated:
                connection.execute(sa.text("reset statement_timeout"))
                connection.execute(sa.text("select pg_advisory_unlock(hashtext('hse.event_drop'))"))
    return tuple(dropped), None


def _close_rollups(engine: sa.Engine, *, until: datetime) -> bool:
    """Counts the last late events before `until` and declares the aggregates there final, in the transaction of the last bite.

    False where so many are left that they stay open.
    """
    for _ in range(BITES_PER_RUN_MAX):
        with engine.begin() as connection:
            if _refresh_bite(connection, until) < MARKS_PER_TRANSACTION_MAX:
                connection.execute(sa.select(sa.func.close_rollups(until)))
                return True
    return False
