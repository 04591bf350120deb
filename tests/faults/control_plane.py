"""The control plane's processes, started and ended as a deployment does it, or killed and frozen one by one."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hse.embedded.ports import free_ports
from hse.embedded.tether import tethered
from hse.supervision.machine import answers_ok
from tests.faults.conditions import until_in_thread
from tests.faults.database import Database

READY_SECONDS = 60
STOP_SECONDS = 30
SECRET_KEY = "a secret key for tests, long enough to be taken"


class Program:
    """One kind of process: what it is called with stays the same over any number of its lives.

    With a `wrapper`, the command of an absolute path that becomes the process, it may live elsewhere.
    """

    def __init__(
        self, home: Path, environment: Mapping[str, str], *arguments: str, wrapper: Sequence[str] = ()
    ) -> None:
        self.name = arguments[0]
        self.log_path = home / f"{self.name}.log"
        self._arguments = arguments
        self._wrapper = wrapper
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it dies with this process."""
        assert not self.is_running
        command = tethered([*self._wrapper, sys.executable, "-m", "hse", *self._arguments], death_signal=signal.SIGKILL)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end and return its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """kill -9, to the end. What is gone already is left alone."""
        if self.is_running:
            self.signal(signal.SIGKILL)
            self.wait()

    def tail(self, characters: int = 3000) -> str:
        """Return the end of its log."""
        return (
            self.log_path.read_text(encoding="utf-8", errors="replace")[-characters:] if self.log_path.exists() else ""
        )


class ControlPlane:
    """`hse api` and `hse worker`, on the same ports over any number of processes."""

    def __init__(
        self,
        home: Path,
        database: Database,
        *,
        host: str = "127.0.0.1",
        wrapper: Sequence[str] = (),
        **settings: object,
    ) -> None:
        self.home = home
        self.host = host
        self._wrapper = wrapper
        self.port, self.worker_port = free_ports(2)
        self._ready_file = home / "worker.ready"
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HSE_DATA_DIR": str(home),
            "HSE_DATABASE_URL": database.url,
            "HSE_API_DATABASE_URL": database.server.api_url(),
            "HSE_SECRET_KEY": SECRET_KEY,
            "HSE_BIND_HOST": host,
            "HSE_API_PORT": str(self.port),
            "HSE_WORKER_HTTP_PORT": str(self.worker_port),
            **{f"HSE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.api = self._program("api")
        self.worker = self._program("worker", "--ready-file", str(self._ready_file))

    def _program(self, *arguments: str) -> Program:
        return Program(self.home, self._environment, *arguments, wrapper=self._wrapper)

    @property
    def url(self) -> str:
        """Where the api is."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Start both, as the next release would, and wait until they do their work."""
        self._ready_file.unlink(missing_ok=True)
        migrate = self._program("migrate")
        migrate.start()
        # Not in this thread: the way to the database may be a task of the test's.
        assert await asyncio.to_thread(migrate.wait, READY_SECONDS) == 0, migrate.tail()
        self.api.start()
        self.worker.start()
        await self.ready()
        await until_in_thread(self._ready_file.exists, "the worker works", seconds=READY_SECONDS)

    async def ready(self) -> None:
        """Wait until the api does its work."""
        url = f"{self.url}/health/readiness"
        await until_in_thread(lambda: answers_ok(url), "the api is ready", seconds=READY_SECONDS)

    def end(self, number: signal.Signals) -> None:
        """Send both a signal and wait for their end."""
        for program in (self.api, self.worker):
            program.signal(number)
        for program in (self.api, self.worker):
            program.wait()

    def clean_up(self) -> None:
        """Leave no process behind."""
        self.api.kill()
        self.worker.kill()
