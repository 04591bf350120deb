"""`hse dead-letters`: events that were acknowledged and that the database, or a rule, refused."""

import json
from typing import Annotated, Literal
from uuid import UUID

import msgspec
import typer

from hse.adapters.postgres import dead_letters as kept
from hse.adapters.postgres.engine import transaction
from hse.cli.options import AsJson, DataDir
from hse.cli.place import place_of
from hse.cli.tables import print_table

app = typer.Typer(help="Dead letters: list, try again, give up.", no_args_is_help=True)

Ids = Annotated[
    list[int] | None, typer.Argument(help="The dead letters' ids; all that the options name when left out.")
]
Device = Annotated[UUID | None, typer.Option(help="Only those of this device.", show_default=False)]
Code = Annotated[str | None, typer.Option(help="Only those with this code.", show_default=False)]
Status = Annotated[
    Literal["pending", "permanent", "discarded"] | None, typer.Option(help="Only these.", show_default=False)
]
Everything = Annotated[bool, typer.Option("--all", help="Every one that is not discarded.")]


@app.command("list")
def list_(
    device: Device = None,
    code: Code = None,
    status: Status = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    is_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List dead letters, the oldest first."""
    wanted = kept.DeadLetterFilter(device_id=device, code=code, status=status)
    with transaction(place_of(data_dir).database_url) as connection:
        found = kept.list_dead_letters(connection, wanted, limit=limit)
    if is_json:
        print(json.dumps([_as_dict(one) for one in found], default=str))
        return
    headings = ("id", "device", "epoch", "seq", "source", "received", "code", "status", "attempts", "reason")
    print_table(headings, [_row(one) for one in found])


@app.command()
def requeue(
    ids: Ids = None,
    device: Device = None,
    code: Code = None,
    status: Status = None,
    is_all: Everything = False,
    data_dir: DataDir = None,
) -> None:
    """Have dead letters tried again now, with all their attempts."""
    wanted = _wanted(ids, device, code, status, is_all=is_all)
    with transaction(place_of(data_dir).database_url) as connection:
        print(f"{kept.requeue(connection, wanted)} dead letters are tried again")


@app.command()
def discard(
    ids: Ids = None,
    device: Device = None,
    code: Code = None,
    status: Status = None,
    is_all: Everything = False,
    data_dir: DataDir = None,
) -> None:
    """Give dead letters up. They stay as rows for as long as events do: none just vanishes."""
    wanted = _wanted(ids, device, code, status, is_all=is_all)
    with transaction(place_of(data_dir).database_url) as connection:
        print(f"{kept.discard(connection, wanted)} dead letters are given up")


def _wanted(
    ids: list[int] | None, device: UUID | None, code: str | None, status: kept.DeadLetterStatus | None, *, is_all: bool
) -> kept.DeadLetterFilter:
    if not (ids or device or code or status or is_all):
        raise typer.BadParameter("name ids, --device, --code or --status, or say --all")
    return kept.DeadLetterFilter(ids=ids or None, device_id=device, code=code, status=status)


def _row(one: kept.DeadLetter) -> tuple[str, ...]:
    received = one.received_at.isoformat(sep=" ", timespec="seconds")
    numbers = (str(one.id), str(one.device_id), str(one.epoch), str(one.seq), one.source or "")
    return (*numbers, received, one.code, one.status, str(one.attempts), one.reason)


def _as_dict(one: kept.DeadLetter) -> dict[str, object]:
    return {
        "id": one.id,
        "device_id": one.device_id,
        "epoch": one.epoch,
        "seq": one.seq,
        "source": one.source,
        "received_at": one.received_at.isoformat(),
        "code": one.code,
        "reason": one.reason,
        "event": _readable(one.event),
        "status": one.status,
        "attempts": one.attempts,
        "next_attempt_at": None if one.next_attempt_at is None else one.next_attempt_at.isoformat(),
    }


def _readable(event: bytes) -> object:
    """The event's array where it can be shown, else its bytes in hexadecimal: it is here because something is wrong with it."""
    try:
        return msgspec.msgpack.decode(event)
    except (msgspec.DecodeError, ValueError):
        return event.hex()
