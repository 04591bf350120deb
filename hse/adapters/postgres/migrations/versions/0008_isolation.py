"""Row-level security for the api's role."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0008_isolation"
down_revision = "0007_catalogue"


def upgrade() -> None:
    execute_sql_file("0008_isolation.sql")
