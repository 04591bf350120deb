"""`hse parked-events`: alarms and the like that were stored, and that the worker could not act upon."""

import json
from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from hse.adapters.postgres import parked_events as parked
from hse.adapters.postgres.engine import transaction
from hse.cli.options import AsJson, DataDir
from hse.cli.place import place_of
from hse.cli.tables import print_table

app = typer.Typer(help="Events that no handler could handle: list, try again, give up.", no_args_is_help=True)

Ids = Annotated[
    list[int] | None, typer.Argument(help="The parked events' ids; all that the options name when left out.")
]
Device = Annotated[UUID | None, typer.Option(help="Only those of this device.", show_default=False)]
Type = Annotated[str | None, typer.Option("--type", help="Only those of this type.", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Every one.")]


@app.command("list")
def list_(
    device: Device = None,
    event_type: Type = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    is_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List parked events, the oldest first."""
    wanted = parked.ParkedEventFilter(device_id=device, event_type=event_type)
    with transaction(place_of(data_dir).database_url) as connection:
        found = parked.list_parked(connection, wanted, limit=limit)
    if is_json:
        print(json.dumps([asdict(one) for one in found], default=str))
        return
    headings = ("id", "device", "type", "time (UTC)", "attempts", "reason")
    print_table(headings, [_row(one) for one in found])


@app.command()
def requeue(
    ids: Ids = None,
    device: Device = None,
    event_type: Type = None,
    is_all: Everything = False,
    data_dir: DataDir = None,
) -> None:
    """Have parked events handed to their handlers again, with all their attempts."""
    wanted = _wanted(ids, device, event_type, is_all=is_all)
    with transaction(place_of(data_dir).database_url) as connection:
        print(f"{parked.requeue(connection, wanted)} parked events are tried again")


@app.command()
def discard(
    ids: Ids = None,
    device: Device = None,
    event_type: Type = None,
    is_all: Everything = False,
    data_dir: DataDir = None,
) -> None:
    """Give parked events up. What the device reported stays in its history."""
    wanted = _wanted(ids, device, event_type, is_all=is_all)
    with transaction(place_of(data_dir).database_url) as connection:
        print(f"{parked.discard(connection, wanted)} parked events are given up")


def _wanted(
    ids: list[int] | None, device: UUID | None, event_type: str | None, *, is_all: bool
) -> parked.ParkedEventFilter:
    if not (ids or device or event_type or is_all):
        raise typer.BadParameter("name ids, --device or --type, or say --all")
    return parked.ParkedEventFilter(ids=ids or None, device_id=device, event_type=event_type)


def _row(one: parked.ParkedEvent) -> tuple[str, ...]:
    time = one.time.isoformat(sep=" ", timespec="milliseconds")
    return str(one.id), str(one.device_id), one.event_type, time, str(one.attempts), one.reason
