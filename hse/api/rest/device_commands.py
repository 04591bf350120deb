"""Commands to devices: sent to one or to many, waited for, looked at, taken back."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting, Acts, Answered
from hse.api.bodies import LINE, Body, given
from hse.api.paging import Paged, filtered
from hse.api.waiting import Wait, Waiting
from hse.domain.devices import commanding
from hse.domain.devices.device_commands import (
    TIMEOUT_SECONDS,
    TIMEOUT_SECONDS_MAX,
    TYPE_CHARS_MAX,
    DeviceCommand,
    DeviceCommandGroup,
    State,
)
from hse.domain.paging import Page

T = TypeVar("T", DeviceCommand, DeviceCommandGroup)

CommandType = Annotated[
    str, msgspec.Meta(min_length=1, max_length=TYPE_CHARS_MAX, pattern=LINE, examples=["set_temperature"])
]
Params = Annotated[dict[str, Any], msgspec.Meta(examples=[{"degrees": 21.5}])]
Timeout = Annotated[int, msgspec.Meta(ge=1, le=TIMEOUT_SECONDS_MAX, examples=[60])]
# `state` as the name of an argument is the framework's.
InState = Annotated[State | None, QueryParameter(name="state", description="Only those that are in it.")]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=LINE)]


class NewDeviceCommand(Body):
    """A command: what kind, with what, and for how many seconds it holds. A device that is not connected gets it when it is."""

    type: CommandType
    params: Params = msgspec.field(default_factory=dict)
    timeout_seconds: Timeout = TIMEOUT_SECONDS


class CommandTarget(Body):
    """Which devices: of one place, your own organisation when none is named, and of these those that fit the rest."""

    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    area_id: UUID | None = None
    device_type: Word | None = None
    protocol: Word | None = None
    manufacturer: Word | None = None
    model: Word | None = None


class NewDeviceCommandGroup(NewDeviceCommand):
    """The same command to every device of a target; an area counts with all that lies in it."""

    target: CommandTarget = msgspec.field(default_factory=CommandTarget)


def group_command(body: NewDeviceCommandGroup) -> commanding.SendCommandToMany:
    """The body as a command."""
    return commanding.SendCommandToMany(**{**given(body), "target": commanding.CommandTarget(**given(body.target))})


FINISHED = "It has ended while you waited; its `state` says how."


@post(
    "/devices/{device_id:uuid}/commands",
    status_code=202,
    responses={200: ResponseSpec(DeviceCommand, description=FINISHED, generate_examples=False)},
)
async def send_command(
    request: Request[Any, Any, Any],
    once: Acts,
    device_id: FromPath[UUID],
    data: JSONBody[NewDeviceCommand],
    wait: Wait = 0,
) -> Response[DeviceCommand]:
    """Send a command to a device. 202 with a `Location` where to look; with `wait` 200 once it has ended.

    `queued`, `sent` (a node has it), `delivered` (written to the device's connection), then an end: `succeeded` or `failed` as the
    device answers, `timed_out` without an answer before the deadline, `expired` when it surely was not sent before that,
    `cancelled` when somebody took it back, or the device was moved to another place, before it was sent. A device gets its commands
    in the order in which they were sent, and each at least once, under one id. A child's commands go to its gateway, with the
    child's id in `params` as `device_id`, or `lock_id` for a door lock: you must be able to command the child, too.
    """
    command = commanding.SendCommand(**given(data))
    return await _sent(
        request,
        once,
        lambda work: commanding.send_command(work, device_id, command),
        commanding.sent_command,
        ("device-commands", DeviceCommand, wait),
    )


@get("/devices/{device_id:uuid}/commands")
async def list_commands_of_device(
    acting: Acts, device_id: FromPath[UUID], page: Paged, is_in: InState = None
) -> Page[DeviceCommand]:
    """List a device's commands, the newest first."""
    return await acting.read(lambda work: commanding.commands_of_device(work, device_id, filtered(page, state=is_in)))


@get("/device-commands")
async def list_commands(
    acting: Acts,
    page: Paged,
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    device_id: FromQuery[UUID | None] = None,
    group_id: FromQuery[UUID | None] = None,
    is_in: InState = None,
) -> Page[DeviceCommand]:
    """List the commands that you may see, the newest first; `q` looks in their type."""
    filters = {
        "organization_id": organization_id,
        "establishment_id": establishment_id,
        "device_id": device_id,
        "group_id": group_id,
        "state": is_in,
    }
    return await acting.read(lambda work: commanding.commands(work, filtered(page, **filters)))


@get("/device-commands/{command_id:uuid}")
async def get_command(
    request: Request[Any, Any, Any], acting: Acts, command_id: FromPath[UUID], wait: Wait = 0
) -> DeviceCommand:
    """Read a command; with `wait` as soon as it has ended."""

    async def read() -> DeviceCommand:
        return await acting.read(lambda work: commanding.command(work, command_id))

    return await _waiting(request).until_finished(command_id, read, seconds=wait)


@post("/device-commands/{command_id:uuid}/cancel", status_code=200)
async def cancel_command(acting: Acts, command_id: FromPath[UUID]) -> DeviceCommand:
    """Take back a command that was not handed to a node yet; done again, it is the same."""
    return await acting.run(lambda work: commanding.cancel_command(work, command_id))


@post(
    "/device-command-groups",
    status_code=202,
    responses={200: ResponseSpec(DeviceCommandGroup, description=FINISHED, generate_examples=False)},
)
async def send_command_to_many(
    request: Request[Any, Any, Any], once: Acts, data: JSONBody[NewDeviceCommandGroup], wait: Wait = 0
) -> Response[DeviceCommandGroup]:
    """Send a command to every enabled device of an area, an establishment, an organisation, or of those that fit a filter there.

    Each of them gets a command of its own, as far as you may command it and it has a connection of its own: behind a gateway it has
    none. `states` counts them; `GET /device-commands?group_id=` lists them. 10 000 devices at most.
    """
    command = group_command(data)
    return await _sent(
        request,
        once,
        lambda work: commanding.send_command_to_many(work, command),
        commanding.sent_command_group,
        ("device-command-groups", DeviceCommandGroup, wait),
    )


@get("/device-command-groups")
async def list_command_groups(
    acting: Acts, page: Paged, organization_id: FromQuery[UUID | None] = None
) -> Page[DeviceCommandGroup]:
    """List the commands to many of which you may see some, the newest first; `q` looks in their type."""
    query = filtered(page, organization_id=organization_id)
    return await acting.read(lambda work: commanding.command_groups(work, query))


@get("/device-command-groups/{group_id:uuid}")
async def get_command_group(
    request: Request[Any, Any, Any], acting: Acts, group_id: FromPath[UUID], wait: Wait = 0
) -> DeviceCommandGroup:
    """Read a command to many; with `wait` as soon as all of it has ended.

    Who does not reach the place of its target, such as the whole organisation, is told of his part alone: `num_commands` counts
    what he may see, and `target` and `num_left_out` are null.
    """

    async def read() -> DeviceCommandGroup:
        return await acting.read(lambda work: commanding.command_group(work, group_id))

    return await _waiting(request).until_finished(group_id, read, seconds=wait)


@post("/device-command-groups/{group_id:uuid}/cancel", status_code=200)
async def cancel_command_group(acting: Acts, group_id: FromPath[UUID]) -> DeviceCommandGroup:
    """Take back those commands of a group that were not handed to a node yet."""
    return await acting.run(lambda work: commanding.cancel_command_group(work, group_id))


async def _sent(
    request: Request[Any, Any, Any],
    once: Acting,
    send: Callable[[PostgresWork], Awaitable[T]],
    find: Callable[[PostgresWork, UUID], Awaitable[T]],
    answer: tuple[str, type[T], int],
) -> Response[T]:
    """Send, once; and wait for the end without a transaction. Sent again, it is answered as it stands now."""
    collection, kind, wait = answer
    headers = {}
    try:
        sent: T = await once.run(send, status=202)
    except Answered as answered:
        sent = msgspec.json.decode(answered.body, type=kind)
        headers["Idempotency-Replayed"] = "true"
    thing_id = sent.id
    if wait > 0 or headers:
        sent = await _waiting(request).until_finished(
            thing_id, lambda: once.read(lambda work: find(work, thing_id)), seconds=wait
        )
    headers["Location"] = f"/api/v1/{collection}/{thing_id}"
    return Response(content=sent, status_code=200 if sent.is_finished else 202, headers=headers)


def _waiting(request: Request[Any, Any, Any]) -> Waiting:
    waiting: Waiting = request.app.state.waiting
    return waiting


router = Router(
    path="/",
    tags=["commands"],
    route_handlers=[
        send_command,
        list_commands_of_device,
        list_commands,
        get_command,
        cancel_command,
        send_command_to_many,
        list_command_groups,
        get_command_group,
        cancel_command_group,
    ],
)
