"""Brings a database to the schema in `migrations/` beside this file, forward only: going back is restoring a backup."""

from functools import cache
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from hse.adapters.postgres.engine import create_engine

# Within the package, so that an installed one brings its schema along.
MIGRATIONS_PATH = Path(__file__).resolve().parent / "migrations"

EventStorage = Literal["auto", "timescaledb", "partitions"]

# Held to the end of the transaction, so that of several nodes started at once one migrates and the others find it done.
LOCK_UPGRADE = sa.text("select pg_advisory_xact_lock(hashtext('hse.migrate'))")


class MigrationsMissing(Exception):
    """The package is installed without its `migrations/` folder."""


def upgrade(database_url: str, *, storage: EventStorage = "auto") -> None:
    """Runs the missing migrations in one transaction; none are missing the second time.

    `storage` chooses the form of the event tables when they are made: with "auto" TimescaleDB where the server has it.
    """
    config = _config()
    engine = create_engine(database_url)
    try:
        with engine.begin() as connection:
            connection.execute(LOCK_UPGRADE)
            config.attributes["connection"] = connection
            config.attributes["storage"] = storage
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def current(database_url: str) -> str | None:
    """The revision the database stands at; None before the first migration."""
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def head() -> str:
    """The revision that `upgrade` leads to."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise MigrationsMissing(f"no revision in {MIGRATIONS_PATH}")
    return revision


@cache
def older_revisions() -> frozenset[str]:
    """Every revision that this program knows, but the newest."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return frozenset(script.revision for script in scripts) - {head()}


def execute_sql_file(name: str) -> None:
    """Runs `migrations/sql/<name>` as it stands: no placeholders, any number of statements. For revisions."""
    sql = (MIGRATIONS_PATH / "sql" / name).read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def _config() -> Config:
    if not MIGRATIONS_PATH.is_dir():
        raise MigrationsMissing(f"{MIGRATIONS_PATH} is not there: install the package anew")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_PATH).replace("%", "%%"))
    return config
