"""The ingest core as a real process: started, killed, frozen, asked how it is."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hse.embedded.ports import free_ports
from hse.embedded.tether import tethered
from tests.faults.conditions import until, until_in_thread

EXIT_POISONED = 70
SERVICE_TOKEN = "the-token-of-the-tests-0123456789"

# Small enough that a short run rolls and recycles segments.
SMALL = {
    "journal_segment_bytes": 1 << 20,
    "journal_bytes_max": 64 << 20,
    "frame_bytes_max": 256 << 10,
    "batch_age_ms_max": 20,
}


# A tracer that does not let go of it keeps a killed process from ending.
CLEAN_UP_SECONDS = 30


class Core:
    """One node: a data directory and ports that stay the same over any number of processes."""

    def __init__(self, data_dir: Path, database_url: str, **settings: object) -> None:
        self.data_dir = data_dir
        self.port, self.tls_port, self.ws_port, self.wss_port, self.http_port, self.grpc_port = free_ports(6)
        self.mqtt_port, self.mqtt_tls_port, self.device_http_port, self.device_http_tls_port = free_ports(4)
        self.settings: dict[str, object] = {
            "data_dir": data_dir,
            "database_url": database_url,
            "bind_host": "127.0.0.1",
            "hdp_port": self.port,
            "hdp_tls_port": self.tls_port,
            "ws_port": self.ws_port,
            "wss_port": self.wss_port,
            "mqtt_port": self.mqtt_port,
            "mqtt_tls_port": self.mqtt_tls_port,
            "device_http_port": self.device_http_port,
            "device_http_tls_port": self.device_http_tls_port,
            "ingest_http_port": self.http_port,
            "grpc_port": self.grpc_port,
            "service_token": SERVICE_TOKEN,
            **SMALL,
            **settings,
        }
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        assert self._process is not None
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def environment(self) -> dict[str, str]:
        """Return the environment of `hse ingest`, and nothing of the caller's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HSE_")}
        renamed = {"lanes": "ingest_lanes"}
        ours = {f"HSE_{renamed.get(name, name).upper()}": str(value) for name, value in self.settings.items()}
        # Python's own caches would be written and renamed among the journal's files that tests count.
        return kept | ours | {"PYTHONDONTWRITEBYTECODE": "1"}

    def command(self) -> list[str]:
        """Return the command that is the core, with this process id and no other."""
        return [sys.executable, "-m", "hse", "ingest"]

    def start(self, wrapper: Sequence[str] = ()) -> None:
        """Start `hse ingest`, behind a `wrapper` command if asked; it dies with this process."""
        assert not self.is_running
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                tethered([*wrapper, *self.command()], death_signal=signal.SIGKILL),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, *, seconds: float = 30.0) -> str:
        """Wait until the core is ready; return "ready" or "degraded"."""
        answers: list[str] = []

        def is_ready() -> bool:
            assert self.is_running, f"the core ended with {self.process.returncode}:\n{self.tail()}"
            status, body = self.get("/health/readiness")
            if status == 200:
                answers.append(str(json.loads(body)["status"]))
            return status == 200

        await until_in_thread(is_ready, "the core is ready", seconds=seconds)
        return answers[-1]

    async def started(self, wrapper: Sequence[str] = (), *, seconds: float = 30.0) -> str:
        """Start and wait until ready."""
        self.start(wrapper)
        return await self.ready(seconds=seconds)

    async def ended(self, *, seconds: float = 30.0) -> int:
        """Wait for the end of the process and return its exit code, negative for a signal."""
        await until(lambda: not self.is_running, "the core ends", seconds=seconds)
        return self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, to the end."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def stop(self, *, seconds: float = 40.0) -> int:
        """SIGTERM, and wait for the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended(seconds=seconds)

    def clean_up(self) -> None:
        """Leave no process behind."""
        if self.is_running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.process.wait(CLEAN_UP_SECONDS)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a health or metrics page; status 0 when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=5)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except OSError:
                return 0, ""

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels; 0 when there is no such series yet."""
        _, text = self.get("/metrics")
        lines = re.findall(rf"^hse_ingest_{name}(?:{{[^}}]*}})? (\S+)", text, re.MULTILINE)
        return sum(float(value) for value in lines)

    def tail(self, characters: int = 3000) -> str:
        """Return the end of the log."""
        return (
            self.log_path.read_text(encoding="utf-8", errors="replace")[-characters:] if self.log_path.exists() else ""
        )

    def log_lines(self) -> list[str]:
        """Return the whole log."""
        return self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
