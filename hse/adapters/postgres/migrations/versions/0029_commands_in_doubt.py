"""What was handed over in doubt stays in doubt."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0029_commands_in_doubt"
down_revision = "0024_named_dead_letters"


def upgrade() -> None:
    execute_sql_file("0029_commands_in_doubt.sql")
