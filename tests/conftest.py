"""Real servers for the tests: one PostgreSQL and one Valkey a session, a fresh migrated database a test."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from hse.embedded import ports
from hse.embedded.ports import free_ports
from hse.embedded.postgres import EmbeddedPostgres, prepare_postgres
from hse.embedded.valkey import EmbeddedValkey, prepare_valkey

START_SECONDS_MAX = 30.0
TEMPLATE = "template_hse"

# The cluster of the session outlives no test run, so it need not outlive a power cut. Tests that kill servers make their own.
TEST_SETTINGS = {"fsync": "off", "shared_buffers": "128MB", "max_connections": "200", "max_wal_size": "256MB"}
MEMORY_BYTES_MIN = 4 << 30
# How many processes run tests at once, and those that take the place of some.
SHARES = 6


def pytest_configure() -> None:
    """Give each process that runs tests ports of its own: none is taken by another between the choice and the bind."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        num_ports = (ports.LAST_PORT - ports.FIRST_PORT) // SHARES
        ports.FIRST_PORT += int(worker.removeprefix("gw")) % SHARES * num_ports
        ports.LAST_PORT = ports.FIRST_PORT + num_ports - 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several tests with one id only one would run where tests are handed out to several processes."""
    twice = [node_id for node_id, number in Counter(item.nodeid for item in items).items() if number > 1]
    if twice:
        raise pytest.UsageError(f"ids of several tests: {', '.join(twice[:3])}")


def wait_until(is_true: Callable[[], bool], what: str, *, seconds: float = START_SECONDS_MAX) -> None:
    """Wait for a condition; fail with its name when it does not come about."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            pytest.fail(f"after {seconds} s still not: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(server: EmbeddedPostgres | EmbeddedValkey, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run an embedded server, from ready to gone."""
    with log.open("ab") as output:
        process = subprocess.Popen(server.command(), env=server.environment(), cwd="/", stdout=output, stderr=output)
    try:

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return server.is_ready()

        wait_until(is_ready, f"{server.name} takes connections")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(server.death_signal)
            process.wait(START_SECONDS_MAX)


@contextlib.contextmanager
def fast_directory() -> Iterator[Path]:
    """A directory in memory, where there is enough of it: every test makes a database, which is a thousand files."""
    memory = Path("/dev/shm")  # noqa: S108 (what is made in it has a name of its own)
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES_MIN
    with tempfile.TemporaryDirectory(prefix="hse-tests-", dir=memory if has_room else None) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """The session's cluster."""
    with fast_directory() as home:
        server = prepare_postgres(home, port=free_ports(1)[0], settings=TEST_SETTINGS)
        with running(server, home / "postgres.log"):
            yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """The session's Valkey."""
    home = tmp_path_factory.mktemp("valkey")
    server = prepare_valkey(home, port=free_ports(1)[0])
    with running(server, home / "valkey.log"):
        yield server


@pytest.fixture(scope="session")
def valkey_url(valkey_server: EmbeddedValkey) -> str:
    """The session's Valkey; a test that writes uses keys of its own."""
    return valkey_server.url()


@contextlib.contextmanager
def a_database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    # FILE_COPY makes two checkpoints, which without fsync cost less than the WAL-logged copy of every page.
    create = sql.SQL("create database {} template {} strategy file_copy").format(
        sql.Identifier(name), sql.Identifier(template)
    )
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(create)
    try:
        yield server.url(name)
    finally:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database with nothing in it, gone after the test."""
    with a_database(postgres_server, "template0") as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """The name of a database that holds the whole schema and no rows."""
    from hse.adapters.postgres.migrate import upgrade

    postgres_server.ensure_database(TEMPLATE)
    upgrade(postgres_server.url(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """A fresh migrated database, gone after the test."""
    with a_database(postgres_server, migrated_template) as url:
        yield url
