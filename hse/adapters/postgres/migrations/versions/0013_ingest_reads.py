"""What the ingest core reads for the control plane."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0013_ingest_reads"
down_revision = "0012_history"


def upgrade() -> None:
    execute_sql_file("0013_ingest_reads.sql")
