"""The queues of commands as the worker works on them: claimed device by device, reported on, released, swept.

Any number of workers may do this at once and die anywhere. A claim is a lease on a device's queue, so that one worker at a time
hands a device its commands, in their order; what a report changes of a command is decided by the domain under the row's lock.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from hse.adapters.postgres.command_places import IS_IN_PLACE
from hse.adapters.postgres.reach import one_of
from hse.adapters.postgres.tables import device_command_queues, device_commands
from hse.domain.devices.device_commands import MESSAGE_CHARS_MAX, Report, Standing, Told, advanced, handed_over

LEASE = timedelta(seconds=30)
# Of one device in one claim; what is left over is claimed right after it.
COMMANDS_PER_CLAIM_MAX = 50
SWEPT_COMMANDS_MAX = 500
RESULT_BYTES_MAX = 64 * 1024
STATUS_MAX = 2**63 - 1
MOVED_MESSAGE = "the device does not stand any more where it did when this was sent"
# A device that was not connected is tried again after 5, 10, 20, 40, 60, 60 ... seconds; when it connects, at once.
FIRST_WAIT_SECONDS, WAIT_SECONDS_MAX = 5, 60

command = device_commands.c
queue = device_command_queues.c
STANDING = [device_commands.c[item.name] for item in fields(Standing)]
# A state that is queued under way was handed over by a worker that could not say what became of it.
IS_TO_BE_SENT = sa.or_(
    command.dispatch == "waiting", sa.and_(command.dispatch.in_(["under_way", "in_doubt"]), command.state == "queued")
)

# One statement, and so one notification, for many commands.
CHANGED = (
    sa.func.jsonb_to_recordset(sa.bindparam("rows", type_=JSONB))
    .table_valued(
        sa.column("id", sa.Uuid), *(sa.column(column.name, column.type) for column in STANDING), name="changed"
    )
    .render_derived(with_types=True)
)
WRITE = (
    sa.update(device_commands)
    .where(command.id == CHANGED.c.id)
    .values({column.name: CHANGED.c[column.name] for column in STANDING})
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedCommand:
    """A command that this worker is to hand to a node."""

    id: UUID
    number: int
    device_id: UUID
    type: str
    # With what was sealed of them only from `open_secrets` on.
    params: Mapping[str, Any] = field(repr=False)
    sealed_params: bytes | None = field(repr=False)
    deadline: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedCommand:
    """A report, and the command that it is about; `device_id` is who it is said of, and must fit."""

    command_id: UUID
    device_id: UUID
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that a report has ended, for those who count."""

    state: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The commands of queues that were due, device by device and in order, and what ended instead of being handed out."""

    num_queues: int
    commands: Mapping[UUID, Sequence[ClaimedCommand]]
    ended: Sequence[Ended]


def claim(connection: sa.Connection, claimed_by: UUID, *, devices_max: int) -> Claimed | None:
    """The commands of the queues that are due, marked as handed over; None when none is due.

    To be committed before any of them is sent. A queue without commands is forgotten, and what was sent to another place than where
    its device stands now is cancelled, or, where it may be at the device already, left to its answer and its deadline.
    """
    due = (
        sa.select(queue.device_id)
        .where(queue.due_at <= sa.func.now(), _is_free())
        .order_by(queue.due_at)
        .limit(devices_max)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    take = (
        sa.update(device_command_queues)
        .where(queue.device_id == due.c.device_id)
        .values(claimed_by=claimed_by, claimed_until=sa.func.now() + LEASE, due_at=sa.func.now() + LEASE)
        .returning(queue.device_id)
    )
    device_ids = list(connection.execute(take).scalars())
    if not device_ids:
        return None
    claimed = _take_commands(connection, device_ids)
    _forget(connection, [one for one in device_ids if one not in claimed.commands])
    return claimed


def _take_commands(connection: sa.Connection, device_ids: Sequence[UUID]) -> Claimed:
    columns = [device_commands.c[item.name] for item in fields(ClaimedCommand)]
    rank = sa.func.row_number().over(partition_by=(command.device_id, IS_IN_PLACE), order_by=command.number)
    ranked = (
        sa.select(command.id, IS_IN_PLACE.label("is_in_place"), rank.label("rank"))
        .where(one_of(command.device_id, device_ids), IS_TO_BE_SENT, command.deadline > sa.func.now())
        .subquery("ranked")
    )
    # In the order in which reports lock them.
    locked: sa.Select[Any] = (
        sa.select(*columns, *STANDING, ranked.c.is_in_place)
        .join(ranked, ranked.c.id == command.id)
        .where(sa.or_(ranked.c.rank <= COMMANDS_PER_CLAIM_MAX, ~ranked.c.is_in_place), IS_TO_BE_SENT)
        .order_by(command.id)
        .with_for_update(of=device_commands)
    )
    rows = connection.execute(locked).all()
    taken = sorted((row for row in rows if row.is_in_place), key=lambda row: row.number)
    _write(connection, [(row.id, handed_over(_standing(row))) for row in taken])
    moved = Report(told=Told.MOVED, at=datetime.now(UTC), message=MOVED_MESSAGE)
    elsewhere = [row for row in rows if not row.is_in_place]
    ended = apply_reports(
        connection, [ReportedCommand(command_id=row.id, device_id=row.device_id, report=moved) for row in elsewhere]
    )
    by_device: dict[UUID, list[ClaimedCommand]] = {}
    for row in taken:
        one = ClaimedCommand(**{column.name: row._mapping[column.name] for column in columns})
        by_device.setdefault(one.device_id, []).append(one)
    return Claimed(num_queues=len(device_ids), commands=by_device, ended=ended)


def keep_claims(connection: sa.Connection, claimed_by: UUID) -> None:
    """Have this worker's claims for another while."""
    connection.execute(
        sa.update(device_command_queues)
        .where(queue.claimed_by == claimed_by)
        .values(
            claimed_until=sa.func.now() + LEASE,
            # What lies in the past was asked for meanwhile, and stays so.
            due_at=sa.case((queue.due_at > sa.func.now(), sa.func.now() + LEASE), else_=queue.due_at),
        )
    )


def drop_claims(connection: sa.Connection, claimed_by: UUID) -> None:
    """Leave what this worker has claimed to the others, at once: it ends."""
    connection.execute(
        sa.update(device_command_queues)
        .where(queue.claimed_by == claimed_by)
        .values(claimed_by=None, claimed_until=None, due_at=sa.func.now())
    )


def release(connection: sa.Connection, claimed_by: UUID, device_ids: Collection[UUID], *, were_connected: bool) -> None:
    """Give claims back after their commands were reported on: what waits still, or has come meanwhile, is due again.

    With `were_connected` at once, else after a wait that grows, unless somebody has asked for a try meanwhile.
    """
    # Locked first: who adds a command waits here or is seen by the next statement.
    held = (
        sa.select(queue.device_id)
        .where(one_of(queue.device_id, device_ids), queue.claimed_by == claimed_by)
        .order_by(queue.device_id)
        .with_for_update()
    )
    held_ids = list(connection.execute(held).scalars())
    left = sa.select(command.device_id).where(one_of(command.device_id, held_ids), IS_TO_BE_SENT).distinct()
    left_ids = set(connection.execute(left).scalars())
    _forget(connection, [one for one in held_ids if one not in left_ids])
    wait_seconds = sa.func.least(FIRST_WAIT_SECONDS * sa.func.power(2, queue.tries), WAIT_SECONDS_MAX)
    later = sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, wait_seconds)
    connection.execute(
        sa.update(device_command_queues)
        .where(one_of(queue.device_id, left_ids))
        .values(
            claimed_by=None,
            claimed_until=None,
            due_at=sa.func.now()
            if were_connected
            else sa.case((queue.due_at <= sa.func.now(), queue.due_at), else_=later),
            tries=0 if were_connected else sa.func.least(queue.tries + 1, 10),
        )
    )


def ask_for_a_try(connection: sa.Connection, device_ids: Collection[UUID] | None) -> int:
    """Have what waits for these devices, or for all, tried now: they have connected. Returns for how many something waits."""
    wanted = (
        sa.select(queue.device_id)
        .where(sa.true() if device_ids is None else one_of(queue.device_id, device_ids), queue.due_at > sa.func.now())
        .order_by(queue.device_id)
        .with_for_update()
        .cte("wanted")
    )
    ask = (
        sa.update(device_command_queues)
        .where(queue.device_id == wanted.c.device_id)
        .values(due_at=sa.func.now(), tries=0)
    )
    return connection.execute(ask).rowcount


def apply_reports(connection: sa.Connection, reports: Sequence[ReportedCommand]) -> list[Ended]:
    """Change commands as the reports say, each in its turn; what is about another device's command, or none, changes nothing."""
    if not reports:
        return []
    ids = sorted({one.command_id for one in reports})
    rows = connection.execute(
        sa.select(command.id, command.device_id, command.queued_at, *STANDING)
        .where(one_of(command.id, ids))
        .order_by(command.id)
        .with_for_update()
    ).all()
    known = {row.id: row for row in rows}
    standings = {row.id: _standing(row) for row in rows}
    for one in reports:
        row = known.get(one.command_id)
        if row is not None and row.device_id == one.device_id:
            # Clocks differ: nothing happens to a command before it is there.
            report = replace(one.report, at=max(one.report.at, row.queued_at))
            standings[row.id] = advanced(standings[row.id], report)
    changed = [(row.id, standings[row.id]) for row in rows if standings[row.id] != _standing(row)]
    _write(connection, changed)
    return [
        Ended(state=now.state, seconds=(now.finished_at - known[command_id].queued_at).total_seconds())
        for command_id, now in changed
        if now.finished_at is not None and known[command_id].finished_at is None
    ]


def sweep_deadlines(connection: sa.Connection) -> list[Ended]:
    """End the commands whose deadline has passed."""
    late = (
        sa.select(command.id, command.device_id, command.deadline)
        .where(command.finished_at.is_(None), command.deadline <= sa.func.now())
        .order_by(command.id)
        .limit(SWEPT_COMMANDS_MAX)
        .with_for_update(skip_locked=True)
    )
    reports = [
        ReportedCommand(
            command_id=row.id, device_id=row.device_id, report=Report(told=Told.DEADLINE_PASSED, at=row.deadline)
        )
        for row in connection.execute(late)
    ]
    return apply_reports(connection, reports)


# The source of events that the core itself says.
CORE = "core"


class ResultEvent(Protocol):
    """An event of the type `command_result`, as the outbox has it."""

    @property
    def device_id(self) -> UUID:
        """Who answered."""

    @property
    def time(self) -> datetime:
        """When."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What: `request_id`, `status`, and perhaps `message` and `data`."""

    @property
    def source(self) -> str | None:
        """Who says so: `core`, or else somebody who may not."""


def apply_command_results(connection: sa.Connection, events: Sequence[ResultEvent]) -> None:
    """Apply devices' answers that came through the journal, any number of times: the first one of a device counts.

    What names no command, or another device's, changes nothing; nor does what a device or a service reported as an event of
    this type: an answer is the core's word.
    """
    found = [result_of(event.device_id, event.time, event.metadata) for event in events if event.source == CORE]
    apply_reports(connection, [one for one in found if one is not None])


def result_of(device_id: UUID, at: datetime, metadata: Mapping[str, Any]) -> ReportedCommand | None:
    """The answer that an event of the type `command_result` is; None when it names no command of ours."""
    try:
        command_id = UUID(str(metadata["request_id"]))
        status = int(metadata["status"])
    except (KeyError, ValueError, TypeError):
        return None
    if not 0 <= status <= STATUS_MAX:
        return None
    message, result = metadata.get("message"), metadata.get("data")
    report = answer(
        at,
        status=status,
        message=message if isinstance(message, str) else None,
        result=result if isinstance(result, Mapping) else None,
    )
    return ReportedCommand(command_id=command_id, device_id=device_id, report=report)


def answer(
    at: datetime,
    *,
    status: int,
    message: str | None,
    result: Mapping[str, Any] | None,
    node: str | None = None,
) -> Report:
    """A device's answer, cut down to what is kept."""
    text = None if not message else message.replace("\0", "")[:MESSAGE_CHARS_MAX]
    kept = storable(result)
    if result is not None and kept is None:
        text = text or "the device's data cannot be kept: too much, or no JSON"
    return Report(told=Told.ANSWERED, at=at, node=node, status=status, message=text, result=kept)


def storable(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The same as JSON can hold it, without numbers that are none; None where it is too much."""
    if data is None:
        return None
    plain = _plain(data)
    encoded = msgspec.json.encode(plain)
    if len(encoded) > RESULT_BYTES_MAX or b"\\u0000" in encoded:
        return None
    return plain if isinstance(plain, dict) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) <= 2**53 else value
    return value


def unix_us(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def from_unix_us(microseconds: int) -> datetime:
    """The moment; now where it is not set."""
    if microseconds <= 0:
        return datetime.now(UTC)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def num_waiting(connection: sa.Connection) -> int:
    """How many devices commands wait for."""
    return connection.execute(sa.select(sa.func.count()).select_from(device_command_queues)).scalar_one()


def _is_free() -> sa.ColumnElement[bool]:
    return sa.or_(queue.claimed_until.is_(None), queue.claimed_until < sa.func.now())


def _forget(connection: sa.Connection, device_ids: Collection[UUID]) -> None:
    if device_ids:
        connection.execute(sa.delete(device_command_queues).where(one_of(queue.device_id, device_ids)))


def _standing(row: sa.Row[Any]) -> Standing:
    return Standing(**{column.name: row._mapping[column.name] for column in STANDING})


def _write(connection: sa.Connection, changed: Iterable[tuple[UUID, Standing]]) -> None:
    rows = [
        {"id": command_id, **{item.name: getattr(now, item.name) for item in fields(Standing)}}
        for command_id, now in changed
    ]
    if rows:
        connection.execute(WRITE, {"rows": msgspec.to_builtins(rows)})
