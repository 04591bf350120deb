"""${message}."""

from hse.adapters.postgres.migrate import execute_sql_file

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else 'execute_sql_file("' + up_revision + '.sql")'}
