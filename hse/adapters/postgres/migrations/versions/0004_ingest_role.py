"""The least-privileged role of the ingest core."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0004_ingest_role"
down_revision = "0003_events"


def upgrade() -> None:
    execute_sql_file("0004_ingest_role.sql")
