"""What the drain keeps beside the events."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0002_ingest"
down_revision = "0001_registry"


def upgrade() -> None:
    execute_sql_file("0002_ingest.sql")
