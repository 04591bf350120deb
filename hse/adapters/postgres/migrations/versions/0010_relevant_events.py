"""Retries of relevant events, alarms of devices, and signals for live streams."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0010_relevant_events"
down_revision = "0009_device_commands"


def upgrade() -> None:
    execute_sql_file("0010_relevant_events.sql")
