"""The tables of notifications as statements name them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA

from hse.adapters.postgres.tables import Timestamptz, id_column, metadata, version_columns

notification_templates = sa.Table(
    "notification_templates",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    *version_columns(),
)

booking_notifications = sa.Table(
    "booking_notifications",
    metadata,
    id_column(),
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid, nullable=False),
    sa.Column("booking_id", sa.Uuid, nullable=False),
    sa.Column("guest_id", sa.Uuid, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("terms", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("is_withdrawn", sa.Boolean, nullable=False),
    sa.Column("may_have_left", sa.Boolean, nullable=False),
    sa.Column("language", sa.Text),
    sa.Column("recipient", sa.Text),
    sa.Column("sealed_content", BYTEA),
    sa.Column("num_attempts", sa.Integer, nullable=False),
    sa.Column("num_tries", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", Timestamptz, nullable=False),
    sa.Column("sent_at", Timestamptz),
    *version_columns(),
    sa.Column("template_id", sa.Uuid),
    sa.Column("template_version", sa.BigInteger),
)
