"""A PostgreSQL cluster of its own that can be killed, stopped at once, frozen, and started again."""

import contextlib
import os
import signal
import subprocess
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from uuid import UUID, uuid4

import psycopg

from hse.adapters.postgres.migrate import upgrade
from hse.embedded.leftovers import processes_on
from hse.embedded.ports import free_ports
from hse.embedded.postgres import prepare_postgres
from tests.faults.conditions import until, until_in_thread
from tests.faults.wire import Credentials

# fsync may be off: only processes die here, never the machine under this cluster.
SETTINGS = {"fsync": "off", "shared_buffers": "256MB", "max_connections": "60", "log_min_messages": "fatal"}


class Database:
    """The cluster, its processes, and the few statements that tests need."""

    def __init__(self, home: Path) -> None:
        self.server = prepare_postgres(home, port=free_ports(1)[0], settings=SETTINGS)
        self.log_path = home / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The connection URL."""
        return self.server.url()

    @property
    def port(self) -> int:
        """The TCP port on loopback."""
        return self.server.port

    def _spawn(self) -> None:
        self.server.clear()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.server.command(), env=self.server.environment(), cwd="/", stdout=log, stderr=log
            )

    async def start(self) -> None:
        """Start the server and wait until it takes connections, after recovery if need be."""
        self._spawn()
        await until_in_thread(self.server.is_ready, "PostgreSQL takes connections", seconds=60)

    async def create(self) -> None:
        """Start the server and bring its database to the schema."""
        await self.start()
        self.server.ensure_database()
        upgrade(self.url)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of the cluster: a backend goes on without its postmaster for a while."""
        for pid in processes_on(self.server.cluster, "postgres"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill(self) -> None:
        """kill -9 of every process."""
        self.signal_all(signal.SIGKILL)
        await self._gone()

    async def stop_immediately(self) -> None:
        """`pg_ctl stop -m immediate`: no checkpoint; the next start recovers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        await self._gone()

    async def _gone(self) -> None:
        process = self._process
        assert process is not None
        await until(lambda: process.poll() is not None, "the postmaster is gone", seconds=30)
        await until(lambda: not processes_on(self.server.cluster, "postgres"), "its backends are gone", seconds=30)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal_all(signal.SIGCONT)

    async def ensure_running(self) -> None:
        """Undo whatever a test did to the server."""
        self.thaw()
        if self._process is None or self._process.poll() is not None:
            await self.start()

    async def clean_up(self) -> None:
        """Leave no process behind."""
        self.thaw()
        if self._process is not None and self._process.poll() is None:
            await self.stop_immediately()

    def execute(self, statement: str, parameters: list[object] | None = None) -> list[tuple[object, ...]]:
        """Run one statement in a transaction of its own and return its rows."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    async def rows(
        self, statement: str, parameters: list[object], count: int, what: str, *, seconds: float = 15.0
    ) -> list[tuple[object, ...]]:
        """Wait until a query has so many rows, and return them."""
        await until_in_thread(lambda: len(self.execute(statement, parameters)) >= count, what, seconds=seconds)
        return self.execute(statement, parameters)

    def add_devices(self, count: int, *, gateway: Credentials | None = None) -> list[Credentials]:
        """Register devices with new tokens: of a new organisation, or as children of a gateway."""
        made = [Credentials(uuid4(), token_urlsafe(32)) for _ in range(count)]
        with psycopg.connect(self.url) as connection:
            if gateway is None:
                organization = uuid4()
                connection.execute(
                    "insert into organizations (id, name) values (%s, %s)", [organization, str(organization)]
                )
            else:
                found = connection.execute("select organization_id from devices where id = %s", [gateway.device_id])
                ((organization,),) = found.fetchall()
            with connection.cursor() as cursor:
                cursor.executemany(
                    "insert into devices (id, organization_id, gateway_id, name, token_hash) values (%s, %s, %s, %s, %s)",
                    [
                        (
                            device.device_id,
                            organization,
                            gateway and gateway.device_id,
                            str(place),
                            token_hash(device.token),
                        )
                        for place, device in enumerate(made)
                    ],
                )
        return made

    def events_of(self, device: UUID) -> list[tuple[object, ...]]:
        """Return (time in microseconds, type, value, unit, metadata) of a device's events, oldest first."""
        return self.execute(
            "select (extract(epoch from time) * 1000000)::int8, event_type, value, unit, metadata"
            " from device_events where device_id = %s order by time, value",
            [device],
        )

    def dead_letters_of(self, device: UUID) -> list[tuple[object, ...]]:
        """Return (epoch, seq, code, status, attempts) of a device's dead letters, in order."""
        return self.execute(
            "select epoch, seq, code, status, attempts from dead_letters where device_id = %s order by epoch, seq, id",
            [device],
        )


def token_hash(token: str) -> bytes:
    """Return what the registry keeps of a token."""
    return sha256(token.encode()).digest()
