"""A door code is of one guest, an erased guest is booked for no more, and calendars begin with what is to come."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0025_guests_of_codes"
down_revision = "0024_named_dead_letters"


def upgrade() -> None:
    execute_sql_file("0025_guests_of_codes.sql")
