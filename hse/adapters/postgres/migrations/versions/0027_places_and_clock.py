"""Commands remember where those stood whom they name, and the maintenance what its clock said."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0027_places_and_clock"
down_revision = "0024_named_dead_letters"


def upgrade() -> None:
    execute_sql_file("0027_named_devices.sql")
    execute_sql_file("0027_maintenance_clock.sql")
