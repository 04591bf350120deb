"""What devices ask for: their attributes, to be claimed; and what the children of a gateway are called."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0022_device_entrance"
down_revision = "0021_polling_shares"


def upgrade() -> None:
    execute_sql_file("0022_device_entrance.sql")
