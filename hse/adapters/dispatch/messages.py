"""Commands and what becomes of them, in the words of the nodes and in ours."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from google.protobuf.struct_pb2 import Struct, Value

from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.postgres.command_queues import (
    ClaimedCommand,
    ReportedCommand,
    answer,
    from_unix_us,
    result_of,
    unix_us,
)
from hse.domain.devices.device_commands import MESSAGE_CHARS_MAX, Report, Told

RESULT_EVENT = "command_result"
# No node waits longer for a result; the journal brings what comes later.
WAITED_FOR_MAX = timedelta(hours=23)
# A REJECTED that begins so may be otherwise before the deadline, or on a node whose registry is fresher.
MAY_CHANGE = ("queue_full", "unknown_device", "without_token", "disabled_device", "through_gateway", "deadline_passed")


def message_of(command: ClaimedCommand, now: datetime) -> pb.DeviceCommand:
    """A command as nodes are told it."""
    params = Struct()
    params.update(dict(command.params))
    return pb.DeviceCommand(
        device_id=str(command.device_id),
        command_type=command.type,
        request_id=str(command.id),
        typed_params=params,
        deadline_us=unix_us(min(command.deadline, now + WAITED_FOR_MAX)),
    )


def is_not_taken(progress: pb.CommandProgress) -> bool:
    """Whether the node surely has nothing of the command, and another try may go otherwise."""
    return progress.state == pb.OFFLINE or (progress.state == pb.REJECTED and progress.message.startswith(MAY_CHANGE))


def reason_of(progress: pb.CommandProgress, node: str) -> str:
    """Why a node has not taken a command, for people."""
    if progress.state == pb.OFFLINE:
        return "the device is not connected"
    return f"{node}: {progress.message}"[:MESSAGE_CHARS_MAX]


def report_of(progress: pb.CommandProgress, command: ClaimedCommand, node: str, now: datetime) -> ReportedCommand:
    """What a node tells of a command that it has taken, or will never send."""
    return ReportedCommand(
        command_id=command.id, device_id=command.device_id, report=_report(progress, command, node, now)
    )


def _report(progress: pb.CommandProgress, command: ClaimedCommand, node: str, now: datetime) -> Report:
    at = from_unix_us(progress.time_us)
    message = progress.message.replace("\0", "")[:MESSAGE_CHARS_MAX] or None
    match progress.state:
        case pb.SENT:
            return Report(told=Told.SENT, at=at, node=node)
        case pb.DELIVERED:
            return Report(told=Told.DELIVERED, at=at, node=node)
        case pb.SUCCEEDED:
            return answer(at, status=0, message=message, result=_data(progress), node=node)
        # A device that refuses says so with a status other than 0; without one its connection ended first.
        case pb.FAILED if progress.status > 0:
            return answer(at, status=progress.status, message=message, result=_data(progress), node=node)
        case pb.REJECTED:
            return Report(told=Told.REFUSED, at=at, node=node, message=message or "the node refuses it")
        case pb.TIMED_OUT if now >= command.deadline:
            return Report(told=Told.DEADLINE_PASSED, at=command.deadline, node=node)
        case _:
            return Report(told=Told.LOST, at=at, node=node)


def result_in(change: pb.DeviceChangeEvent) -> ReportedCommand | None:
    """The answer to a command that a change tells of; None when it tells of something else."""
    if change.kind != pb.EVENT or change.event_type != RESULT_EVENT:
        return None
    try:
        device_id = UUID(change.device_id)
    except ValueError:
        return None
    return result_of(device_id, from_unix_us(change.time_us), plain(change.typed_metadata))


def plain(struct: Struct) -> dict[str, Any]:
    """A Struct as plain values; its numbers are floats."""
    return {name: _plain(value) for name, value in struct.fields.items()}


def _data(progress: pb.CommandProgress) -> Mapping[str, Any] | None:
    return plain(progress.data) if progress.HasField("data") else None


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    match kind:
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain(one) for one in value.list_value.values]
        case None | "null_value":
            return None
        case _:
            return getattr(value, kind)
