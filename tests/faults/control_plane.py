"""The control plane's processes, started and ended as a deployment does it."""

import signal
import subprocess
import sys
from pathlib import Path

from hse.embedded.ports import free_ports
from hse.embedded.tether import tethered
from hse.supervision.machine import answers_ok
from tests.faults.conditions import until_in_thread
from tests.faults.database import Database

READY_SECONDS = 60
STOP_SECONDS = 30
SECRET_KEY = "a secret key for tests, long enough to be taken"


class ControlPlane:
    """`hse api` and `hse worker`, on the same ports over any number of processes."""

    def __init__(self, home: Path, database: Database) -> None:
        self.home = home
        (self.port,) = free_ports(1)
        self._ready_file = home / "worker.ready"
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HSE_DATA_DIR": str(home),
            "HSE_DATABASE_URL": database.url,
            "HSE_API_DATABASE_URL": database.server.api_url(),
            "HSE_SECRET_KEY": SECRET_KEY,
            "HSE_BIND_HOST": "127.0.0.1",
            "HSE_API_PORT": str(self.port),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        """Start both, as the next release would, and wait until they do their work."""
        self._ready_file.unlink(missing_ok=True)
        self._run("migrate").wait(READY_SECONDS)
        self._processes = [self._run("api"), self._run("worker", "--ready-file", str(self._ready_file))]
        url = f"http://127.0.0.1:{self.port}/health/readiness"
        await until_in_thread(lambda: answers_ok(url), "the api is ready", seconds=READY_SECONDS)
        await until_in_thread(self._ready_file.exists, "the worker works", seconds=READY_SECONDS)

    def end(self, number: signal.Signals) -> None:
        """Send both a signal and wait for their end."""
        for process in self._processes:
            process.send_signal(number)
        for process in self._processes:
            process.wait(STOP_SECONDS)
        self._processes = []

    def _run(self, *arguments: str) -> "subprocess.Popen[bytes]":
        command = tethered([sys.executable, "-m", "hse", *arguments], death_signal=signal.SIGKILL)
        with (self.home / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
