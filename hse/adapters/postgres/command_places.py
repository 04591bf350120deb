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


# Whom the params name to a gateway, where each of them stood.
_named = sa.func.jsonb_each_text(device_commands.c.named_places).table_valued("key", "value", name="named")
_still_stands = sa.exists().where(
    devices.c.id == sa.cast(_named.c.key, sa.Uuid),
    devices.c.establishment_id.is_not_distinct_from(sa.cast(_named.c.value, sa.Uuid)),
)
_has_one_moved = sa.exists().select_from(_named).where(~_still_stands.correlate(_named)).correlate(device_commands)

# A door code is for its lock: the gateway that is told of it may stand elsewhere.
IS_IN_PLACE = sa.and_(
    sa.or_(
        _stands_there(devices.c.id == device_commands.c.device_id),
        _stands_there(
            door_lock_codes.c.command_id == device_commands.c.id, devices.c.id == door_lock_codes.c.device_id
        ),
    ),
    ~_has_one_moved,
)
