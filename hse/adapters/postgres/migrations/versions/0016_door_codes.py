"""Door codes, and secret params of commands."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0016_door_codes"
down_revision = "0015_bookings"


def upgrade() -> None:
    execute_sql_file("0016_door_codes.sql")
