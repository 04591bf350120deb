"""Nodes, workers, devices and their commands, on the session's PostgreSQL and Valkey."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from hse.adapters.dispatch.dispatcher import Dispatch
from hse.adapters.ingest import NodeCredentials
from hse.adapters.postgres.engine import create_engine
from hse.adapters.sealing import Sealer
from hse.adapters.worker_metrics import WorkerMetrics
from hse.embedded.tether import tethered
from tests.api.world import SECRET_KEY
from tests.conftest import wait_until
from tests.link.node import TOKEN, FakeNode

# A database of Valkey of its own: nodes are registered under names that all tests share.
VALKEY_DATABASE = 7
SECONDS_MAX = 45.0


class Site:
    """An organisation with devices, and what is sent to them."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.organization_id = uuid4()
        self.execute("insert into organizations (id, name) values (%s, 'Acme')", self.organization_id)

    def execute(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Run a statement in a transaction of its own; the rows that it returns."""
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def add_device(self) -> UUID:
        """Register a device."""
        device_id = uuid4()
        self.execute(
            "insert into devices (id, organization_id, name) values (%s, %s, %s)",
            *(device_id, self.organization_id, str(device_id)),
        )
        return device_id

    def send(
        self, device_id: UUID, kind: str = "ping", *, seconds: float = 600, params: dict[str, Any] | None = None
    ) -> UUID:
        """Queue a command, as the api does."""
        (row,) = self.execute(
            "insert into device_commands (organization_id, device_id, created_by, type, params, deadline)"
            " values (%s, %s, %s, %s, %s, now() + make_interval(secs => %s)) returning id",
            *(self.organization_id, device_id, uuid4(), kind, Jsonb(params or {}), seconds),
        )
        found: UUID = row["id"]
        return found

    def command(self, command_id: UUID) -> dict[str, Any]:
        """A command as it stands."""
        (row,) = self.execute("select * from device_commands where id = %s", command_id)
        return row

    def states(self, *command_ids: UUID) -> list[str]:
        """The states of commands."""
        return [self.command(one)["state"] for one in command_ids]

    def becomes(self, command_id: UUID, *states: str) -> dict[str, Any]:
        """Wait until a command is in one of these states."""
        wait_until(
            lambda: self.command(command_id)["state"] in states,
            f"the command is {' or '.join(states)}",
            seconds=SECONDS_MAX,
        )
        return self.command(command_id)

    def let_claims_run_out(self) -> None:
        """As if half a minute had passed since the last word of every worker."""
        self.execute(
            "update device_command_queues set claimed_until = now() - interval '1 s', due_at = now() - interval '1 s'"
        )

    def event(self, device_id: UUID, metadata: dict[str, Any], time: datetime, source: str | None = "core") -> "Event":
        """An answer that came through the journal."""
        return Event(device_id, time, metadata, source)


class Event:
    """A row of the outbox."""

    def __init__(self, device_id: UUID, time: datetime, metadata: dict[str, Any], source: str | None) -> None:
        self.device_id = device_id
        self.time = time
        self.metadata = metadata
        self.source = source


@pytest.fixture
def site(database_url: str) -> Site:
    """An organisation."""
    return Site(database_url)


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """A database of Valkey with nothing in it."""
    url = urlsplit(valkey_url)._replace(path=f"/{VALKEY_DATABASE}").geturl()
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def new_node(redis_url: str) -> Iterator[Callable[[str], FakeNode]]:
    """Make nodes that serve and are registered."""
    made: list[FakeNode] = []

    def make(name: str) -> FakeNode:
        node = FakeNode(name)
        node.start()
        node.register(redis_url)
        made.append(node)
        return node

    yield make
    for node in made:
        node.is_held.clear()
        node.is_mute.clear()
        node.stop()


@pytest.fixture
def node(new_node: Callable[[str], FakeNode]) -> FakeNode:
    """One node."""
    return new_node("n1")


class Worker:
    """The part of a worker that sends commands."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, database_url: str, redis_url: str, secret_key: str | None
    ) -> None:
        self.metrics = WorkerMetrics()
        self._loop = loop
        self._engine = create_engine(database_url)
        self._stopping = asyncio.Event()
        dispatch = Dispatch(
            engine=self._engine,
            database_url=database_url,
            redis_url=redis_url,
            fixed_nodes=(),
            credentials=NodeCredentials(token=TOKEN),
            metrics=self.metrics,
            sealer=None if secret_key is None else Sealer(secret_key),
        )
        self._is_ended = False
        self._working = asyncio.run_coroutine_threadsafe(dispatch.work(self._stopping), loop)

    def end(self) -> None:
        """Stop it, and wait."""
        if self._is_ended:
            return
        self._is_ended = True
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._working.result(SECONDS_MAX)
        self._engine.dispose()


class NewWorker(Protocol):
    """Makes a worker, with the key that sealed things are opened with."""

    def __call__(self, secret_key: str | None = SECRET_KEY) -> Worker:
        """A worker that is ended after the test, or before."""


@pytest.fixture(scope="session")
def worker_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The one event loop of this process that speaks gRPC: with several its library mixes up whose answers are whose."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def new_worker(worker_loop: asyncio.AbstractEventLoop, database_url: str, redis_url: str) -> Iterator[NewWorker]:
    """Make workers; none outlives the test."""
    made: list[Worker] = []

    def make(secret_key: str | None = SECRET_KEY) -> Worker:
        made.append(Worker(worker_loop, database_url, redis_url, secret_key))
        return made[-1]

    yield make
    for worker in made:
        worker.end()


@pytest.fixture
def worker(new_worker: NewWorker, node: FakeNode) -> Worker:  # noqa: ARG001 (it is there before)
    """One worker, which finds the first node when it starts."""
    return new_worker()


NewProcess = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def new_process(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[NewProcess]:
    """Start workers, with more settings where they are given; none outlives the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HSE_")}
    environment = {
        **kept,
        "HSE_DATABASE_URL": database_url,
        "HSE_REDIS_URL": redis_url,
        "HSE_SERVICE_TOKEN": TOKEN,
        "HSE_SECRET_KEY": SECRET_KEY,
        "HSE_DATA_DIR": str(tmp_path),
    }
    made: list[subprocess.Popen[bytes]] = []

    def start(**settings: str) -> "subprocess.Popen[bytes]":
        command = tethered([sys.executable, "-m", "hse", "worker"], death_signal=signal.SIGKILL)
        with (tmp_path / "worker.log").open("ab") as log:
            made.append(subprocess.Popen(command, env={**environment, **settings}, stdout=log, stderr=log))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()
    print((tmp_path / "worker.log").read_text(encoding="utf-8")[-4000:])
