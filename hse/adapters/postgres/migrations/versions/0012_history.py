"""What reading the history needs, in both forms of event storage."""

from alembic import op

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0012_history"
down_revision = "0011_api_key_version"


def upgrade() -> None:
    storage = op.get_bind().exec_driver_sql("select event_storage()").scalar_one()
    execute_sql_file("0012_history.sql")
    execute_sql_file(f"0012_history_{storage}.sql")
    execute_sql_file("0012_history_grants.sql")
