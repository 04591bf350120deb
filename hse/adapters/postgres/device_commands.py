"""Commands to devices as people send them and look at them. What the worker does with them stands in `command_queues`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.reach import UUIDS, SiteScope, one_of
from hse.adapters.postgres.stores import TableStore, record_of
from hse.adapters.postgres.tables import areas, device_command_groups, device_commands, devices
from hse.domain.devices.device_commands import CommandNotWaiting, DeviceCommand, DeviceCommandGroup
from hse.domain.devices.ports import Target
from hse.domain.policy import EVERYWHERE, Reach
from hse.domain.work import Record

COMMAND_SCOPE = SiteScope(device_commands.c.organization_id, device_commands.c.establishment_id)
DEVICE_SCOPE = SiteScope(devices.c.organization_id, devices.c.establishment_id)
TARGET_SCOPE = SiteScope(
    device_command_groups.c.organization_id,
    sa.cast(device_command_groups.c.target["establishment_id"].astext, sa.Uuid),
)
TAKEN_BACK = {"state": "cancelled", "dispatch": "over", "finished_at": sa.func.now()}
IS_WAITING = (device_commands.c.state == "queued", device_commands.c.dispatch == "waiting")


def without_what_was_said(entity: str, verb: str, before: Any, after: Any) -> Record:
    """The line of the audit log, without params and result: a param may be a door's code."""
    record = record_of(entity, verb, before, after)
    kept = [
        None if view is None else {name: value for name, value in view.items() if name not in ("params", "result")}
        for view in (record.before, record.after)
    ]
    return Record(
        action=record.action,
        entity_type=record.entity_type,
        entity_id=record.entity_id,
        organization_id=record.organization_id,
        establishment_id=record.establishment_id,
        before=kept[0],
        after=kept[1],
    )


class DeviceCommands(TableStore[DeviceCommand]):
    """The commands to devices."""

    entity = "device_command"
    table = device_commands
    view = DeviceCommand
    scope = COMMAND_SCOPE
    sorts = ("queued_at",)
    default_sort = "-queued_at"
    searched = ("type",)

    async def add_to_many(self, device_ids: Sequence[UUID], values: Mapping[str, Any]) -> None:
        """Queue the same command for each of these devices; their group tells the audit log."""
        said = {name: sa.literal(value, device_commands.c[name].type) for name, value in values.items()}
        of_devices = sa.select(devices.c.organization_id, devices.c.establishment_id, devices.c.id, *said.values())
        statement = (
            sa.insert(device_commands)
            .from_select(
                ["organization_id", "establishment_id", "device_id", *said],
                of_devices.where(one_of(devices.c.id, device_ids)).order_by(devices.c.id),
                include_defaults=False,
            )
            .inline()
        )
        await self._execute(statement)

    async def devices_of(self, target: Target, see: Reach, act: Reach, *, limit: int) -> list[UUID]:
        """The enabled devices with a connection of their own that fit the target and lie within both reaches."""
        wanted = {
            name: getattr(target, name)
            for name in ("organization_id", "establishment_id", "device_type", "protocol", "manufacturer", "model")
        }
        where = [devices.c[name] == value for name, value in wanted.items() if value is not None]
        if target.area_id is not None:
            where.append(devices.c.area_id.in_(_subtree(target.area_id)))
        statement = (
            sa.select(devices.c.id)
            .where(
                *where,
                devices.c.is_enabled,
                devices.c.gateway_id.is_(None),
                DEVICE_SCOPE.within(see),
                DEVICE_SCOPE.within(act),
            )
            .order_by(devices.c.id)
            .limit(limit)
        )
        return list((await self._execute(statement)).scalars())

    async def full_queues(self, device_ids: Sequence[UUID], commands_max: int) -> frozenset[UUID]:
        """Those of the devices that have so many unfinished commands."""
        full = sa.func.hse_full_command_queues(sa.literal(list(device_ids), UUIDS), commands_max)
        return frozenset((await self._execute(sa.select(full))).scalars())

    async def cancel(self, before: DeviceCommand) -> DeviceCommand:
        """Take it back. Raises `CommandNotWaiting`."""
        is_own = device_commands.c.id == before.id
        take_back = sa.update(device_commands).where(is_own, *IS_WAITING).values(**TAKEN_BACK)
        row = (await self._execute(take_back.returning(*self.columns()))).one_or_none()
        if row is None:
            state = sa.select(device_commands.c.state).where(is_own)
            raise CommandNotWaiting((await self._execute(state)).scalar_one())
        after = self._view(row)
        await self._record("cancel", before, after)
        return after

    async def cancel_of_group(self, group: DeviceCommandGroup, reach: Reach) -> int:
        """Take back what waits of a group and is within the reach; returns how many."""
        # Not as the actor sees it: the log keeps the whole, and shows it to who reaches that.
        whole = await DeviceCommandGroups(self._transaction).find(group.id, EVERYWHERE)
        # In the order in which the worker locks them.
        waiting = (
            sa.select(device_commands.c.id)
            .where(device_commands.c.group_id == group.id, *IS_WAITING, COMMAND_SCOPE.within(reach))
            .order_by(device_commands.c.id)
            .with_for_update()
            .cte("waiting")
        )
        take_back = sa.update(device_commands).where(device_commands.c.id == waiting.c.id).values(**TAKEN_BACK)
        num_cancelled = (await self._execute(take_back)).rowcount
        record = without_what_was_said(DeviceCommandGroups.entity, "cancel", whole, whole)
        await self._transaction.record(record)
        return num_cancelled

    async def _record(self, verb: str, before: DeviceCommand | None, after: DeviceCommand | None) -> None:
        await self._transaction.record(without_what_was_said(self.entity, verb, before, after))


@dataclass(frozen=True, slots=True)
class ByItsCommands:
    """A group lies where its commands do."""

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a group within the reach meets."""
        return (
            # Named, as the api may not read every column.
            sa.exists(device_commands.c.id)
            .where(device_commands.c.group_id == device_command_groups.c.id, COMMAND_SCOPE.within(reach))
            .correlate(device_command_groups)
        )


def _states(reach: Reach) -> sa.ColumnElement[Any]:
    """How many commands of a group that are within the reach are in which state."""
    counted = (
        _within_group(reach, device_commands.c.state, sa.func.count().label("num_commands"))
        .group_by(device_commands.c.state)
        .subquery("counted")
    )
    return sa.select(sa.func.jsonb_object_agg(counted.c.state, counted.c.num_commands)).scalar_subquery()


def _within_group(reach: Reach, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Of the commands of a group those that are within the reach."""
    is_own = device_commands.c.group_id == device_command_groups.c.id
    return sa.select(*columns).where(is_own, COMMAND_SCOPE.within(reach)).correlate(device_command_groups)


class DeviceCommandGroups(TableStore[DeviceCommandGroup]):
    """The commands to many devices."""

    entity = "device_command_group"
    table = device_command_groups
    view = DeviceCommandGroup
    scope = ByItsCommands()
    sorts = ("created_at",)
    default_sort = "-created_at"
    searched = ("type",)
    computed: ClassVar[Mapping[str, sa.ColumnElement[Any]]] = {"states": _states(EVERYWHERE)}

    @classmethod
    def shown(cls, reach: Reach) -> list[sa.ColumnElement[Any]]:
        """The columns; how many devices there were elsewhere is told to who reaches the target."""
        groups, is_reached = device_command_groups.c, TARGET_SCOPE.within(reach)
        num_seen = _within_group(reach, sa.func.count()).scalar_subquery()
        told = {
            "target": sa.case((is_reached, groups.target)),
            "num_commands": sa.case((is_reached, groups.num_commands), else_=num_seen),
            "num_left_out": sa.case((is_reached, groups.num_left_out)),
            "states": _states(reach),
        }
        return [told[column.name].label(column.name) if column.name in told else column for column in cls.columns()]

    async def add(self, values: Mapping[str, Any]) -> DeviceCommandGroup:
        """Keep a group, after its commands."""
        await self._execute(sa.insert(device_command_groups).values(**values).inline())
        read = sa.select(*self.columns()).where(device_command_groups.c.id == values["id"])
        after = self._view((await self._execute(read)).one())
        await self._record("create", None, after)
        return after

    async def _record(self, verb: str, before: DeviceCommandGroup | None, after: DeviceCommandGroup | None) -> None:
        await self._transaction.record(without_what_was_said(self.entity, verb, before, after))


def _subtree(area_id: UUID) -> sa.Select[Any]:
    """An area and all that lies in it."""
    tree = sa.select(areas.c.id).where(areas.c.id == area_id).cte("tree", recursive=True)
    parts = sa.select(areas.c.id).where(areas.c.parent_area_id == tree.c.id)
    return sa.select(tree.union_all(parts).c.id)
