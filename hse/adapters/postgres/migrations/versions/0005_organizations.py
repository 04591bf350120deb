"""Partner companies, organisations, establishments, areas, and the place of a device."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0005_organizations"
down_revision = "0004_ingest_role"


def upgrade() -> None:
    execute_sql_file("0005_organizations.sql")
