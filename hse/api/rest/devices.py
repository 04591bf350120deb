"""Devices, the gateways that speak for some of them, and the tokens that the others connect with."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody, SkipValidation
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import LINE, Body, Metadata, Name, given
from hse.api.paging import Paged, filtered
from hse.domain.devices import commands, queries
from hse.domain.devices.model import Device, IssuedToken
from hse.domain.paging import Page

DeviceType = Annotated[str, msgspec.Meta(min_length=1, max_length=50, pattern=LINE, examples=["sensor"])]
Protocol = Annotated[str, msgspec.Meta(min_length=1, max_length=50, pattern=LINE, examples=["hdp"])]
Maker = Annotated[str, msgspec.Meta(max_length=200, pattern=LINE, examples=["Schneider Electric"])]
Model = Annotated[str, msgspec.Meta(max_length=200, pattern=LINE, examples=["iEM3155"])]
SerialNumber = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=LINE, examples=["SN-004711"])]
MacAddress = Annotated[str, msgspec.Meta(max_length=40, pattern=LINE, examples=["00:1b:44:11:3a:b7"])]
IpAddress = Annotated[str, msgspec.Meta(max_length=60, pattern=LINE, examples=["192.0.2.7"])]
# Its values are checked by the domain, which names them: `modbus.port`.
Modbus = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="Where it answers when it is polled: `host`, `port` (502), `unit_id` (1), `framing` (tcp or rtu_over_tcp).",
        examples=[{"host": "10.0.4.7", "port": 502, "unit_id": 17, "framing": "rtu_over_tcp"}],
    ),
]


class NewDevice(Body):
    """A device to be registered: at an establishment, or of an organisation and not placed yet."""

    name: Name
    organization_id: UUID | None = None
    establishment_id: UUID | None = None
    area_id: UUID | None = None
    gateway_id: UUID | None = None
    profile_id: UUID | None = None
    device_type: DeviceType = "sensor"
    manufacturer: Maker | None = None
    model: Model | None = None
    serial_number: SerialNumber | None = None
    mac_address: MacAddress | None = None
    ip_address: IpAddress | None = None
    protocol: Protocol = "hdp"
    modbus: Modbus | None = None
    is_enabled: bool = True
    metadata: Metadata = msgspec.field(default_factory=dict)


class DeviceChange(Body):
    """What changes of a device. At another establishment it is in no area unless one is named."""

    name: Name | UnsetType = UNSET
    establishment_id: UUID | UnsetType | None = UNSET
    area_id: UUID | UnsetType | None = UNSET
    gateway_id: UUID | UnsetType | None = UNSET
    profile_id: UUID | UnsetType | None = UNSET
    device_type: DeviceType | UnsetType = UNSET
    manufacturer: Maker | UnsetType | None = UNSET
    model: Model | UnsetType | None = UNSET
    serial_number: SerialNumber | UnsetType | None = UNSET
    mac_address: MacAddress | UnsetType | None = UNSET
    ip_address: IpAddress | UnsetType | None = UNSET
    protocol: Protocol | UnsetType = UNSET
    modbus: Modbus | UnsetType | None = UNSET
    is_enabled: bool | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


Given = NamedDependency[SkipValidation[dict[str, Any]]]


async def provide_places(
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    area_id: FromQuery[UUID | None] = None,
    gateway_id: FromQuery[UUID | None] = None,
) -> dict[str, Any]:
    """Where the devices are that a list is to show."""
    return {
        "organization_id": organization_id,
        "establishment_id": establishment_id,
        "area_id": area_id,
        "gateway_id": gateway_id,
    }


async def provide_filters(
    places: Given,
    profile_id: FromQuery[UUID | None] = None,
    device_type: FromQuery[str | None] = None,
    protocol: FromQuery[str | None] = None,
    is_enabled: FromQuery[bool | None] = None,
) -> dict[str, Any]:
    """Which devices a list is to show."""
    return {
        **places,
        "profile_id": profile_id,
        "device_type": device_type,
        "protocol": protocol,
        "is_enabled": is_enabled,
    }


@get("/devices", dependencies={"places": Provide(provide_places), "filters": Provide(provide_filters)})
async def list_devices(acting: Acts, page: Paged, filters: Given) -> Page[Device]:
    """List the devices that you may see; `q` looks in name, serial number, manufacturer and model."""
    return await acting.read(lambda work: queries.devices(work, filtered(page, **filters)))


@post("/devices")
async def create_device(once: Acts, data: JSONBody[NewDevice]) -> Device:
    """Register a device. It can connect once it is given a token, or through its gateway."""
    command = commands.CreateDevice(**given(data))
    return await once.run(lambda work: commands.create_device(work, command), status=201)


@get("/devices/{device_id:uuid}")
async def get_device(acting: Acts, device_id: FromPath[UUID]) -> Device:
    """Read a device."""
    return await acting.read(lambda work: queries.device(work, device_id))


@get("/devices/{device_id:uuid}/children")
async def list_children(acting: Acts, device_id: FromPath[UUID], page: Paged) -> Page[Device]:
    """List the devices that a gateway speaks for, as far as you may see them."""
    return await acting.read(lambda work: queries.children(work, device_id, page))


@patch("/devices/{device_id:uuid}")
async def change_device(
    acting: Acts, device_id: FromPath[UUID], data: JSONBody[DeviceChange], version: Version
) -> Device:
    """Change, move, enable or disable a device. A disabled one is cut off; to move one takes the permission at both places."""
    command = commands.ChangeDevice(**given(data))
    return await acting.run(lambda work: commands.change_device(work, device_id, command, version=version))


@delete("/devices/{device_id:uuid}")
async def delete_device(acting: Acts, device_id: FromPath[UUID]) -> None:
    """Delete a device that speaks for no others. What it reported stays."""
    await acting.run(lambda work: commands.delete_device(work, device_id))


@post("/devices/{device_id:uuid}/token")
async def issue_token(once: Acts, device_id: FromPath[UUID]) -> IssuedToken:
    """Give a device a new token, shown this once: only its hash is kept. The old one is worth nothing from now on."""
    return await once.run(lambda work: commands.issue_token(work, device_id), status=201)


@delete("/devices/{device_id:uuid}/token")
async def revoke_token(acting: Acts, device_id: FromPath[UUID]) -> None:
    """Take a device's token away; its connection is closed."""
    await acting.run(lambda work: commands.revoke_token(work, device_id))


router = Router(
    path="/",
    tags=["devices"],
    route_handlers=[
        list_devices,
        create_device,
        get_device,
        list_children,
        change_device,
        delete_device,
        issue_token,
        revoke_token,
    ],
)
