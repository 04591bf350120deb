"""By which door a dead letter came in."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0020_dead_letter_sources"
down_revision = "0019_device_profiles"


def upgrade() -> None:
    execute_sql_file("0020_dead_letter_sources.sql")
