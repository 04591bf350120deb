"""Users, roles, sessions, keys, invitations, the audit log."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0006_identity"
down_revision = "0005_organizations"


def upgrade() -> None:
    execute_sql_file("0006_identity.sql")
