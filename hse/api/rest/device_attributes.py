"""The attributes of devices: what each is desired to be, and what it reported to be."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get, patch
from litestar.params import FromPath, JSONBody

from hse.api.acting import Acts, Version
from hse.api.bodies import Body, given
from hse.domain.devices import device_attributes as desk
from hse.domain.devices.device_attributes import DeviceAttributes

Desired = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="Merged into what is there (RFC 7396): null takes an attribute away, objects are merged, all else is replaced.",
        examples=[{"interval_s": 60, "display": {"brightness": 40}, "old": None}],
    ),
]


class DeviceAttributesChange(Body):
    """What is merged into what the device is desired to be."""

    desired: Desired


@get("/devices/{device_id:uuid}/attributes")
async def get_device_attributes(acting: Acts, device_id: FromPath[UUID]) -> DeviceAttributes:
    """Read what a device is desired to be, what it reported to be, and what of the one is not so in the other.

    The ETag is the version of what is desired; reports do not change it.
    """
    return await acting.read(lambda work: desk.device_attributes(work, device_id))


@patch("/devices/{device_id:uuid}/attributes")
async def change_device_attributes(
    acting: Acts, device_id: FromPath[UUID], data: JSONBody[DeviceAttributesChange], version: Version
) -> DeviceAttributes:
    """Change what a device is desired to be. It is told of it when it is there, and of what is desired then, when it was not.

    16 KiB of JSON at most, 8 levels deep. The audit log holds the names of what changed, and no values.
    """
    command = desk.ChangeDeviceAttributes(**given(data))
    return await acting.run(lambda work: desk.change_device_attributes(work, device_id, command, version=version))


router = Router(path="/", tags=["devices"], route_handlers=[get_device_attributes, change_device_attributes])
