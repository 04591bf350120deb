"""Commands to devices."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0009_device_commands"
down_revision = "0008_isolation"


def upgrade() -> None:
    execute_sql_file("0009_device_commands.sql")
