"""A Valkey of its own that can be killed, frozen, emptied, and started again."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import redis

from hse.embedded.leftovers import processes_on
from hse.embedded.ports import free_ports
from hse.embedded.valkey import prepare_valkey
from tests.faults.conditions import until, until_in_thread


class Cache:
    """The server's process, and what tests read of it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_ports(1)[0]
        self.server = prepare_valkey(home, port=self.port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The connection URL."""
        return self.server.url()

    def client(self) -> redis.Redis:
        """Return a new client; its owner closes it."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=5)

    def _spawn(self) -> None:
        self.server.clear()
        self._process = subprocess.Popen(self.server.command(), env=self.server.environment(), cwd="/")

    async def start(self) -> None:
        """Start the server and wait until it answers."""
        self._spawn()
        await until_in_thread(self.server.is_ready, "Valkey answers", seconds=60)

    def _signal(self, number: signal.Signals) -> None:
        for pid in processes_on(self.server.directory, "valkey-server"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """kill -9."""
        process = self._process
        assert process is not None
        self._signal(signal.SIGKILL)
        await until(lambda: process.poll() is not None, "Valkey is gone", seconds=30)

    async def lose_everything(self) -> None:
        """kill -9, and forget what was on its disk."""
        await self.kill()
        shutil.rmtree(self.server.directory / "appendonlydir", ignore_errors=True)
        self.server = prepare_valkey(self.home, port=self.port)

    async def clean_up(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            await self.kill()

    def ask(self, command: str, *arguments: object) -> Any:
        """Run one command on a connection of its own."""
        with contextlib.closing(self.client()) as client:
            return client.execute_command(command, *arguments)  # type: ignore[no-untyped-call]

    def state(self, device: UUID) -> dict[str, Any]:
        """Return the state of a device as others read it; empty when there is none."""
        text = self.ask("GET", f"device:state:{device}")
        return json.loads(text) if text else {}

    def status(self, device: UUID) -> str | None:
        """Return `online`, `offline` or `error`; None when nothing is known."""
        status = self.state(device).get("status")
        return None if status is None else str(status)

    def seconds_left(self, device: UUID) -> int:
        """Return how long the state is kept; -1 for ever, -2 when there is none."""
        return int(self.ask("TTL", f"device:state:{device}"))
