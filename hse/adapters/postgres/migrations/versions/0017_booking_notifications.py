"""What guests are told of their bookings."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0017_booking_notifications"
down_revision = "0016_door_codes"


def upgrade() -> None:
    execute_sql_file("0017_booking_notifications.sql")
