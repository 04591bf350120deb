"""The system under test: `hse up` on a fresh data directory, and what a bench does with it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benches.counters import Metrics, read_metrics
from benches.fleet import Fleet, add_fleet
from benches.report import CheckFailed, check

STOP_TIMEOUT_SECONDS = 120.0
DRAIN_TIMEOUT_SECONDS = 300.0
POLL_SECONDS = 0.1
TRUNCATE_ATTEMPTS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A running system."""

    data_dir: Path
    up_pid: int
    database_url: str
    redis_url: str
    ports: Mapping[str, int]

    @property
    def hdp(self) -> str:
        """Where devices connect."""
        return f"127.0.0.1:{self.ports['hdp']}"

    @property
    def metrics_address(self) -> str:
        """Where the core's metrics are."""
        return f"127.0.0.1:{self.ports['ingest_http']}"

    def metrics(self) -> Metrics:
        """Read the core's metrics."""
        return read_metrics(self.ports["ingest_http"])

    def pid(self, name: str) -> int:
        """The process id of a child now; `hse up` may have started it again."""
        published: dict[str, Any] = json.loads((self.data_dir / "up.json").read_text(encoding="utf-8"))
        return int(published["pids"][name])

    def add_devices(self, name: str, count: int, *, children: int = 0) -> Fleet:
        """Register devices, or gateways with children, and wait until the core knows them."""
        known_before = self.metrics().value("registry_devices")
        fleet = add_fleet(self.database_url, self.data_dir / f"{name}.json", name, count, children=children)
        wait_until(
            lambda: self.metrics().value("registry_devices") >= known_before + fleet.num_registered,
            "the core knows the new devices",
            timeout_seconds=60,
        )
        return fleet

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection to the database, without transactions."""
        return psycopg.connect(self.database_url, autocommit=True)

    def empty_events(self) -> None:
        """Empty the event tables and start from a checkpoint, so that every variant finds the same database."""
        with self.connect() as connection:
            tables = ["device_events", "event_outbox", "dead_letters", "late_hours"]
            if connection.execute("select to_regclass('rollup_dirty')").fetchone() != (None,):
                tables.append("rollup_dirty")
            _truncate(connection, tables)
            connection.execute("checkpoint")

    def num_rows(self) -> int:
        """Rows in device_events and dead letters together."""
        query = "select (select count(*) from device_events) + (select count(*) from dead_letters)"
        with self.connect() as connection:
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def wait_until_drained(self) -> float:
        """Wait until everything acknowledged is stored; returns the seconds that took."""
        start = time.monotonic()
        wait_until(self._is_drained, "everything acknowledged is stored", timeout_seconds=DRAIN_TIMEOUT_SECONDS)
        return time.monotonic() - start

    def check_rows(self, num_acked: int) -> None:
        """Hold the rows against the acknowledged events since the tables were emptied; raises `CheckFailed`."""
        self.wait_until_drained()
        num_rows = self.num_rows()
        check(num_rows == num_acked, f"{num_acked} events were acknowledged and {num_rows} are stored")

    def journal_position(self) -> int:
        """How many bytes of the journal, over its whole life, the database has seen: all of them when it is drained."""
        with self.connect() as connection:
            row = connection.execute("select coalesce(sum(position), 0)::int8 from ingest_cursor").fetchone()
        return int(row[0]) if row else 0

    def database_facts(self) -> dict[str, str]:
        """The version, the form of the event table, and the settings that matter for writing."""
        names = (
            "shared_buffers", "max_wal_size", "checkpoint_timeout", "synchronous_commit", "wal_compression", "fsync",
            "full_page_writes", "autovacuum",
        )  # fmt: skip
        with self.connect() as connection:
            facts = {name: str(connection.execute(f"show {name}").fetchone()[0]) for name in names}  # type: ignore[index]
            row = connection.execute("select version(), event_storage()").fetchone()
        check(row is not None, "PostgreSQL does not tell its version")
        return {**facts, "version": str(row[0]).partition(" on ")[0], "event_storage": str(row[1])} if row else facts

    def _is_drained(self) -> bool:
        metrics = self.metrics()
        return metrics.value("drain_lag_seconds") == 0 and metrics.value("journal_bytes") == 0


@contextmanager
def running(data_root: Path, environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Start `hse up` on a new directory below `data_root`; afterwards stop it and remove the directory."""
    data_dir = Path(tempfile.mkdtemp(prefix="hse-bench-", dir=data_root))
    log = (data_dir / "up.log").open("w", encoding="utf-8")
    command = [sys.executable, "-m", "hse", "up", "--data-dir", str(data_dir), "--ports", "auto", "--json", "--no-demo"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
    )
    try:
        yield _published(process, data_dir)
    finally:
        log.close()
        _stop(process)
        shutil.rmtree(data_dir)


def wait_until(is_so: Callable[[], bool], what: str, *, timeout_seconds: float) -> None:
    """Wait for a condition; raises `CheckFailed` when it does not come."""
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise CheckFailed(f"after {timeout_seconds:.0f} s it is still not so that {what}")
        time.sleep(POLL_SECONDS)


def _truncate(connection: psycopg.Connection[tuple[Any, ...]], tables: list[str]) -> None:
    """Truncate, and again when a background job of the database took its locks in another order."""
    for _ in range(TRUNCATE_ATTEMPTS_MAX - 1):
        try:
            connection.execute(f"truncate {', '.join(tables)}")
        except psycopg.errors.DeadlockDetected:
            continue
        return
    connection.execute(f"truncate {', '.join(tables)}")


def _published(process: subprocess.Popen[str], data_dir: Path) -> Stack:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        process.wait(STOP_TIMEOUT_SECONDS)
        said = (data_dir / "up.log").read_text(encoding="utf-8")[-2000:]
        raise CheckFailed(f"`hse up` ended with {process.returncode} before it was ready: {said}")
    published: dict[str, Any] = json.loads(line)
    return Stack(
        data_dir=data_dir,
        up_pid=process.pid,
        database_url=published["database_url"],
        redis_url=published["redis_url"],
        ports=published["ports"],
    )


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
