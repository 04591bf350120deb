"""API keys have a version, as they can be changed."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0011_api_key_version"
down_revision = "0010_relevant_events"


def upgrade() -> None:
    execute_sql_file("0011_api_key_version.sql")
