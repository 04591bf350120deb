"""Guests, bookings, their settings, history and calendars, and the queue from which the worker takes them."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0015_bookings"
down_revision = "0014_inviters"


def upgrade() -> None:
    execute_sql_file("0015_bookings.sql")
