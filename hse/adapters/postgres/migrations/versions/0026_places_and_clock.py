"""Commands remember where those stood whom they name, and the maintenance what its clock said."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0026_places_and_clock"
down_revision = "0025_guests_of_codes"


def upgrade() -> None:
    execute_sql_file("0026_named_devices.sql")
    execute_sql_file("0026_maintenance_clock.sql")
