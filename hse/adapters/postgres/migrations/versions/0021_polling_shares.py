"""Which of several nodes polls what."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0021_polling_shares"
down_revision = "0020_dead_letter_sources"


def upgrade() -> None:
    execute_sql_file("0021_polling_shares.sql")
