"""From the start of the core to the first ACK, with a journal that the database has not seen.

PostgreSQL is stopped, the journal is filled, the core is killed with SIGKILL; then, in every round, the core is started while
PostgreSQL is still away, a device retries until its event is acknowledged, and the core is killed again. In the second half of a
round the journal's pages are dropped from the page cache before. At the end PostgreSQL comes back, and every acknowledged event
must be in the table once.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from benches.context import Context, Steps
from benches.counters import read_metrics
from benches.fleet import Fleet, add_fleet
from benches.report import Result, Wanted, check, figure_of
from benches.servers import Cores, CoreSetup, OwnPostgres, now_us
from benches.stack import wait_until
from hse.adapters.postgres.migrate import upgrade
from hse.embedded.ports import free_ports
from hse.embedded.postgres import prepare_postgres

NAME = "restart"
CONNECTIONS = 64
EVENTS_PER_FRAME = 100
FILL_SECONDS = 5
FILL_ATTEMPTS_MAX = 120
DRAIN_TIMEOUT_SECONDS = 900.0


def measure(context: Context) -> Result:
    """Fill once, measure all rounds, drain, compare."""
    home = Path(tempfile.mkdtemp(prefix="hse-bench-", dir=context.data_root))
    postgres_port, hdp_port, http_port = free_ports(3)
    postgres = OwnPostgres(prepare_postgres(home, port=postgres_port))
    cores = Cores(CoreSetup(data_dir=home, database_url=postgres.server.url(), hdp_port=hdp_port, http_port=http_port))
    try:
        postgres.start()
        postgres.server.ensure_database()
        upgrade(postgres.server.url())
        with context.task(NAME, 2 + 2 * context.rounds) as steps:
            return _measure(context, steps, postgres, cores)
    finally:
        cores.kill()
        postgres.stop()
        shutil.rmtree(home)


def _measure(context: Context, steps: Steps, postgres: OwnPostgres, cores: Cores) -> Result:
    wanted_bytes = (1 << 26) if context.is_quick else (1 << 30)
    steps.next(f"filling the journal with {wanted_bytes >> 20} MiB")
    setup = cores.setup
    fleet = add_fleet(setup.database_url, setup.data_dir / "devices.json", NAME, CONNECTIONS)
    cores.start()
    cores.wait_for_ports()
    _wait_for_registry(setup)
    postgres.stop()
    num_acked, journal_bytes = _fill(context, setup, fleet, wanted_bytes)
    rounds = []
    for number in range(context.rounds):
        one: dict[str, Any] = {"journal_bytes": journal_bytes}
        for temperature in ("warm", "cold"):
            steps.next(f"round {number + 1}: {temperature}")
            cores.kill()
            if temperature == "cold":
                _drop_from_page_cache(setup.data_dir / "journal")
            started_us = now_us()
            cores.start()
            one[temperature] = _first_ack(context, setup, fleet, started_us)
            one[f"{temperature}_s"] = one[temperature]["first_ack_ms"] / 1e3
            num_acked += 1
        rounds.append(one)
    steps.next("draining")
    postgres.start()
    _check_rows(setup.database_url, num_acked)
    return _result(rounds, journal_bytes)


def _result(rounds: list[dict[str, Any]], journal_bytes: float) -> Result:
    wanted = Wanted(text="< 2 s", at_most=2.0)
    return Result(
        scenario=NAME,
        figures=(
            figure_of("start to first ACK", "s", rounds, "warm_s", wanted),
            figure_of("the same, journal not in the page cache", "s", rounds, "cold_s", wanted),
        ),
        rounds=tuple(rounds),
        notes=(f"{journal_bytes / 2**30:.2f} GiB undrained, PostgreSQL away; the start of Python is part of it",),
    )


def _wait_for_registry(setup: CoreSetup) -> None:
    """See that the core knows the devices while the database is there: later it starts from its snapshot."""
    wait_until(
        lambda: read_metrics(setup.http_port).value("registry_devices") >= CONNECTIONS,
        "the core knows the devices",
        timeout_seconds=60,
    )


def _fill(context: Context, setup: CoreSetup, fleet: Fleet, wanted_bytes: int) -> tuple[int, float]:
    num_acked = 0
    for _ in range(FILL_ATTEMPTS_MAX):
        load = context.loadgen.run(
            "acks",
            {
                "address": f"127.0.0.1:{setup.hdp_port}",
                "devices": fleet.path,
                "connections": CONNECTIONS,
                "events_per_frame": EVENTS_PER_FRAME,
                "max": True,
                "seconds": 1 if context.is_quick else FILL_SECONDS,
                "warm_up": 0,
            },
        )
        check(load["events_unanswered"] == 0, "events were not answered while the journal was filled")
        num_acked += load["events_acked"]
        journal_bytes = read_metrics(setup.http_port).value("journal_bytes")
        if journal_bytes >= wanted_bytes:
            return num_acked, journal_bytes
    check(False, f"the journal does not reach {wanted_bytes} bytes")
    return num_acked, 0


def _first_ack(context: Context, setup: CoreSetup, fleet: Fleet, started_us: int) -> dict[str, Any]:
    address = f"127.0.0.1:{setup.hdp_port}"
    return context.loadgen.run("first-ack", {"address": address, "devices": fleet.path, "since_us": started_us})


def _drop_from_page_cache(journal: Path) -> None:
    """Ask the kernel to forget the journal's pages; all of them are on disk, as each group was synced."""
    for path in journal.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fdatasync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def _check_rows(url: str, num_acked: int) -> None:
    def count() -> int:
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "select (select count(*) from device_events) + (select count(*) from dead_letters)"
            ).fetchone()
        return int(row[0]) if row else 0

    wait_until(lambda: count() >= num_acked, "the journal is drained", timeout_seconds=DRAIN_TIMEOUT_SECONDS)
    check(count() == num_acked, f"{num_acked} events were acknowledged and {count()} are stored")
