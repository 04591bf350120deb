"""The hourly aggregates of a device are read from an index that holds all of them."""

from alembic import op

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0023_hours_by_device"
down_revision = "0022_device_entrance"


def upgrade() -> None:
    storage = op.get_bind().exec_driver_sql("select event_storage()").scalar_one()
    execute_sql_file(f"0023_hours_by_device_{storage}.sql")
