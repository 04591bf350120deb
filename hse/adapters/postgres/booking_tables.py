"""The tables of the booking noun as statements name them; the others are in `tables`."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB

from hse.adapters.postgres.tables import Timestamptz, id_column, metadata, version_columns

guests = sa.Table(
    "guests",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("first_name", sa.Text, nullable=False),
    sa.Column("last_name", sa.Text, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("phone", sa.Text),
    sa.Column("document_type", sa.Text),
    sa.Column("document_number", sa.Text),
    sa.Column("country", sa.Text),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("erased_at", Timestamptz),
    *version_columns(),
)

guest_companions = sa.Table(
    "guest_companions",
    metadata,
    sa.Column("guest_id", sa.Uuid, sa.ForeignKey(guests.c.id), primary_key=True),
    sa.Column("companion_id", sa.Uuid, sa.ForeignKey(guests.c.id), primary_key=True),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("relationship", sa.Text, nullable=False),
    sa.Column("added_at", Timestamptz, nullable=False),
)

booking_settings = sa.Table(
    "booking_settings",
    metadata,
    sa.Column("establishment_id", sa.Uuid, primary_key=True),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("check_in_margin_minutes", sa.Integer, nullable=False),
    sa.Column("check_out_margin_minutes", sa.Integer, nullable=False),
    sa.Column("no_show_grace_minutes", sa.Integer),
    sa.Column("code_deadline_minutes", sa.Integer, nullable=False),
    sa.Column("code_lead_hours", sa.Integer, nullable=False),
    sa.Column("check_out_reminder_minutes", sa.Integer, nullable=False),
    sa.Column("max_code_usages", sa.Integer),
    *version_columns(),
    sa.Column("notification_channels", ARRAY(sa.Text), nullable=False),
)

bookings = sa.Table(
    "bookings",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid, nullable=False),
    sa.Column("area_id", sa.Uuid, nullable=False),
    sa.Column("guest_id", sa.Uuid, nullable=False),
    sa.Column("check_in", Timestamptz, nullable=False),
    sa.Column("check_out", Timestamptz, nullable=False),
    sa.Column("free_from", Timestamptz, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("confirmation_code", sa.Text, nullable=False),
    sa.Column("special_requests", sa.Text),
    sa.Column("num_guests", sa.Integer, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("created_by", sa.Uuid),
    sa.Column("cancelled_at", Timestamptz),
    sa.Column("cancelled_by", sa.Uuid),
    sa.Column("cancellation_reason", sa.Text),
    *version_columns(),
)

booking_history = sa.Table(
    "booking_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("booking_id", sa.Uuid, nullable=False),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid, nullable=False),
    sa.Column("at", Timestamptz, nullable=False),
    sa.Column("user_id", sa.Uuid),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("area_id", sa.Uuid, nullable=False),
    sa.Column("guest_id", sa.Uuid, nullable=False),
    sa.Column("check_in", Timestamptz, nullable=False),
    sa.Column("check_out", Timestamptz, nullable=False),
    sa.Column("num_guests", sa.Integer, nullable=False),
    sa.Column("changed", ARRAY(sa.Text), nullable=False),
)

booking_queue = sa.Table(
    "booking_queue",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("booking_id", sa.Uuid, nullable=False),
    sa.Column("due_at", Timestamptz, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
)

booking_calendars = sa.Table(
    "booking_calendars",
    metadata,
    sa.Column("area_id", sa.Uuid, primary_key=True),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid, nullable=False),
    sa.Column("token_hash", BYTEA, nullable=False),
    sa.Column("created_by", sa.Uuid, nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
)
