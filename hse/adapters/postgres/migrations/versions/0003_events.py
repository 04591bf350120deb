"""The events and their hourly and daily aggregates, in one of two forms with the same names and columns."""

from alembic import op

from hse.adapters.postgres.migrate import execute_sql_file

revision = "0003_events"
down_revision = "0002_ingest"

# The first version whose columnstore is set up by these names.
TIMESCALEDB_VERSION_MIN = (2, 18)


def upgrade() -> None:
    context = op.get_context()
    if context.config is None:
        raise RuntimeError("run through hse.adapters.postgres.migrate.upgrade")
    storage = context.config.attributes["storage"]
    obstacle = None if storage == "partitions" else why_not_timescaledb()
    if storage == "timescaledb" and obstacle is not None:
        raise RuntimeError(f"TimescaleDB was asked for, but {obstacle}")
    if storage == "partitions" or obstacle is not None:
        execute_sql_file("0003_events_partitions.sql")
    else:
        op.execute("create extension if not exists timescaledb")
        execute_sql_file("0003_events_timescaledb.sql")


def why_not_timescaledb() -> str | None:
    """Says what keeps this server from the TimescaleDB form; None when nothing does."""
    bind = op.get_bind()
    version = bind.exec_driver_sql(
        "select default_version from pg_available_extensions where name = 'timescaledb'"
    ).scalar()
    if version is None:
        return "the server does not have the extension"
    if tuple(int(part) for part in version.split(".")[:2]) < TIMESCALEDB_VERSION_MIN:
        return f"its version {version} is older than {'.'.join(map(str, TIMESCALEDB_VERSION_MIN))}"
    # Its loader defines this setting. Without the loader, creating the extension ends the connection.
    if bind.exec_driver_sql("select current_setting('timescaledb.max_background_workers', true)").scalar() is None:
        return "it is not in shared_preload_libraries"
    if bind.exec_driver_sql("select current_setting('timescaledb.license', true)").scalar() == "apache":
        return "this build has neither columnstore nor continuous aggregates (timescaledb.license is apache)"
    return None
