"""Device profiles: what devices of a kind measure, and how what they say becomes values.

`points` and `format` are JSON here, and not structs: the domain reads them value by value, and its refusals say at which place of
which entry, for both skins alike.
"""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import TEXT, Body, Name, given
from hse.api.paging import Paged, filtered
from hse.domain.devices import device_profiles as desk
from hse.domain.devices.profile_formats import EXPECTED_INTERVAL_S_MAX
from hse.domain.devices.profile_views import DeviceProfile
from hse.domain.paging import Page

FormatKind = Literal["hdp", "json", "senml", "modbus"]
Description = Annotated[str, msgspec.Meta(max_length=desk.DESCRIPTION_CHARS_MAX, pattern=TEXT)]
ExpectedInterval = Annotated[int, msgspec.Meta(ge=1, le=EXPECTED_INTERVAL_S_MAX, examples=[60])]
Points = Annotated[
    list[dict[str, Any]],
    msgspec.Meta(
        description="`key` (needed), `name`, `unit`, `type` (number, boolean, text), `min`, `max`, `counter`.",
        examples=[[{"key": "power", "unit": "W"}, {"key": "energy", "unit": "kWh", "counter": {"kind": "resets"}}]],
    ),
]
Format = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="`kind`: hdp, senml, json (with `mappings`, `time`, `items`) or modbus (with `registers`, `poll_interval_ms`).",
        examples=[{"kind": "json", "mappings": [{"path": "$.p", "point": "power", "scale": 0.1}]}],
    ),
]


class NewDeviceProfile(Body):
    """A kind of device to be described; without a format its devices speak HDP."""

    organization_id: UUID
    name: Name
    description: Description | None = None
    expected_interval_s: ExpectedInterval | None = None
    points: Points = msgspec.field(default_factory=list)
    format: Format = msgspec.field(default_factory=lambda: {"kind": "hdp"})


class DeviceProfileChange(Body):
    """What changes of it; `points` and `format` are replaced as a whole."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    expected_interval_s: ExpectedInterval | UnsetType | None = UNSET
    points: Points | UnsetType = UNSET
    format: Format | UnsetType = UNSET


@get("/device-profiles")
async def list_device_profiles(
    acting: Acts,
    page: Paged,
    organization_id: FromQuery[UUID | None] = None,
    format_kind: FromQuery[FormatKind | None] = None,
) -> Page[DeviceProfile]:
    """List the device profiles that you may see; `q` looks in name and description."""
    filters = {"organization_id": organization_id, "format_kind": format_kind}
    return await acting.read(lambda work: desk.device_profiles(work, filtered(page, **filters)))


@post("/device-profiles")
async def create_device_profile(once: Acts, data: JSONBody[NewDeviceProfile]) -> DeviceProfile:
    """Describe a kind of device: its points, and how what it says becomes their values.

    What is left out is filled in, so the answer has every field there; a refusal names the entry (`format.registers[3].address`).
    """
    command = desk.CreateDeviceProfile(**given(data))
    return await once.run(lambda work: desk.create_device_profile(work, command), status=201)


@get("/device-profiles/{profile_id:uuid}")
async def get_device_profile(acting: Acts, profile_id: FromPath[UUID]) -> DeviceProfile:
    """Read a device profile."""
    return await acting.read(lambda work: desk.device_profile(work, profile_id))


@patch("/device-profiles/{profile_id:uuid}")
async def change_device_profile(
    acting: Acts, profile_id: FromPath[UUID], data: JSONBody[DeviceProfileChange], version: Version
) -> DeviceProfile:
    """Change a device profile: for all devices that have it, from their next word on.

    `points` and `format` are replaced as a whole, and must fit together afterwards.
    """
    command = desk.ChangeDeviceProfile(**given(data))
    return await acting.run(lambda work: desk.change_device_profile(work, profile_id, command, version=version))


@delete("/device-profiles/{profile_id:uuid}")
async def delete_device_profile(acting: Acts, profile_id: FromPath[UUID]) -> None:
    """Delete a device profile that no device has; else 409 says how many have it."""
    await acting.run(lambda work: desk.delete_device_profile(work, profile_id))


router = Router(
    path="/",
    tags=["device profiles"],
    route_handlers=[
        list_device_profiles,
        create_device_profile,
        get_device_profile,
        change_device_profile,
        delete_device_profile,
    ],
)
