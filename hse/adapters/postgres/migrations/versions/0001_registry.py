"""Organisations and devices."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0001_registry"
down_revision = None


def upgrade() -> None:
    execute_sql_file("0001_registry.sql")
