"""What scenarios start beside or instead of `hse up`: PostgreSQL by itself, the core by itself, the literal design."""

import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.loadgen import Loadgen
from benches.report import CheckFailed
from benches.stack import wait_until
from hse.embedded import valkey
from hse.embedded.ports import free_ports
from hse.embedded.postgres import EmbeddedPostgres

STOP_TIMEOUT_SECONDS = 120.0
READY_TIMEOUT_SECONDS = 60.0


@contextmanager
def literal_design(loadgen: Loadgen, database_url: str, devices: Path, data_root: Path) -> Iterator[dict[str, Any]]:
    """Run the source documents' design on a Valkey with its default settings; yields the ports `hdp` and `metrics`."""
    with tempfile.TemporaryDirectory(prefix="hse-bench-valkey-", dir=data_root) as directory:
        (port,) = free_ports(1)
        # No configuration: snapshots after an hour, 5 minutes or a minute as Valkey thinks fit, no append-only file.
        command = [str(valkey.binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", directory]
        with _terminated(subprocess.Popen(command, stdout=subprocess.DEVNULL)):
            wait_until(lambda: _answers(port), "Valkey answers", timeout_seconds=READY_TIMEOUT_SECONDS)
            options = {"database_url": database_url, "redis": f"127.0.0.1:{port}", "devices": devices}
            literal = loadgen.start("literal", options)
            try:
                yield literal.read()
                literal.stop()
            finally:
                literal.kill()


class OwnPostgres:
    """An embedded PostgreSQL that a scenario stops and starts as it likes."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.clear()
        self._process = subprocess.Popen(
            self.server.command(), env=self.server.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.server.is_ready, "PostgreSQL answers", timeout_seconds=READY_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """Stop it as an operator would; without effect when it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.server.stop_signal)
            self._process.wait(STOP_TIMEOUT_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSetup:
    """Where `hse ingest` works when it runs by itself."""

    data_dir: Path
    database_url: str
    hdp_port: int
    http_port: int

    def environment(self) -> dict[str, str]:
        """Return the environment of its process."""
        return {
            **os.environ,
            "HSE_DATA_DIR": str(self.data_dir),
            "HSE_DATABASE_URL": self.database_url,
            "HSE_HDP_PORT": str(self.hdp_port),
            "HSE_WS_PORT": "0",
            "HSE_MQTT_PORT": "0",
            "HSE_DEVICE_HTTP_PORT": "0",
            "HSE_INGEST_HTTP_PORT": str(self.http_port),
        }


class Cores:
    """One `hse ingest` after the other on the same journal."""

    def __init__(self, setup: CoreSetup) -> None:
        self.setup = setup
        self._core: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, without waiting for anything."""
        with (self.setup.data_dir / "ingest.log").open("a", encoding="utf-8") as log:
            self._core = subprocess.Popen(
                [sys.executable, "-m", "hse", "ingest"],
                env=self.setup.environment(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def wait_for_ports(self) -> None:
        """Wait until it says that it listens; raises `CheckFailed`."""
        stdout = None if self._core is None else self._core.stdout
        ready = select.select([stdout], [], [], READY_TIMEOUT_SECONDS)[0] if stdout else []
        if not stdout or not ready or "ports" not in stdout.readline():
            raise CheckFailed("the core does not start: see ingest.log")

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._core is not None:
            self._core.kill()
            self._core.wait(STOP_TIMEOUT_SECONDS)
            if self._core.stdout:
                self._core.stdout.close()
            self._core = None


@contextmanager
def _terminated(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_SECONDS)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def now_us() -> int:
    """Microseconds since 1970, for the load generator's --since-us."""
    return time.time_ns() // 1000
