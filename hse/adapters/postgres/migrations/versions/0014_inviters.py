"""An invitation is as good as what its inviter could do now."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0014_inviters"
down_revision = "0013_ingest_reads"


def upgrade() -> None:
    execute_sql_file("0014_inviters.sql")
