"""What may be done with commands to devices: sent to one device or to many, looked at, taken back while they wait."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from hse.domain.devices.device_commands import (
    GROUP_COMMANDS_MAX,
    QUEUE_COMMANDS_MAX,
    TIMEOUT_SECONDS,
    ChildTakesNoCommands,
    CommandQueueFull,
    DeviceCommand,
    DeviceCommandGroup,
    DeviceDisabled,
    NoDevices,
    TooManyDevices,
    check_params,
    named_devices,
)
from hse.domain.devices.ports import CommandsWork
from hse.domain.errors import Invalid
from hse.domain.paging import Page, PageQuery
from hse.domain.work import seen, within_act


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCommand:
    """A command: what kind, with what, and for how many seconds it holds."""

    type: str
    params: Mapping[str, Any] = field(default_factory=dict)
    timeout_seconds: int = TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandTarget:
    """Which devices: of one place, the actor's own organisation when none is named, and of these those that fit the rest.

    An area counts with all that lies in it.
    """

    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    area_id: UUID | None = None
    device_type: str | None = None
    protocol: str | None = None
    manufacturer: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCommandToMany(SendCommand):
    """The same command to every device of a target."""

    target: CommandTarget = CommandTarget()


async def send_command(work: CommandsWork, device_id: UUID, command: SendCommand) -> DeviceCommand:
    """Send a command to a device; it waits for a device that is not connected until it expires.

    Raises `NotFound`, `Forbidden`, `Invalid`, `ChildTakesNoCommands`, `DeviceDisabled`, `CommandQueueFull`.
    """
    device = await within_act(work, work.devices, device_id, see="read_device", act="send_command")
    check_params(command.params)
    places = await _named_places(work, command.params)
    if device.gateway_id is not None:
        raise ChildTakesNoCommands(device.id, device.gateway_id)
    if not device.is_enabled:
        raise DeviceDisabled(device.id)
    if device.id in await work.device_commands.full_queues([device.id], QUEUE_COMMANDS_MAX):
        raise CommandQueueFull(device.id)
    return await work.device_commands.add(
        {
            "organization_id": device.organization_id,
            "establishment_id": device.establishment_id,
            "device_id": device.id,
            "named_places": places,
            **_said(work, command),
        }
    )


async def send_command_to_many(work: CommandsWork, command: SendCommandToMany) -> DeviceCommandGroup:
    """Send a command to every enabled device of a target that you may command and that has a connection of its own.

    Raises `NotFound`, `Forbidden`, `Invalid`, `NoDevices`, `TooManyDevices`.
    """
    reach = work.actor.require("send_command")
    check_params(command.params)
    places = await _named_places(work, command.params)
    target = await _placed(work, command.target)
    found = await work.device_commands.devices_of(
        target, work.actor.reach("read_device"), reach, limit=GROUP_COMMANDS_MAX + 1
    )
    if len(found) > GROUP_COMMANDS_MAX:
        raise TooManyDevices
    full = await work.device_commands.full_queues(found, QUEUE_COMMANDS_MAX)
    device_ids = [one for one in found if one not in full]
    if not device_ids:
        raise NoDevices
    group_id = work.new_id()
    said = _said(work, command)
    await work.device_commands.add_to_many(device_ids, {**said, "named_places": places, "group_id": group_id})
    return await work.device_command_groups.add(
        {
            **said,
            "id": group_id,
            "organization_id": target.organization_id,
            "target": _as_json(target),
            "num_commands": len(device_ids),
            "num_left_out": len(full),
        }
    )


async def cancel_command(work: CommandsWork, command_id: UUID) -> DeviceCommand:
    """Take back a command that was not handed to a node yet. Raises `NotFound`, `Forbidden`, `CommandNotWaiting`."""
    before = await within_act(work, work.device_commands, command_id, see="read_command", act="cancel_command")
    if before.state == "cancelled":
        return before
    return await work.device_commands.cancel(before)


async def cancel_command_group(work: CommandsWork, group_id: UUID) -> DeviceCommandGroup:
    """Take back those commands of a group that were not handed to a node yet. Raises `NotFound`, `Forbidden`."""
    group = await seen(work.device_command_groups, work.actor.reach("read_command"), group_id)
    await work.device_commands.cancel_of_group(group, work.actor.require("cancel_command"))
    return await seen(work.device_command_groups, work.actor.reach("read_command"), group_id)


async def commands(work: CommandsWork, query: PageQuery) -> Page[DeviceCommand]:
    """A page of the commands. Raises `Forbidden`, `Invalid`."""
    return await work.device_commands.page(work.actor.require("read_command"), query)


async def commands_of_device(work: CommandsWork, device_id: UUID, query: PageQuery) -> Page[DeviceCommand]:
    """A page of a device's commands. Raises `NotFound`, `Forbidden`, `Invalid`."""
    device = await within_act(work, work.devices, device_id, see="read_device", act="read_command")
    return await commands(work, replace(query, filters={**query.filters, "device_id": device.id}))


async def command(work: CommandsWork, command_id: UUID) -> DeviceCommand:
    """One command. Raises `Forbidden`, `NotFound`."""
    return await seen(work.device_commands, work.actor.require("read_command"), command_id)


async def sent_command(work: CommandsWork, command_id: UUID) -> DeviceCommand:
    """What became of a command, for who may send such. Raises `Forbidden`, `NotFound`."""
    return await seen(work.device_commands, work.actor.require("send_command"), command_id)


async def command_groups(work: CommandsWork, query: PageQuery) -> Page[DeviceCommandGroup]:
    """A page of the commands to many. Raises `Forbidden`, `Invalid`."""
    return await work.device_command_groups.page(work.actor.require("read_command"), query)


async def command_group(work: CommandsWork, group_id: UUID) -> DeviceCommandGroup:
    """One command to many. Raises `Forbidden`, `NotFound`."""
    return await seen(work.device_command_groups, work.actor.require("read_command"), group_id)


async def sent_command_group(work: CommandsWork, group_id: UUID) -> DeviceCommandGroup:
    """What became of a command to many, for who may send such. Raises `Forbidden`, `NotFound`."""
    return await seen(work.device_command_groups, work.actor.require("send_command"), group_id)


def _said(work: CommandsWork, command: SendCommand) -> dict[str, Any]:
    return {
        "created_by": work.actor.user_id,
        "type": command.type,
        "params": dict(command.params),
        "deadline": work.now + timedelta(seconds=command.timeout_seconds),
    }


async def _named_places(work: CommandsWork, params: Mapping[str, Any]) -> dict[str, str | None] | None:
    """Where those stand whom the params name to a gateway: its children may stand where the actor may command nothing.

    Whose children they are does not matter: a command may wait for days, and who speaks for a device may change. Raises `NotFound`,
    `Forbidden`.
    """
    places: dict[str, str | None] = {}
    for device_id in sorted(named_devices(params)):
        device = await within_act(work, work.devices, device_id, see="read_device", act="send_command")
        places[str(device.id)] = None if device.establishment_id is None else str(device.establishment_id)
    return places or None


async def _placed(work: CommandsWork, target: CommandTarget) -> CommandTarget:
    """The target with its organisation, when the actor may send commands at its place: the smallest that it names."""
    if target.area_id is not None:
        area = await within_act(work, work.areas, target.area_id, see="read_area", act="send_command")
        named = (target.establishment_id, target.organization_id)
        if any(one is not None and one not in (area.establishment_id, area.organization_id) for one in named):
            raise Invalid("target.area_id", "lies elsewhere: leave out establishment_id and organization_id")
        return replace(target, establishment_id=area.establishment_id, organization_id=area.organization_id)
    if target.establishment_id is not None:
        site = await within_act(
            work, work.establishments, target.establishment_id, see="read_establishment", act="send_command"
        )
        if target.organization_id not in (None, site.organization_id):
            raise Invalid("target.establishment_id", "is of another organisation: leave out organization_id")
        return replace(target, organization_id=site.organization_id)
    organization_id = target.organization_id or work.actor.organization_id
    if organization_id is None:
        raise Invalid("target", "name an organization_id, an establishment_id or an area_id")
    organization = await seen(work.organizations, work.actor.reach("read_organization"), organization_id)
    return replace(target, organization_id=organization.id)


def _as_json(target: CommandTarget) -> dict[str, Any]:
    """What the target names, as it is kept."""
    named = {name: getattr(target, name) for name in CommandTarget.__slots__}
    return {name: str(value) for name, value in named.items() if value is not None}
