"""The tables as statements name them. The schema itself is made by `migrations/` beside it; a test holds the two together."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, INET, JSONB, MACADDR, TIMESTAMP

metadata = sa.MetaData()

Timestamptz = TIMESTAMP(timezone=True)


def id_column() -> sa.Column[object]:
    """The key that the database makes unless it is given."""
    return sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.FetchedValue())


def version_columns() -> list[sa.Column[object]]:
    """What the row of a thing that people configure ends with."""
    return [
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", Timestamptz, nullable=False),
        sa.Column("updated_at", Timestamptz, nullable=False),
    ]


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
        sa.Column("unit_min", sa.Text),
        sa.Column("unit_max", sa.Text),
    ]


partner_companies = sa.Table(
    "partner_companies",
    metadata,
    id_column(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("contact_email", sa.Text),
    sa.Column("contact_phone", sa.Text),
    sa.Column("address", sa.Text),
    sa.Column("is_active", sa.Boolean, nullable=False),
    *version_columns(),
)

organizations = sa.Table(
    "organizations",
    metadata,
    id_column(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("updated_at", Timestamptz, nullable=False),
    sa.Column("partner_company_id", sa.Uuid, sa.ForeignKey(partner_companies.c.id)),
    sa.Column("industry", sa.Text),
    sa.Column("contact_email", sa.Text),
    sa.Column("contact_phone", sa.Text),
    sa.Column("address", sa.Text),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
)

establishments = sa.Table(
    "establishments",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, sa.ForeignKey(organizations.c.id), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("address", sa.Text),
    sa.Column("latitude", sa.Double),
    sa.Column("longitude", sa.Double),
    sa.Column("timezone", sa.Text, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    *version_columns(),
)

areas = sa.Table(
    "areas",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid, sa.ForeignKey(establishments.c.id), nullable=False),
    sa.Column("parent_area_id", sa.Uuid),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("floor", sa.Integer),
    sa.Column("metadata", JSONB, nullable=False),
    *version_columns(),
)

device_profiles = sa.Table(
    "device_profiles",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, sa.ForeignKey(organizations.c.id), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("expected_interval_s", sa.Integer),
    sa.Column("points", JSONB, nullable=False),
    sa.Column("format", JSONB, nullable=False),
    sa.Column("format_kind", sa.Text, sa.Computed("format ->> 'kind'"), nullable=False),
    *version_columns(),
)

devices = sa.Table(
    "devices",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, sa.ForeignKey(organizations.c.id), nullable=False),
    sa.Column("gateway_id", sa.Uuid),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("token_hash", BYTEA),
    sa.Column("is_enabled", sa.Boolean, nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("updated_at", Timestamptz, nullable=False),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("area_id", sa.Uuid),
    sa.Column("device_type", sa.Text, nullable=False),
    sa.Column("manufacturer", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("serial_number", sa.Text),
    sa.Column("mac_address", MACADDR),
    sa.Column("ip_address", INET),
    sa.Column("protocol", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("profile_id", sa.Uuid),
    sa.Column("modbus", JSONB(none_as_null=True)),
)

provisioning_keys = sa.Table(
    "provisioning_keys",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, sa.ForeignKey(organizations.c.id), nullable=False),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("profile_id", sa.Uuid),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("secret_hash", BYTEA, nullable=False),
    sa.Column("makes_devices", sa.Boolean, nullable=False),
    sa.Column("devices_max", sa.Integer, nullable=False),
    sa.Column("num_devices", sa.Integer, nullable=False),
    sa.Column("is_enabled", sa.Boolean, nullable=False),
    sa.Column("expires_at", Timestamptz),
    *version_columns(),
)

device_claims = sa.Table(
    "device_claims",
    metadata,
    sa.Column("device_id", sa.Uuid, sa.ForeignKey(devices.c.id), primary_key=True),
    sa.Column("code_hash", BYTEA, nullable=False),
    sa.Column("created_by", sa.Uuid),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("expires_at", Timestamptz),
)

device_attributes = sa.Table(
    "device_attributes",
    metadata,
    sa.Column("device_id", sa.Uuid, sa.ForeignKey(devices.c.id), primary_key=True),
    sa.Column("desired", JSONB, nullable=False),
    sa.Column("desired_version", sa.BigInteger, nullable=False),
    sa.Column("desired_at", Timestamptz),
    sa.Column("desired_by", sa.Uuid),
    sa.Column("reported", JSONB, nullable=False),
    sa.Column("reported_version", sa.BigInteger, nullable=False),
    sa.Column("reported_at", Timestamptz),
)

device_command_groups = sa.Table(
    "device_command_groups",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("created_by", sa.Uuid, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("params", JSONB, nullable=False),
    sa.Column("target", JSONB, nullable=False),
    sa.Column("deadline", Timestamptz, nullable=False),
    sa.Column("num_commands", sa.Integer, nullable=False),
    sa.Column("num_left_out", sa.Integer, nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
)

device_commands = sa.Table(
    "device_commands",
    metadata,
    id_column(),
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("device_id", sa.Uuid, nullable=False),
    sa.Column("group_id", sa.Uuid, sa.ForeignKey(device_command_groups.c.id)),
    sa.Column("created_by", sa.Uuid, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("params", JSONB, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("dispatch", sa.Text, nullable=False),
    sa.Column("deadline", Timestamptz, nullable=False),
    sa.Column("queued_at", Timestamptz, nullable=False),
    sa.Column("sent_at", Timestamptz),
    sa.Column("delivered_at", Timestamptz),
    sa.Column("finished_at", Timestamptz),
    sa.Column("result_at", Timestamptz),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("node", sa.Text),
    sa.Column("status", sa.BigInteger),
    sa.Column("message", sa.Text),
    sa.Column("result", JSONB(none_as_null=True)),
    sa.Column("sealed_params", BYTEA),
    sa.Column("named_places", JSONB(none_as_null=True)),
)

device_command_queues = sa.Table(
    "device_command_queues",
    metadata,
    sa.Column("device_id", sa.Uuid, primary_key=True),
    sa.Column("due_at", Timestamptz, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("claimed_by", sa.Uuid),
    sa.Column("claimed_until", Timestamptz),
)

device_events = sa.Table("device_events", metadata, *_event_columns())
device_events_hourly = sa.Table(
    "device_events_hourly", metadata, *_aggregate_columns(), sa.Column("value_square_deviation", sa.Double)
)
device_events_daily = sa.Table("device_events_daily", metadata, *_aggregate_columns())

late_hours = sa.Table(
    "late_hours",
    metadata,
    sa.Column("device_id", sa.Uuid, nullable=False),
    sa.Column("bucket", Timestamptz, nullable=False),
    sa.Column("marked_by", sa.BigInteger, nullable=False),
    sa.Column("marked_at", Timestamptz, nullable=False),
)

event_outbox = sa.Table(
    "event_outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    *_event_columns(),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", Timestamptz),
    sa.Column("last_error", sa.Text),
)

parked_events = sa.Table(
    "parked_events",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    *_event_columns(),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("parked_at", Timestamptz, nullable=False),
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
    sa.Column("source", sa.Text),
)

device_alarms = sa.Table(
    "device_alarms",
    metadata,
    id_column(),
    sa.Column("organization_id", sa.Uuid, nullable=False),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("device_id", sa.Uuid, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("message", sa.Text),
    sa.Column("value", sa.Double),
    sa.Column("unit", sa.Text),
    sa.Column("metadata", JSONB, nullable=False),
    sa.Column("num_reports", sa.Integer, nullable=False),
    sa.Column("raised_at", Timestamptz, nullable=False),
    sa.Column("last_reported_at", Timestamptz, nullable=False),
    sa.Column("cleared_at", Timestamptz),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("updated_at", Timestamptz, nullable=False),
)
