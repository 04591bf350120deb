"""The tables of the identity noun as statements name them; the others are in `tables`."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INET, JSONB

from hse.adapters.postgres.tables import Timestamptz, id_column, metadata, version_columns

actions = sa.Table(
    "actions",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("resource", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("exclusive_to", sa.SmallInteger),
    sa.Column("hierarchy_max", sa.SmallInteger, nullable=False),
)

roles = sa.Table(
    "roles",
    metadata,
    id_column(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("hierarchy", sa.SmallInteger, nullable=False),
    sa.Column("partner_company_id", sa.Uuid),
    sa.Column("organization_id", sa.Uuid),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("created_by", sa.Uuid),
    *version_columns(),
)

permissions = sa.Table(
    "permissions",
    metadata,
    sa.Column("role_id", sa.Uuid, sa.ForeignKey(roles.c.id), primary_key=True),
    sa.Column("action_name", sa.Text, sa.ForeignKey(actions.c.name), primary_key=True),
    sa.Column("granted_by", sa.Uuid),
    sa.Column("granted_at", Timestamptz, nullable=False),
)

users = sa.Table(
    "users",
    metadata,
    id_column(),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("first_name", sa.Text, nullable=False),
    sa.Column("last_name", sa.Text, nullable=False),
    sa.Column("role_id", sa.Uuid, sa.ForeignKey(roles.c.id), nullable=False),
    sa.Column("partner_company_id", sa.Uuid),
    sa.Column("organization_id", sa.Uuid),
    sa.Column("has_all_establishments", sa.Boolean, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("email_verified", sa.Boolean, nullable=False),
    sa.Column("onboarded_at", Timestamptz),
    *version_columns(),
)

user_establishments = sa.Table(
    "user_establishments",
    metadata,
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.id), primary_key=True),
    sa.Column("establishment_id", sa.Uuid, primary_key=True),
    sa.Column("role_id", sa.Uuid, sa.ForeignKey(roles.c.id)),
    sa.Column("assigned_by", sa.Uuid),
    sa.Column("assigned_at", Timestamptz, nullable=False),
)

credentials = sa.Table(
    "credentials",
    metadata,
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.id), primary_key=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("password_changed_at", Timestamptz, nullable=False),
    sa.Column("totp_sealed", BYTEA),
    sa.Column("totp_confirmed_at", Timestamptz),
    sa.Column("totp_last_counter", sa.BigInteger),
)

recovery_codes = sa.Table(
    "recovery_codes",
    metadata,
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.id), primary_key=True),
    sa.Column("code_hash", BYTEA, primary_key=True),
    sa.Column("used_at", Timestamptz),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("address", INET),
    sa.Column("user_agent", sa.Text),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("last_used_at", Timestamptz, nullable=False),
    sa.Column("expires_at", Timestamptz, nullable=False),
    sa.Column("revoked_at", Timestamptz),
    sa.Column("revoked_reason", sa.Text),
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("token_hash", BYTEA, primary_key=True),
    sa.Column("session_id", sa.Uuid, sa.ForeignKey(sessions.c.id), nullable=False),
    sa.Column("issued_at", Timestamptz, nullable=False),
    sa.Column("used_at", Timestamptz),
    sa.Column("successor_hash", BYTEA),
)

password_resets = sa.Table(
    "password_resets",
    metadata,
    sa.Column("token_hash", BYTEA, primary_key=True),
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("expires_at", Timestamptz, nullable=False),
    sa.Column("used_at", Timestamptz),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    id_column(),
    sa.Column("user_id", sa.Uuid, sa.ForeignKey(users.c.id), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("secret_hash", BYTEA, nullable=False),
    sa.Column("actions", ARRAY(sa.Text), nullable=False),
    sa.Column("requests_per_minute", sa.Integer, nullable=False),
    sa.Column("expires_at", Timestamptz),
    sa.Column("revoked_at", Timestamptz),
    sa.Column("last_used_at", Timestamptz),
    sa.Column("use_count", sa.BigInteger, nullable=False),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("updated_at", Timestamptz, nullable=False),
)

invitations = sa.Table(
    "invitations",
    metadata,
    id_column(),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("first_name", sa.Text, nullable=False),
    sa.Column("last_name", sa.Text, nullable=False),
    sa.Column("role_id", sa.Uuid, sa.ForeignKey(roles.c.id)),
    sa.Column("partner_company_id", sa.Uuid),
    sa.Column("organization_id", sa.Uuid),
    sa.Column("establishment_ids", ARRAY(sa.Uuid), nullable=False),
    sa.Column("has_all_establishments", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("token_hash", BYTEA, nullable=False),
    sa.Column("invited_by", sa.Uuid),
    sa.Column("sent_count", sa.Integer, nullable=False),
    sa.Column("expires_at", Timestamptz, nullable=False),
    sa.Column("answered_at", Timestamptz),
    sa.Column("user_id", sa.Uuid),
    *version_columns(),
)

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", Timestamptz, nullable=False),
    sa.Column("actor_kind", sa.Text, nullable=False),
    sa.Column("actor_id", sa.Uuid),
    sa.Column("api_key_id", sa.Uuid),
    sa.Column("address", INET),
    sa.Column("correlation_id", sa.Text),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("entity_type", sa.Text, nullable=False),
    sa.Column("entity_id", sa.Text),
    sa.Column("partner_company_id", sa.Uuid),
    sa.Column("organization_id", sa.Uuid),
    sa.Column("establishment_id", sa.Uuid),
    sa.Column("before", JSONB(none_as_null=True)),
    sa.Column("after", JSONB(none_as_null=True)),
)

outgoing_mail = sa.Table(
    "outgoing_mail",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("recipient", sa.Text, nullable=False),
    sa.Column("sealed", BYTEA),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", Timestamptz, nullable=False),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at", Timestamptz, nullable=False),
    sa.Column("sent_at", Timestamptz),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("principal_id", sa.Uuid, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", BYTEA, nullable=False),
    sa.Column("status", sa.SmallInteger),
    sa.Column("sealed", BYTEA),
    sa.Column("created_at", Timestamptz, nullable=False),
)
