"""Door codes of bookings and of locks, and how locks are looked after."""

import strawberry

from hse.api.bodies import given
from hse.api.graphql.connections import answer, connection, node_of, reference, single
from hse.api.graphql.entities import BOOKINGS, DEVICE_COMMANDS, DEVICES, DOOR_CODES, ESTABLISHMENTS, ORGANIZATIONS
from hse.api.graphql.mutations import acts, changes_to, makes_of
from hse.api.graphql.types import mirrors
from hse.api.rest import door_codes as bodies
from hse.domain.booking import door_code_views, door_codes


@mirrors(door_code_views.DoorCode)
class DoorCode:
    """A code of a lock."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    device = reference(DEVICES, "device_id")
    booking = reference(BOOKINGS, "booking_id")
    command = reference(DEVICE_COMMANDS, "command_id")


@mirrors(door_code_views.DoorLock)
class DoorLock:
    """How a lock is looked after."""

    device = reference(DEVICES, "device_id")


@strawberry.type
class DoorCodesQuery:
    """What may be read of door codes."""

    door_lock = answer(door_codes.door_lock, DoorLock, "How the lock with this device's id is looked after.")
    door_code = single(DOOR_CODES, door_codes.door_code)
    door_codes = connection(DOOR_CODES)


@strawberry.type
class DoorCodesMutation:
    """What may be done with door codes."""

    retry_door_code = acts(door_codes.retry_door_code, node_of(DOOR_CODES))
    pull_backup_code = makes_of(
        node_of(DOOR_CODES),
        bodies.BackupCodePull,
        lambda wanted: door_codes.PullBackupCode(**given(wanted)),
        door_codes.pull_backup_code,
    )
    change_door_lock = changes_to(
        DoorLock,
        bodies.DoorLockChange,
        lambda wanted, _: door_codes.ChangeDoorLock(**given(wanted)),
        door_codes.change_door_lock,
    )
