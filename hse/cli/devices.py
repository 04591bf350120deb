"""`hse devices`: the registry."""

import json
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import typer

from hse.adapters.postgres import registry
from hse.adapters.postgres.engine import transaction
from hse.cli.options import AsJson, DataDir
from hse.cli.place import place_of
from hse.cli.tables import print_table
from hse.domain.devices.model import IssuedDevice
from hse.wiring.machine import DEMO_ORGANIZATION

app = typer.Typer(help="Devices: add, list, enable, disable, give a new token.", no_args_is_help=True)

DeviceId = Annotated[UUID, typer.Argument(help="The device's id.", show_default=False)]
Organization = Annotated[str, typer.Option(help="The organisation's name; made when it is new.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The device's name; numbered when there are many.", show_default=False)],
    count: Annotated[int, typer.Option(help="How many.")] = 1,
    gateway: Annotated[UUID | None, typer.Option(help="The gateway that speaks for them.", show_default=False)] = None,
    organization: Organization = DEMO_ORGANIZATION,
    is_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Add devices and print their tokens, this once: only a hash is kept."""
    with transaction(place_of(data_dir).database_url) as connection:
        issued = registry.add_devices(connection, organization=organization, name=name, count=count, gateway_id=gateway)
    _print_issued(issued, is_json=is_json)


@app.command("list")
def list_(
    organization: Annotated[str | None, typer.Option(help="Only this organisation's.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 1000,
    is_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the devices by organisation and name."""
    with transaction(place_of(data_dir).database_url) as connection:
        found = registry.list_devices(connection, organization=organization, limit=limit)
    if is_json:
        items = [
            {
                "device_id": str(one.device_id),
                "name": one.name,
                "organization": one.organization,
                "gateway_id": None if one.gateway_id is None else str(one.gateway_id),
                "is_enabled": one.is_enabled,
                "created_at": one.created_at.isoformat(),
            }
            for one in found
        ]
        print(json.dumps(items))
        return
    rows = [
        (str(one.device_id), one.organization, "yes" if one.is_enabled else "no", str(one.gateway_id or ""), one.name)
        for one in found
    ]
    print_table(("device", "organisation", "enabled", "gateway", "name"), rows)


@app.command()
def disable(device: DeviceId, data_dir: DataDir = None) -> None:
    """Forbid a device to connect; an open connection is closed."""
    _set_enabled(device, data_dir, is_enabled=False)


@app.command()
def enable(device: DeviceId, data_dir: DataDir = None) -> None:
    """Let a device connect again."""
    _set_enabled(device, data_dir, is_enabled=True)


@app.command("rotate-token")
def rotate_token(device: DeviceId, is_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Give a device a new token and print it, this once; the old one is worth nothing from now on."""
    with transaction(place_of(data_dir).database_url) as connection:
        issued = registry.rotate_token(connection, device)
    _print_issued([issued], is_json=is_json)


def _set_enabled(device: UUID, data_dir: DataDir, *, is_enabled: bool) -> None:
    with transaction(place_of(data_dir).database_url) as connection:
        registry.set_enabled(connection, device, is_enabled=is_enabled)
    print(f"device {device} is {'enabled' if is_enabled else 'disabled'}")


def _print_issued(issued: Sequence[IssuedDevice], *, is_json: bool) -> None:
    if is_json:
        print(json.dumps([{"device_id": str(one.device_id), "token": one.token, "name": one.name} for one in issued]))
        return
    for one in issued:
        print(f"{one.device_id}  {one.token or '(its gateway speaks for it)'}  {one.name}")
