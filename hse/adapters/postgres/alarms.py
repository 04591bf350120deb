"""Alarms of devices: made of relevant events by the worker, read by people."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, ClassVar
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from hse.adapters.postgres.reach import SiteScope, one_of
from hse.adapters.postgres.stores import TableStore
from hse.adapters.postgres.tables import device_alarms, devices
from hse.domain.alerts.commands import after_report
from hse.domain.alerts.model import Alarm, Place, report_of
from hse.domain.relevant import RelevantEvent

# Who listens there is told at once: live screens now, whoever sends letters later. What is told is looked up, never trusted alone.
NOTICES_CHANNEL = "hse_notices"
NOTICE = sa.text("select pg_notify(:channel, :payload)")

COLUMNS = [device_alarms.c[item.name] for item in fields(Alarm)]


class Alarms(TableStore[Alarm]):
    """The alarms, as people read them."""

    entity = "alarm"
    table = device_alarms
    view = Alarm
    scope = SiteScope(device_alarms.c.organization_id, device_alarms.c.establishment_id)
    sorts = ("raised_at", "last_reported_at")
    default_sort = "-raised_at"
    searched = ("type", "message")
    constraints: ClassVar[Mapping[str, str]] = {}


def record_alarms(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
    """Make alarms of what devices reported, and tell who listens. What a device reported that is gone has no place, and is left."""
    reports = [report_of(event) for event in events]
    device_ids = {report.device_id for report in reports}
    places = _places(connection, device_ids)
    latest = _latest(connection, {(report.device_id, report.type) for report in reports})
    changed: dict[UUID, Alarm] = {}
    for report in reports:
        place = places.get(report.device_id)
        if place is None:
            continue
        key = (report.device_id, report.type)
        for alarm in after_report(latest.get(key), report, place, uuid4()):
            latest[key] = changed[alarm.id] = alarm
    _write(connection, changed.values())
    for alarm in changed.values():
        connection.execute(NOTICE, {"channel": NOTICES_CHANNEL, "payload": notice_of(alarm)})


def notice_of(alarm: Alarm) -> str:
    """What is told of an alarm at once: which one it is, where, and how it stands. No text of the device: that is to be read."""
    told = {
        "kind": "alarm",
        "alarm_id": str(alarm.id),
        "organization_id": str(alarm.organization_id),
        "establishment_id": None if alarm.establishment_id is None else str(alarm.establishment_id),
        "device_id": str(alarm.device_id),
        "type": alarm.type,
        "severity": alarm.severity,
        "state": alarm.state,
        "raised_at": alarm.raised_at.isoformat(),
        "cleared_at": None if alarm.cleared_at is None else alarm.cleared_at.isoformat(),
    }
    return json.dumps(told, separators=(",", ":"))


def _places(connection: sa.Connection, device_ids: Iterable[UUID]) -> dict[UUID, Place]:
    found = sa.select(devices.c.id, devices.c.organization_id, devices.c.establishment_id)
    rows = connection.execute(found.where(one_of(devices.c.id, device_ids)))
    return {row.id: Place(organization_id=row.organization_id, establishment_id=row.establishment_id) for row in rows}


def _latest(connection: sa.Connection, wanted: Collection[tuple[UUID, str]]) -> dict[tuple[UUID, str], Alarm]:
    """The alarm of each type of these devices that is open, or else the newest."""
    device_ids, types = [device_id for device_id, _ in wanted], [name for _, name in wanted]
    pair = (
        sa.func.unnest(sa.literal(device_ids, ARRAY(sa.Uuid)), sa.literal(types, ARRAY(sa.Text)))
        .table_valued(sa.column("device_id", sa.Uuid), sa.column("type", sa.Text), name="pair")
        .render_derived()
    )
    alarm = device_alarms.c
    found: dict[tuple[UUID, str], Alarm] = {}
    # Pair by pair, whatever else a device has said: an index leads to the newest of a type, another one to the open one, which a
    # late report may have made older.
    for is_wanted in (sa.true(), alarm.state != "cleared"):
        newest = (
            sa.select(*COLUMNS)
            .where(alarm.device_id == pair.c.device_id, alarm.type == pair.c.type, is_wanted)
            .order_by(alarm.raised_at.desc())
            .limit(1)
            .lateral("newest")
        )
        rows = connection.execute(sa.select(*newest.c).select_from(pair).join(newest, sa.true()))
        found |= {(row.device_id, row.type): Alarm(**row._mapping) for row in rows}
    return found


def _write(connection: sa.Connection, alarms: Iterable[Alarm]) -> None:
    # Those that end first: one of the same type may begin in the same batch, and only one may be open.
    rows: list[dict[str, Any]] = [asdict(alarm) for alarm in sorted(alarms, key=lambda one: one.state != "cleared")]
    if not rows:
        return
    statement = insert(device_alarms)
    kept = {"id", "organization_id", "establishment_id", "device_id", "type"}
    changes = {column.name: statement.excluded[column.name] for column in COLUMNS if column.name not in kept}
    connection.execute(statement.on_conflict_do_update(index_elements=[device_alarms.c.id], set_=changes), rows)
