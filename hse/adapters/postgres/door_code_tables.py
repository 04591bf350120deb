"""The tables of door codes as statements name them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA

from hse.adapters.postgres.tables import Timestamptz, id_column, metadata, version_columns

door_locks = sa.Table(
    "door_locks",
    metadata,
    sa.Column("device_id", sa.Uuid, primary_key=True),
    sa.Column("num_backup_codes", sa.Integer, nullable=False),
    sa.Column("wrong_codes_max", sa.Integer, nullable=False),
    sa.Column("wrong_codes_minutes", sa.Integer, nullable=False),
    sa.Column("configured_by", sa.Uuid, nullable=False),
    *version_columns(),
)

door_lock_codes = sa.Table(
    "door_lock_codes",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("device_id", sa.Uuid, nullable=False),
    sa.Column("booking_id", sa.Uuid),
    sa.Column("created_by", sa.Uuid),
    sa.Column("is_backup", sa.Boolean, nullable=False),
    sa.Column("sealed_code", BYTEA),
    sa.Column("code_mac", BYTEA),
    sa.Column("valid_from", Timestamptz, nullable=False),
    sa.Column("valid_until", Timestamptz, nullable=False),
    sa.Column("max_usages", sa.Integer),
    sa.Column("decided_at", Timestamptz, nullable=False),
    sa.Column("deadline", Timestamptz, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("on_lock_from", Timestamptz),
    sa.Column("on_lock_until", Timestamptz),
    sa.Column("on_lock_max_usages", sa.Integer),
    sa.Column("may_be_on_lock", sa.Boolean, nullable=False),
    sa.Column("told", sa.Text),
    sa.Column("told_from", Timestamptz),
    sa.Column("told_until", Timestamptz),
    sa.Column("told_max_usages", sa.Integer),
    sa.Column("num_tries", sa.Integer, nullable=False),
    sa.Column("not_before", Timestamptz),
    sa.Column("command_id", sa.Uuid),
    sa.Column("num_commands", sa.BigInteger, nullable=False),
    sa.Column("usage_count", sa.BigInteger, nullable=False),
    sa.Column("last_used_at", Timestamptz),
    sa.Column("ended_at", Timestamptz),
    *version_columns(),
    sa.Column("guest_id", sa.Uuid),
)
