"""The attributes of devices: what each is desired to be, and what it reported to be."""

import strawberry

from hse.api.bodies import given
from hse.api.graphql.connections import answer, reference
from hse.api.graphql.entities import DEVICES
from hse.api.graphql.mutations import changes_to
from hse.api.graphql.types import mirrors
from hse.api.rest import device_attributes as bodies
from hse.domain.devices import device_attributes as desk


@mirrors(desk.DeviceAttributes)
class DeviceAttributes:
    """A device's attributes."""

    device = reference(DEVICES, "device_id")


@strawberry.type
class DeviceAttributesQuery:
    """What may be read of attributes."""

    device_attributes = answer(
        desk.device_attributes, DeviceAttributes, "What the device with this id is desired and reported to be."
    )


@strawberry.type
class DeviceAttributesMutation:
    """What may be done with attributes."""

    change_device_attributes = changes_to(
        DeviceAttributes,
        bodies.DeviceAttributesChange,
        lambda wanted, _: desk.ChangeDeviceAttributes(**given(wanted)),
        desk.change_device_attributes,
    )
