"""Devices from which nothing has come for longer than their profile lets expect: found, and told of as alarms."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.alarms import record_alarms
from hse.domain.relevant import RelevantEvent
from hse.domain.telemetry.overdue import INTERVALS_MISSED, WAIT_MIN, patience

SOURCE = "hse"
ALARM_TYPE = "device_overdue"
ALARMS_PER_LOOK = 2_000
# A device that was overdue for longer than this when somebody began to wait for it raises no alarm. Its newest event is looked for
# no further back: for each device that has never said anything that would be a look at every partition, at every look.
LOOKED_BACK = timedelta(days=7)
# A device's clock may be ahead by a day; what is beyond is not looked for, as are the partitions that are made ahead.
AHEAD_MAX = timedelta(hours=25)

# Devices of about the same patience are looked at together: what is the same for all of a statement tells the database which
# partitions it can leave alone, without a look at each of them for each device.
INTERVALS_UP_TO = (1_200, 28_800, 201_600, 2_678_400)

WATCH_ALONE = sa.text("select pg_try_advisory_xact_lock(hashtext('hse.overdue'))")
AWAITED = "profile.expected_interval_s > :above and profile.expected_interval_s <= :up_to"
PATIENCE = "greatest(:missed * profile.expected_interval_s, :wait_min) * interval '1 second'"
OPEN = "alarm.type = :type and alarm.state <> 'cleared'"

SILENT = sa.text(
    f"""
    with awaited as materialized (
        select device.id, profile.expected_interval_s, {PATIENCE} as patience
          from devices device join device_profiles profile on profile.id = device.profile_id
         where device.is_enabled and {AWAITED}
           and not exists (select from device_alarms alarm where alarm.device_id = device.id and {OPEN})
    )
    select awaited.id as device_id, awaited.expected_interval_s, newest.time as newest
      from awaited cross join lateral (
           select coalesce(
               (select event.time from device_events event
                 where event.device_id = awaited.id
                   and event.time > cast(:silent_since as timestamptz) and event.time < cast(:until as timestamptz)
                 order by event.time desc limit 1),
               (select event.time from device_events event
                 where event.device_id = awaited.id
                   and event.time > cast(:looked_back as timestamptz) and event.time <= cast(:silent_since as timestamptz)
                 order by event.time desc limit 1)) as time) newest
     where newest.time <= cast(:now as timestamptz) - awaited.patience
     order by awaited.id limit :limit
    """  # noqa: S608 (constants)
)

HEARD = sa.text(
    f"""
    select alarm.device_id
      from device_alarms alarm join devices device on device.id = alarm.device_id
      join device_profiles profile on profile.id = device.profile_id
     where {OPEN} and {AWAITED} and exists (
           select from device_events event
            where event.device_id = alarm.device_id and event.time > cast(:now as timestamptz) - {PATIENCE}
              and event.time > cast(:silent_since as timestamptz) and event.time < cast(:until as timestamptz))
     limit :limit
    """  # noqa: S608 (constants)
)

LEFT_ALONE = sa.text(
    f"""
    select alarm.device_id
      from device_alarms alarm join devices device on device.id = alarm.device_id
      left join device_profiles profile on profile.id = device.profile_id
     where {OPEN} and (not device.is_enabled or profile.expected_interval_s is null)
     limit :limit
    """  # noqa: S608 (constants)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentDevice:
    """A device that is overdue and of which nobody was told yet."""

    device_id: UUID
    expected_interval_s: int
    newest: datetime


def watch_alone(connection: sa.Connection) -> bool:
    """Have the watch until the transaction ends; False while another worker has it."""
    connection.execute(sa.text("set local statement_timeout = '30s'"))
    is_alone: bool = connection.execute(WATCH_ALONE).scalar_one()
    return is_alone


def find_silent(connection: sa.Connection, now: datetime) -> list[SilentDevice]:
    """The devices that are overdue at `now` and have no alarm for it yet."""
    found = (connection.execute(SILENT, values) for values in _classes(now))
    return [SilentDevice(**row._mapping) for rows in found for row in rows]


def tell_of_overdue(connection: sa.Connection, silent: Collection[SilentDevice], now: datetime) -> int:
    """Raise the alarms of these, and end those of devices that have spoken, or that nobody waits for; returns how many ended."""
    heard = {one for values in _classes(now) for one in connection.execute(HEARD, values).scalars()}
    heard.update(connection.execute(LEFT_ALONE, {"type": ALARM_TYPE, "limit": ALARMS_PER_LOOK}).scalars())
    over = [_report(device_id, now, {"active": False}) for device_id in heard]
    record_alarms(connection, over + [_report(one.device_id, now, _said_of(one)) for one in silent])
    return len(heard)


def _said_of(one: SilentDevice) -> dict[str, Any]:
    return {
        "severity": "major",
        "message": f"nothing has come since {one.newest:%Y-%m-%d %H:%M:%S} UTC, and every {one.expected_interval_s} s is expected",
        "last_event_at": one.newest.isoformat(),
        "expected_interval_s": one.expected_interval_s,
    }


def _classes(now: datetime) -> Iterator[dict[str, Any]]:
    """The parameters for the devices of one patience after the other."""
    for above, up_to in pairwise((0, *INTERVALS_UP_TO)):
        silent_since = now - patience(up_to)
        yield {
            "type": ALARM_TYPE,
            "limit": ALARMS_PER_LOOK,
            "missed": INTERVALS_MISSED,
            "wait_min": WAIT_MIN.seconds,
            "above": above,
            "up_to": up_to,
            "now": now,
            "until": now + AHEAD_MAX,
            "silent_since": silent_since,
            "looked_back": silent_since - LOOKED_BACK,
        }


def _report(device_id: UUID, now: datetime, said: dict[str, Any]) -> RelevantEvent:
    metadata = {"alarm_type": ALARM_TYPE, **said, "source": SOURCE}
    return RelevantEvent(id=0, time=now, device_id=device_id, event_type="alarm", metadata=metadata, source=SOURCE)
