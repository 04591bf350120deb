"""Migrations: run twice, run by many at once, and the form they choose."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from hse.adapters.postgres import migrate
from hse.adapters.postgres.booking_tables import bookings
from hse.adapters.postgres.door_code_tables import door_lock_codes
from hse.adapters.postgres.engine import create_engine, transaction
from hse.adapters.postgres.identity_tables import users
from hse.adapters.postgres.notification_tables import booking_notifications
from tests.checks.sources import ROOT, tracked
from tests.storage.conftest import empty_database


def event_storage(database_url: str) -> str:
    with transaction(database_url) as connection:
        return str(connection.execute(sa.text("select event_storage()")).scalar_one())


def test_upgrading_twice_changes_nothing(empty_database_url: str) -> None:
    assert migrate.current(empty_database_url) is None
    migrate.upgrade(empty_database_url)
    assert migrate.current(empty_database_url) == migrate.head()
    with transaction(empty_database_url) as connection:
        connection.execute(sa.text("insert into organizations (name) values ('kept')"))
    migrate.upgrade(empty_database_url)
    with transaction(empty_database_url) as connection:
        assert connection.execute(sa.text("select name from organizations")).scalar_one() == "kept"


def test_an_installed_package_brings_its_schema_along(empty_database_url: str, tmp_path: Path) -> None:
    """As a wheel holds it: what stands below `hse`, and nothing of what stands beside it in a checkout."""
    for path in tracked():
        if path.is_relative_to(ROOT / "hse"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HSE_")}
    environment |= {"HSE_DATABASE_URL": empty_database_url, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "hse", "migrate"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert migrate.head() in done.stdout
    assert migrate.current(empty_database_url) == migrate.head()
    where = [
        sys.executable,
        "-c",
        "import hse.api.document as page; print(page.asset('page.js').decode()); print(page.__file__)",
    ]
    served = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "SwaggerUIBundle" in served.stdout
    assert str(tmp_path) in served.stdout


def test_many_may_upgrade_at_once(empty_database_url: str) -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        for done in [pool.submit(migrate.upgrade, empty_database_url) for _ in range(4)]:
            done.result()
    assert migrate.current(empty_database_url) == migrate.head()
    assert event_storage(empty_database_url) in {"partitions", "timescaledb"}


def test_an_upgrade_that_fails_leaves_nothing_behind(empty_database_url: str) -> None:
    with transaction(empty_database_url) as connection:
        connection.execute(sa.text("create table dead_letters (in_the_way int)"))
    with pytest.raises(sa.exc.ProgrammingError, match="already exists"):
        migrate.upgrade(empty_database_url)
    assert migrate.current(empty_database_url) is None
    with transaction(empty_database_url) as connection:
        assert sa.inspect(connection).get_table_names() == ["dead_letters"]


def test_timescaledb_is_refused_with_a_reason_where_it_is_not(empty_database_url: str) -> None:
    with transaction(empty_database_url) as connection:
        if connection.execute(sa.text("select current_setting('timescaledb.max_background_workers', true)")).scalar():
            pytest.skip("this server has TimescaleDB")
    with pytest.raises(RuntimeError, match="TimescaleDB was asked for, but"):
        migrate.upgrade(empty_database_url, storage="timescaledb")


def test_a_server_with_timescaledb_gets_the_hypertable_unless_told_otherwise(
    shared_timescale_url: str, timescale_server_url: str
) -> None:
    assert event_storage(shared_timescale_url) == "timescaledb"
    with empty_database(timescale_server_url) as url:
        migrate.upgrade(url, storage="partitions")
        assert event_storage(url) == "partitions"
        migrate.upgrade(url)
        assert event_storage(url) == "partitions"


def test_the_tables_of_the_statements_are_those_of_the_schema(engine: sa.Engine) -> None:
    """Also what makes the two forms one to a reader: names, order and types of every column."""
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        for one in (bookings, door_lock_codes, booking_notifications):
            assert one.metadata is users.metadata
        for table in users.metadata.sorted_tables:
            found = {column["name"]: column for column in inspector.get_columns(table.name)}
            unnamed = {"is_child", "gateway_is_child"} if table.name == "devices" else set()
            assert [one for one in found if one not in unnamed] == [column.name for column in table.columns]
            for column in table.columns:
                assert found[column.name]["type"].compile(connection.dialect) == column.type.compile(connection.dialect)


def test_no_constraint_or_trigger_slows_the_events(plain_engine: sa.Engine) -> None:
    with plain_engine.connect() as connection:
        for query in (
            "select count(*) from pg_trigger where tgrelid = 'device_events'::regclass",
            "select count(*) from pg_constraint where conrelid = 'device_events'::regclass and contype <> 'n'",
        ):
            assert connection.execute(sa.text(query)).scalar_one() == 0
        indexes = connection.execute(sa.text("select indexname from pg_indexes where tablename = 'device_events'"))
        assert indexes.scalars().all() == ["device_events_device_time"]


def test_the_url_may_be_spelled_as_psql_takes_it(database_url: str) -> None:
    url = sa.make_url(database_url)
    for drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        engine = create_engine(url.set(drivername=drivername).render_as_string(hide_password=False))
        with engine.connect() as connection:
            assert connection.execute(sa.text("show timezone")).scalar_one() == "UTC"
        engine.dispose()
