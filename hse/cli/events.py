"""`hse events`: what a device reported last."""

import json
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
import typer

from hse.adapters.postgres.engine import transaction
from hse.adapters.postgres.registry import list_devices
from hse.adapters.postgres.telemetry import last_events
from hse.cli.options import AsJson, DataDir
from hse.cli.place import place_of
from hse.cli.tables import print_table
from hse.domain.telemetry.model import Event

NAMED_DEVICES_MAX = 100_000


def events(
    device: Annotated[str, typer.Argument(help="The device's id or name.", show_default=False)],
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    is_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show the last events of a device, the newest first."""
    with transaction(place_of(data_dir).database_url) as connection:
        found = last_events(connection, _device_id(connection, device), last)
    if is_json:
        print(json.dumps([_as_dict(event) for event in found]))
        return
    print_table(("time (UTC)", "type", "value", "unit", "metadata"), [_row(event) for event in found])


def _row(event: Event) -> tuple[str, ...]:
    time = event.time.isoformat(sep=" ", timespec="milliseconds")
    value = "" if event.value is None else f"{event.value:g}"
    metadata = "" if event.metadata is None else json.dumps(event.metadata, ensure_ascii=False)
    return time, event.event_type, value, event.unit or "", metadata


def _as_dict(event: Event) -> dict[str, object]:
    return {
        "time": event.time.isoformat(),
        "device_id": str(event.device_id),
        "event_type": event.event_type,
        "value": event.value,
        "unit": event.unit,
        "metadata": event.metadata,
        "source": event.source,
    }


def _device_id(connection: sa.Connection, device: str) -> UUID:
    try:
        return UUID(device)
    except ValueError:
        found = [one for one in list_devices(connection, limit=NAMED_DEVICES_MAX) if one.name == device]
    if len(found) != 1:
        count = "no" if not found else str(len(found))
        raise typer.BadParameter(f"{count} devices are called {device!r}; `hse devices list` shows their ids")
    return found[0].device_id
