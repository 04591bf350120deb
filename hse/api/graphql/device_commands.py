"""Commands to devices: sent to one or to many, waited for, looked at, taken back."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import strawberry

from hse.adapters.postgres.work import PostgresWork
from hse.api.bodies import given
from hse.api.graphql.connections import connection, list_of, reference, single
from hse.api.graphql.context import Asked, Context, context_of
from hse.api.graphql.entities import DEVICE_COMMAND_GROUPS, DEVICE_COMMANDS, DEVICES, ESTABLISHMENTS, ORGANIZATIONS
from hse.api.graphql.mutations import acts, described, done, once
from hse.api.graphql.types import body_of, input_of, mirrors
from hse.api.rest import device_commands as bodies
from hse.api.waiting import WAIT_SECONDS_MAX, Waiting
from hse.domain.devices import commanding, device_commands
from hse.domain.errors import Invalid


@mirrors(device_commands.DeviceCommand)
class DeviceCommand:
    """A command to a device."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    device = reference(DEVICES, "device_id")
    group = reference(DEVICE_COMMAND_GROUPS, "group_id")


@mirrors(device_commands.DeviceCommandGroup)
class DeviceCommandGroup:
    """One command to many devices."""

    organization = reference(ORGANIZATIONS, "organization_id")
    commands = list_of(DEVICE_COMMANDS, "group_id")


async def _send_device_command(
    info: Asked,
    id: UUID,  # noqa: A002 (the argument's name, as everywhere)
    input: Any,  # noqa: A002 (the argument's name)
    wait: int = 0,
    idempotency_key: str | None = strawberry.UNSET,
) -> Any:
    context = context_of(info)
    seconds = _checked(wait)
    wanted = body_of(bodies.NewDeviceCommand, input)
    command = commanding.SendCommand(**given(wanted))
    acting = once(context.acting, info.field_name, (id, wanted), idempotency_key)
    sent = await done(context, acting, lambda work: commanding.send_command(work, id, command), commanding.send_command)
    return await _once_finished(context, sent, commanding.sent_command, seconds)


async def _send_device_command_to_many(
    info: Asked,
    input: Any,  # noqa: A002 (the argument's name)
    wait: int = 0,
    idempotency_key: str | None = strawberry.UNSET,
) -> Any:
    context = context_of(info)
    seconds = _checked(wait)
    wanted = body_of(bodies.NewDeviceCommandGroup, input)
    command = bodies.group_command(wanted)
    acting = once(context.acting, info.field_name, wanted, idempotency_key)
    send = commanding.send_command_to_many
    sent = await done(context, acting, lambda work: send(work, command), send)
    return await _once_finished(context, sent, commanding.sent_command_group, seconds)


async def _once_finished(
    context: Context, sent: Any, find: Callable[[PostgresWork, UUID], Awaitable[Any]], seconds: int
) -> Any:
    if seconds == 0:
        return sent
    waiting: Waiting = context.scope["litestar_app"].state.waiting

    async def read() -> Any:
        async with context.connections:
            return await context.acting.read(lambda work: find(work, sent.id))

    return await waiting.until_finished(sent.id, read, seconds=seconds)


def _checked(wait: int) -> int:
    if not 0 <= wait <= WAIT_SECONDS_MAX:
        raise Invalid("wait", f"between 0 and {WAIT_SECONDS_MAX} seconds")
    return wait


_send_device_command.__annotations__["input"] = input_of(bodies.NewDeviceCommand)
_send_device_command_to_many.__annotations__["input"] = input_of(bodies.NewDeviceCommandGroup)


@strawberry.type
class DeviceCommandsQuery:
    """What may be read of commands."""

    device_command = single(DEVICE_COMMANDS, commanding.command)
    device_commands = connection(DEVICE_COMMANDS)
    device_command_group = single(DEVICE_COMMAND_GROUPS, commanding.command_group)
    device_command_groups = connection(DEVICE_COMMAND_GROUPS)


@strawberry.type
class DeviceCommandsMutation:
    """What may be done with commands."""

    send_device_command = strawberry.mutation(
        resolver=_send_device_command,
        graphql_type=DeviceCommand | None,
        description=f"{described(commanding.send_command)} With `wait` it is answered once it has ended.",
    )
    send_device_command_to_many = strawberry.mutation(
        resolver=_send_device_command_to_many,
        graphql_type=DeviceCommandGroup | None,
        description=f"{described(commanding.send_command_to_many)} With `wait` it is answered once all has ended.",
    )
    cancel_device_command = acts(commanding.cancel_command, DeviceCommand)
    cancel_device_command_group = acts(commanding.cancel_command_group, DeviceCommandGroup)
