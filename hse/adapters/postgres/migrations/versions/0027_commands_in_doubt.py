"""What was handed over in doubt stays in doubt."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0027_commands_in_doubt"
down_revision = "0026_places_and_clock"


def upgrade() -> None:
    execute_sql_file("0027_commands_in_doubt.sql")
