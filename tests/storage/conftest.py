"""Databases of both forms. The TimescaleDB ones need a server with the extension: HSE_TEST_TIMESCALE_URL names it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.engine import create_engine, transaction
from hse.adapters.postgres.migrate import upgrade
from hse.adapters.postgres.tables import organizations


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """A new database on the server that `server_url` names any database of."""
    name = f"hse_test_{uuid4().hex}"
    url = sa.make_url(server_url)
    admin = create_engine(server_url).execution_options(isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(sa.text(f"create database {name}"))
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"drop database if exists {name} with (force)"))
        admin.dispose()


@pytest.fixture(scope="session")
def timescale_server_url() -> str:
    url = os.environ.get("HSE_TEST_TIMESCALE_URL")
    if not url:
        pytest.skip("HSE_TEST_TIMESCALE_URL is not set: no server with TimescaleDB to test on")
    return url


@contextmanager
def timescale_database(server_url: str) -> Iterator[str]:
    """A new migrated database whose jobs run when a test runs them: the scheduler's own run would come in between."""
    with empty_database(server_url) as url:
        upgrade(url, storage="timescaledb")
        with transaction(url) as connection:
            connection.execute(sa.text("select _timescaledb_functions.stop_background_workers()"))
        yield url


@pytest.fixture(scope="session")
def shared_timescale_url(timescale_server_url: str) -> Iterator[str]:
    """One TimescaleDB database for the tests that only add rows of their own devices: making one takes seconds."""
    with timescale_database(timescale_server_url) as url:
        yield url


@pytest.fixture
def timescale_engine(shared_timescale_url: str) -> Iterator[sa.Engine]:
    engine = create_engine(shared_timescale_url)
    yield engine
    engine.dispose()


@pytest.fixture
def plain_engine(database_url: str) -> Iterator[sa.Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["partitions", "timescaledb"])
def engine(request: pytest.FixtureRequest) -> sa.Engine:
    """A database of each form in turn."""
    name = "plain_engine" if request.param == "partitions" else "timescale_engine"
    found: sa.Engine = request.getfixturevalue(name)
    return found


@pytest.fixture
def organization_id(engine: sa.Engine) -> UUID:
    """A new organisation."""
    with engine.begin() as connection:
        made = connection.execute(sa.insert(organizations).values(name=uuid4().hex).returning(organizations.c.id))
        return UUID(str(made.scalar_one()))


@pytest.fixture
def core_url(engine: sa.Engine) -> str:
    """Where the core's role is taken on."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def core(core_url: str) -> Iterator[psycopg.Connection]:
    """A connection under the core's role."""
    with psycopg.connect(core_url, autocommit=True) as connection:
        connection.execute("set role hse_ingest")
        yield connection
