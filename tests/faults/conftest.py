"""One PostgreSQL for the session, which tests may kill; per test a recorder, a checker, devices, and cores that end with it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.api.world import World
from tests.faults.cache import Cache
from tests.faults.certificates import write_certificate
from tests.faults.checker import Checker
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials, Peer

NewCore = Callable[..., Core]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The session's PostgreSQL, migrated."""
    database = Database(tmp_path_factory.mktemp("faults-postgres"))
    try:
        asyncio.run(database.create())
        yield database
    finally:
        asyncio.run(database.clean_up())


@pytest.fixture
def database(cluster: Database) -> Database:
    """The session's PostgreSQL, running, whatever the test before did to it."""
    asyncio.run(cluster.ensure_running())
    return cluster


@pytest.fixture(scope="session")
def people(cluster: Database) -> World:
    """Those who may ask the control plane for something, and its login at the database."""
    asyncio.run(cluster.ensure_running())
    cluster.server.ensure_api_login()
    return World(cluster.url)


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Cache]:
    """A Valkey of the test's own."""
    made = Cache(tmp_path / "valkey-home")
    await made.start()
    yield made
    await made.clean_up()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """The test's record of sends and answers."""
    made = Recorder(tmp_path / "record")
    yield made
    made.close()


@pytest.fixture
def checker(recorder: Recorder, database: Database) -> Checker:
    """The judge of that record."""
    return Checker(recorder.path, database.url)


@pytest.fixture
def fleet(database: Database) -> list[Credentials]:
    """Six devices of one organisation."""
    return database.add_devices(6)


@pytest.fixture
def device(database: Database) -> Credentials:
    """One device."""
    return database.add_devices(1)[0]


@pytest.fixture(autouse=True)
async def no_connection_is_left_open() -> AsyncIterator[None]:
    """Drop the connections that a test left open."""
    yield
    for peer in list(Peer.still_open):
        peer.abort()
    await asyncio.sleep(0)


@pytest.fixture
def new_core(tmp_path: Path, database: Database) -> Iterator[NewCore]:
    """Make cores, each with a data directory of its own unless one is given; none outlives the test."""
    made: list[Core] = []

    def make(data_dir: Path | None = None, database_url: str | None = None, **settings: object) -> Core:
        core = Core(data_dir or tmp_path / f"core-{len(made)}", database_url or database.url, **settings)
        made.append(core)
        return core

    yield make
    for core in made:
        core.clean_up()
        print(f"--- the end of {core.log_path.name}\n{core.tail()}")


@contextlib.contextmanager
def lasting(core: Core, cluster: Database) -> Iterator[None]:
    """Run a core for the many small tests of a module."""
    try:
        asyncio.run(cluster.ensure_running())
        asyncio.run(core.started())
        yield
    finally:
        core.clean_up()
        print(f"--- the end of {core.log_path.name}\n{core.tail()}")


@pytest.fixture(scope="module")
def shared_core_process(cluster: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """One core for the many small tests of a module, with TLS."""
    directory = tmp_path_factory.mktemp("shared-core")
    certificate, key = write_certificate(directory)
    core = Core(directory / "core", cluster.url, tls_certificate_path=certificate, tls_key_path=key)
    with lasting(core, cluster):
        yield core


@pytest.fixture
def shared_core(shared_core_process: Core, device: Credentials) -> Core:
    """The module's core, when it knows the test's device."""
    asyncio.run(knows(shared_core_process, device))
    return shared_core_process


async def knows(core: Core, device: Credentials) -> None:
    """Wait until the core's registry has the device; an epoch of 0 leaves its sequence numbers alone."""
    deadline = time.monotonic() + 3
    while True:
        peer = await Peer.dial(core.port)
        answer = await peer.ask("hello", **device.hello(epoch=0))
        await peer.close()
        if answer.name == "welcome":
            return
        assert time.monotonic() < deadline, answer
