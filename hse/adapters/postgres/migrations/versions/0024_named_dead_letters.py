"""Dead letters are counted and shown at their device, and bounded."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0024_named_dead_letters"
down_revision = "0023_hours_by_device"


def upgrade() -> None:
    execute_sql_file("0024_named_dead_letters.sql")
