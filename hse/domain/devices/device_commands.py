"""Commands to devices: what one is, and how what becomes of it may be told.

A state never goes backwards. `queued`: not sent yet, as far as is known. `sent`: a node has taken it for the device's connection.
`delivered`: it was written to that connection whole. Then it ends, once: `succeeded` or `failed` by the device's answer,
`timed_out` when none came before the deadline, `expired` when it surely was not sent before it, `cancelled` when somebody took it
back, or its device was moved to another place, before it was sent. An answer that comes after the deadline is kept beside the state
and does not change it.

A command reaches its device at least once, under one id: a worker that dies while it hands it over leaves a doubt, and it is handed
over again. A device that knows the id does nothing twice (docs/adr/0016-commands-are-sent-at-least-once.md).
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, Literal
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind, Invalid
from hse.domain.policy import Reach

TYPE_CHARS_MAX = 50
PARAMS_BYTES_MAX = 16 * 1024
# A device reads frames that nest 16 deep at most, and the params stand in one.
PARAMS_NESTING_MAX = 12
# Numbers travel as doubles.
WHOLE_NUMBER_MAX = 2**53
TIMEOUT_SECONDS = 60
TIMEOUT_SECONDS_MAX = 7 * 24 * 3600
# Unfinished commands of one device.
QUEUE_COMMANDS_MAX = 100
GROUP_COMMANDS_MAX = 10_000
MESSAGE_CHARS_MAX = 500
# By which a gateway is told whom it is to command: a child as the nodes read it, and a lock (docs/door-locks.md).
NAMING_PARAMS = ("device_id", "lock_id")

State = Literal["queued", "sent", "delivered", "succeeded", "failed", "timed_out", "expired", "cancelled"]
ENDS: frozenset[State] = frozenset({"succeeded", "failed", "timed_out", "expired", "cancelled"})
# Whether it is to be handed to a node: `waiting` is surely not at the device; `under_way` was handed over, and while the state is
# still `queued` nobody knows whether it was taken; `in_doubt` was then handed over once more, which clears up nothing of the time
# before; `over` is never handed over again.
Dispatch = Literal["waiting", "under_way", "in_doubt", "over"]


class ChildTakesNoCommands(DomainError):
    """A device behind a gateway has no connection of its own: its gateway is commanded."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "commands.child-of-gateway"

    def __init__(self, device_id: UUID, gateway_id: UUID) -> None:
        super().__init__(f"device {device_id} is behind a gateway: send the command to {gateway_id}")
        self.device_id = device_id
        self.gateway_id = gateway_id


class DeviceDisabled(DomainError):
    """A disabled device is not connected, and is not commanded."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "commands.device-disabled"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"device {device_id} is disabled: enable it first")
        self.device_id = device_id


class CommandQueueFull(DomainError):
    """So many commands of this device are unfinished that another one would not be done soon."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "commands.queue-full"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(
            f"{QUEUE_COMMANDS_MAX} commands of device {device_id} are unfinished: wait for them, or cancel some"
        )
        self.device_id = device_id


class NoDevices(DomainError):
    """No enabled device that one may command fits the target."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "commands.no-devices"

    def __init__(self) -> None:
        super().__init__("there is no enabled device that takes commands, fits the target, and has room in its queue")


class TooManyDevices(DomainError):
    """A group of commands has a limit; narrow the target."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "commands.too-many-devices"

    def __init__(self) -> None:
        super().__init__(f"more than {GROUP_COMMANDS_MAX} devices fit the target: narrow it")
        self.devices_max = GROUP_COMMANDS_MAX


class CommandNotWaiting(DomainError):
    """What was handed to a node, or has ended, cannot be taken back."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "commands.not-waiting"

    def __init__(self, state: State) -> None:
        reason = "is on its way" if state == "queued" else f"is {state.replace('_', ' ')}"
        super().__init__(f"this command {reason}: it cannot be taken back")
        self.command_state = state


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCommand:
    """A command to a device, and what is known of it. The place is where the device stood when it was sent.

    `result_at` later than `finished_at` says that the device answered after the deadline. `status` is the device's, 0 is done.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    device_id: UUID
    group_id: UUID | None
    created_by: UUID
    type: str
    params: Mapping[str, Any]
    state: State
    deadline: datetime
    queued_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    finished_at: datetime | None
    result_at: datetime | None
    attempts: int
    node: str | None
    status: int | None
    message: str | None
    result: Mapping[str, Any] | None

    @property
    def is_finished(self) -> bool:
        """Whether its state is an end."""
        return self.state in ENDS

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCommandGroup:
    """One command to many devices; `states` counts its commands, as far as you may see them, by their state.

    `num_left_out` devices fitted the target and had a full queue. Who does not reach the place of the target is told of his part
    alone: `num_commands` counts what he may see, and `target` and `num_left_out` are null.
    """

    id: UUID
    organization_id: UUID
    created_by: UUID
    type: str
    params: Mapping[str, Any]
    target: Mapping[str, Any] | None
    deadline: datetime
    num_commands: int
    num_left_out: int | None
    created_at: datetime
    states: Mapping[str, int]

    @property
    def is_finished(self) -> bool:
        """Whether every command has ended."""
        return self.states.keys() <= ENDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a command stands: what reports change of it."""

    state: State = "queued"
    dispatch: Dispatch = "waiting"
    attempts: int = 0
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    finished_at: datetime | None = None
    result_at: datetime | None = None
    node: str | None = None
    status: int | None = None
    message: str | None = None
    result: Mapping[str, Any] | None = None


class Told(Enum):
    """What a report says of a command."""

    SENT = "a node has taken it for the device's connection"
    DELIVERED = "it was written to the connection whole"
    NOT_SENT = "it is surely not at the device: not connected, or the node is away"
    LOST = "the connection to the device, or to the node, ended before it was clear what became of it"
    ANSWERED = "the device has answered"
    REFUSED = "the node will never send it"
    MOVED = "its device does not stand any more where it was sent to"
    DEADLINE_PASSED = "its deadline has passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What somebody tells of a command: a node, the device through the journal, or the clock; late, twice, in any order.

    `status`, `message` and `result` are the device's in its answer; `message` says why in what is told of nodes.
    """

    told: Told
    at: datetime
    node: str | None = None
    status: int | None = None
    message: str | None = None
    result: Mapping[str, Any] | None = None


def handed_over(standing: Standing) -> Standing:
    """Before a command is handed to a node: from here on it may be at the device."""
    is_in_doubt = standing.state == "queued" and standing.dispatch in ("under_way", "in_doubt")
    return replace(standing, dispatch="in_doubt" if is_in_doubt else "under_way", attempts=standing.attempts + 1)


def advanced(standing: Standing, report: Report) -> Standing:
    """Where a command stands after a report; the same where the report says nothing new, or cannot be true."""
    match report.told:
        case Told.ANSWERED:
            return _answered(standing, report)
        case Told.SENT | Told.DELIVERED if standing.state in ("succeeded", "failed", "timed_out"):
            return _told_after_the_end(standing, report)
        case _ if standing.state in ENDS:
            return standing
        case Told.SENT if standing.state == "queued":
            return replace(
                standing, state="sent", dispatch="under_way", sent_at=report.at, node=report.node, message=None
            )
        case Told.DELIVERED if standing.state in ("queued", "sent"):
            sent_at = standing.sent_at or report.at
            return replace(
                standing,
                state="delivered",
                dispatch="under_way",
                sent_at=sent_at,
                delivered_at=max(report.at, sent_at),
                node=report.node,
                message=None,
            )
        case Told.NOT_SENT if standing.state == "queued" and standing.dispatch == "in_doubt":
            return replace(standing, message=report.message)
        case Told.NOT_SENT if standing.state != "delivered":
            return replace(standing, dispatch="waiting", message=report.message)
        case Told.REFUSED if standing.state != "delivered":
            return _ended(standing, "failed", report, message=report.message)
        case Told.MOVED if standing.dispatch == "waiting":
            return _ended(standing, "cancelled", report, message=report.message)
        case Told.DEADLINE_PASSED:
            is_surely_not_sent = standing.state == "queued" and standing.dispatch == "waiting"
            return _ended(standing, "expired" if is_surely_not_sent else "timed_out", report, message=standing.message)
        case _:
            return standing


def _told_after_the_end(standing: Standing, report: Report) -> Standing:
    """The answer may be heard before what led to it, on another way: how it went is filled in, and nothing else."""
    at = report.at if standing.finished_at is None else min(report.at, standing.finished_at)
    sent_at = standing.sent_at or (at if standing.delivered_at is None else min(at, standing.delivered_at))
    delivered_at = standing.delivered_at
    if report.told is Told.DELIVERED and delivered_at is None:
        delivered_at = max(at, sent_at)
    return replace(standing, sent_at=sent_at, delivered_at=delivered_at, node=standing.node or report.node)


def _answered(standing: Standing, report: Report) -> Standing:
    """A device answers what it was sent, and the first answer counts. What was never handed over is no answer to anything."""
    if standing.attempts == 0 or standing.result_at is not None:
        return standing
    ended = standing
    if standing.state not in ENDS:
        ended = _ended(standing, "succeeded" if report.status == 0 else "failed", report, message=report.message)
    elif standing.state != "timed_out":
        return standing
    return replace(
        ended,
        # An answer in time is the end itself.
        result_at=report.at if ended is standing else ended.finished_at,
        status=report.status,
        message=report.message,
        result=report.result,
    )


def _ended(standing: Standing, state: State, report: Report, *, message: str | None) -> Standing:
    # Clocks of nodes differ: no end lies before what it ends.
    at = max(one for one in (report.at, standing.sent_at, standing.delivered_at) if one is not None)
    return replace(standing, state=state, dispatch="over", finished_at=at, message=message)


def check_params(params: Mapping[str, Any]) -> None:
    """Raises `Invalid` for what would not arrive as it was said."""
    text = json.dumps(params)
    if len(text) > PARAMS_BYTES_MAX:
        raise Invalid("params", f"{PARAMS_BYTES_MAX} bytes of JSON at most")
    if "\\u0000" in text:
        raise Invalid("params", "no NUL characters")
    _check_value(params, depth=1)


def named_devices(params: Mapping[str, Any]) -> frozenset[UUID]:
    """The devices that the params name to a gateway: ids in any form that a node reads, with braces, as a URN, in capitals."""
    named = set()
    for text in (params.get(name) for name in NAMING_PARAMS):
        if isinstance(text, str):
            # What is no id names nobody here, and the gateway may know what it is.
            with contextlib.suppress(ValueError):
                named.add(UUID(text.strip().lower()))
    return frozenset(named)


def _check_value(value: Any, *, depth: int) -> None:
    if depth > PARAMS_NESTING_MAX:
        raise Invalid("params", f"nests {PARAMS_NESTING_MAX} deep at most")
    if isinstance(value, int) and abs(value) > WHOLE_NUMBER_MAX:
        raise Invalid("params", "a whole number beyond 2^53 does not arrive exact: send it as text")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for one in inner:
        _check_value(one, depth=depth + 1)
