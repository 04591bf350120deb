"""Device profiles: what devices of a kind measure, and how what they say becomes values."""

import strawberry

from hse.api.graphql.connections import connection, list_of, reference, single
from hse.api.graphql.entities import DEVICE_PROFILES, DEVICES, ORGANIZATIONS
from hse.api.graphql.mutations import acts, changes, creates
from hse.api.graphql.types import mirrors
from hse.api.rest import device_profiles as bodies
from hse.domain.devices import device_profiles as desk
from hse.domain.devices import profile_views as views


@mirrors(views.DeviceProfile)
class DeviceProfile:
    """A kind of device."""

    organization = reference(ORGANIZATIONS, "organization_id")
    devices = list_of(DEVICES, "profile_id")


@strawberry.type
class DeviceProfilesQuery:
    """What may be read of device profiles."""

    device_profile = single(DEVICE_PROFILES, desk.device_profile)
    device_profiles = connection(DEVICE_PROFILES)


@strawberry.type
class DeviceProfilesMutation:
    """What may be done with device profiles."""

    create_device_profile = creates(
        DEVICE_PROFILES, bodies.NewDeviceProfile, desk.CreateDeviceProfile, desk.create_device_profile
    )
    change_device_profile = changes(
        DEVICE_PROFILES, bodies.DeviceProfileChange, desk.ChangeDeviceProfile, desk.change_device_profile
    )
    delete_device_profile = acts(desk.delete_device_profile)
