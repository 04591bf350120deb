"""The catalogue of actions and the system roles."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0007_catalogue"
down_revision = "0006_identity"


def upgrade() -> None:
    execute_sql_file("0007_catalogue.sql")
