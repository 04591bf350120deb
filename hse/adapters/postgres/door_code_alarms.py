"""What people must see of door codes, as alarms of the lock: a code that is not on it in time, and wrong codes at its keypad."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.alarms import record_alarms
from hse.adapters.postgres.door_code_rows import is_live
from hse.adapters.postgres.door_code_tables import door_lock_codes, door_locks
from hse.adapters.postgres.reach import one_of
from hse.adapters.postgres.tables import Timestamptz, devices
from hse.domain.booking.door_code_saga import Step
from hse.domain.booking.door_code_views import LOCK_TYPE
from hse.domain.relevant import RelevantEvent

SOURCE = "booking"
LATE_CODE, WRONG_CODES = "door_code_not_on_lock", "wrong_door_codes"
# At a lock for which nobody has said otherwise.
WRONG_CODES_MAX, WRONG_CODES_MINUTES = 5, 10

# Of one lock in one batch. No keypad says so much: of a device that does, the newest counts, and nobody else waits for it.
EVENTS_LOOKED_AT_MAX, REPORTS_MAX = 100_000, 100

# From the history and not from what comes in at once: a lock that was away tells of a whole day together, and parts may come later.
# Of each burst the first and the last that are too many: what lies between them begins no alarm, and is not its newest report.
BURSTS = sa.text(
    """
    with looked_at as (
        select time, event_type from device_events
         where device_id = :device_id and time > :first - :span and time <= :last
         order by time desc limit :events_max
    ), counted as (
        select time, count(*) over (order by time range between :span preceding and current row) as num_wrong
          from looked_at where event_type = 'code_rejected'
    ), beside as (
        select time, num_wrong, lag(num_wrong, 1, 0) over by_time as num_before, lead(num_wrong, 1, 0) over by_time as num_after
          from counted window by_time as (order by time)
    ), told as (
        select time, num_wrong from beside
         where time >= :first and num_wrong >= :wrong_max and least(num_before, num_after) < :wrong_max
         order by time desc limit :reports_max
    )
    select time, num_wrong from told order by time
    """
).bindparams(
    sa.bindparam("span", type_=sa.Interval),
    sa.bindparam("first", type_=Timestamptz),
    events_max=EVENTS_LOOKED_AT_MAX,
    reports_max=REPORTS_MAX,
)
NUM_WRONG = sa.text(
    """
    with looked_at as (
        select event_type from device_events
         where device_id = :device_id and time > :last - :span and time <= :last
         order by time desc limit :events_max
    )
    select count(*) from looked_at where event_type = 'code_rejected'
    """
).bindparams(
    sa.bindparam("span", type_=sa.Interval),
    sa.bindparam("last", type_=Timestamptz),
    events_max=EVENTS_LOOKED_AT_MAX,
)

codes = door_lock_codes.c


def tell_of_late_codes(
    connection: sa.Connection, rows: Sequence[sa.Row[Any]], steps: Sequence[Step], now: datetime
) -> None:
    """Raise an alarm where a booking's code has become late, and end it where no code of the lock is late any more."""
    reports = []
    over: set[UUID] = set()
    for row, step in zip(rows, steps, strict=True):
        is_late = step.standing.state == "failed" and not step.has_ended
        if row.booking_id is None or is_late == (row.state == "failed"):
            continue
        if not is_late:
            over.add(row.device_id)
            continue
        said = {
            "alarm_type": LATE_CODE,
            "severity": "major",
            "message": f"a booking's door code is not on its lock: {step.standing.reason}",
            "booking_id": str(row.booking_id),
            "code_id": str(row.id),
            "reason": step.standing.reason,
        }
        reports.append(_report(row.device_id, now, said))
    if over:
        late = sa.select(codes.device_id).where(
            one_of(codes.device_id, over), codes.state == "failed", codes.booking_id.is_not(None), is_live()
        )
        for device_id in over - set(connection.execute(late).scalars()):
            reports.append(_report(device_id, now, {"alarm_type": LATE_CODE, "active": False}))  # noqa: PERF401
    record_alarms(connection, reports)


def record_usages(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
    """Count what locks report of their keypads: codes that were used, and wrong ones, of which some are an alarm."""
    for event in events:
        if event.event_type == "code_used" and (code_id := _id_in(event.metadata)) is not None:
            count = {
                "usage_count": codes.usage_count + 1,
                "last_used_at": sa.func.greatest(codes.last_used_at, event.time),
            }
            is_its = (codes.id == code_id, codes.device_id == event.device_id)
            connection.execute(sa.update(door_lock_codes).where(*is_its).values(count))
    times_of: dict[UUID, list[datetime]] = {}
    for event in events:
        times_of.setdefault(event.device_id, []).append(event.time)
    reports = []
    for lock in _locks(connection, times_of):
        times, minutes = times_of[lock.id], lock.wrong_codes_minutes
        bursts = {"device_id": lock.id, "first": min(times), "last": max(times), "span": timedelta(minutes=minutes)}
        for row in connection.execute(BURSTS, {**bursts, "wrong_max": lock.wrong_codes_max}):
            said = {
                "alarm_type": WRONG_CODES,
                "severity": "major",
                "message": f"{row.num_wrong} wrong door codes within {minutes} minutes",
                "num_wrong": row.num_wrong,
            }
            reports.append(_report(lock.id, row.time, said))
        num_wrong = connection.execute(NUM_WRONG, bursts).scalar_one()
        if num_wrong < lock.wrong_codes_max:
            reports.append(_report(lock.id, max(times), {"alarm_type": WRONG_CODES, "active": False}))
    record_alarms(connection, reports)


def _locks(connection: sa.Connection, device_ids: Iterable[UUID]) -> Sequence[sa.Row[Any]]:
    """Those of the devices that are locks, and how many wrong codes are an alarm of each: what others say of codes is nobody's."""
    lock = door_locks.c
    statement: sa.Select[Any] = (
        sa.select(
            devices.c.id,
            sa.func.coalesce(lock.wrong_codes_max, WRONG_CODES_MAX).label("wrong_codes_max"),
            sa.func.coalesce(lock.wrong_codes_minutes, WRONG_CODES_MINUTES).label("wrong_codes_minutes"),
        )
        .join(door_locks, lock.device_id == devices.c.id, isouter=True)
        .where(one_of(devices.c.id, device_ids), devices.c.device_type == LOCK_TYPE)
    )
    return connection.execute(statement).all()


def _id_in(metadata: Mapping[str, Any]) -> UUID | None:
    try:
        return UUID(str(metadata.get("code_id")))
    except ValueError:
        return None


def _report(device_id: UUID, time: datetime, said: Mapping[str, Any]) -> RelevantEvent:
    return RelevantEvent(
        id=0, time=time, device_id=device_id, event_type="alarm", metadata={**said, "source": SOURCE}, source=SOURCE
    )
