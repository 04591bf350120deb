"""The tables as statements name them. The schema itself is made by `migrations/`; a test holds the two together."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP

metadata = sa.MetaData()

Timestamptz = TIMESTAMP(timezone=True)


def _event_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("time", Timestamptz, nullable=False),
        sa.Column("device_id", sa.Uuid, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("unit", sa.Text),
        sa.Column("metadata", JSONB),
        sa.Column("source", sa.Text),
    ]


def _aggregate_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("bucket", Timestamptz, nullable=False),
        sa.Column("device_id", sa.Uuid, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("value_count", sa.BigInteger, nullable=False),
        sa.Column("value_sum", sa.Double),
        sa.Column("value_avg", sa.Double),
        sa.Column("value_min", sa.Double),
        sa.Column("value_max", sa.Double),
    ]


organizations = sa.Table(
    "organizations",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.FetchedValue()),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("updated_at", Timestamptz, nullable=False),
)

devices = sa.Table(
    "devices",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.FetchedValue()),
    sa.Column("organization_id", sa.Uuid, sa.ForeignKey(organizations.c.id), nullable=False),
    sa.Column("gateway_id", sa.Uuid),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("token_hash", BYTEA),
    sa.Column("is_enabled", sa.Boolean, nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("updated_at", Timestamptz, nullable=False),
)

device_events = sa.Table("device_events", metadata, *_event_columns())
device_events_hourly = sa.Table("device_events_hourly", metadata, *_aggregate_columns())
device_events_daily = sa.Table("device_events_daily", metadata, *_aggregate_columns())

event_outbox = sa.Table(
    "event_outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    *_event_columns(),
    sa.Column("created_at", Timestamptz, nullable=False),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("device_id", sa.Uuid, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("received_at", Timestamptz, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("event", BYTEA, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", Timestamptz),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("updated_at", Timestamptz, nullable=False),
)
