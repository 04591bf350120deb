"""Whether what a command is for stands where it was sent to: who may command there may do nothing at another place."""

import sqlalchemy as sa

from hse.adapters.postgres.door_code_tables import door_lock_codes
from hse.adapters.postgres.tables import device_commands, devices


def _stands_there(*is_it: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return (
        sa.exists()
        .where(
            *is_it,
            devices.c.organization_id == device_commands.c.organization_id,
            devices.c.establishment_id.is_not_distinct_from(device_commands.c.establishment_id),
        )
        .correlate(device_commands)
    )


# A door code is for its lock: the gateway that is told of it may stand elsewhere.
IS_IN_PLACE = sa.or_(
    _stands_there(devices.c.id == device_commands.c.device_id),
    _stands_there(door_lock_codes.c.command_id == device_commands.c.id, devices.c.id == door_lock_codes.c.device_id),
)
