"""Telegraf, the real one, writing to our endpoint. HSE_TEST_TELEGRAF names it, or it is on the PATH (CONTRIBUTING.md)."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hse.embedded.tether import tethered
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.test_mqtt import dead_letters
from tests.faults.wire import Credentials

PROGRAM = os.environ.get("HSE_TEST_TELEGRAF") or shutil.which("telegraf")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="HSE_TEST_TELEGRAF is not set, and there is no telegraf: nothing to test with"
)

NUM_LINES = 2500
NUM_LINES_FULL = 40_000
BATCH_LINES = 200
NUM_KILLS = 2
AT_NS = 1_767_225_600_000_000_000

AGENT = """
[agent]
  # What is read is read once, when it starts.
  interval = "1h"
  round_interval = false
  precision = "1ns"
  flush_interval = "200ms"
  metric_batch_size = {batch_lines}
  metric_buffer_limit = 100000
  hostname = "edge"
[[outputs.influxdb_v2]]
  urls = ["http://127.0.0.1:{port}"]
  token = "{token}"
  organization = "any"
  bucket = "any"
  timeout = "10s"
"""
OF_FILE = """
[[inputs.file]]
  files = ["{path}"]
  data_format = "influx"
"""
OF_MEMORY = "\n[[inputs.mem]]\n"


class Telegraf:
    """One Telegraf that reads lines, with what it logged."""

    def __init__(self, home: Path, core: Core, device: Credentials, lines: str, inputs: str = "") -> None:
        assert PROGRAM is not None
        read = home / "lines"
        read.write_text(lines, encoding="utf-8")
        self._log_path = home / "telegraf.log"
        agent = AGENT.format(batch_lines=BATCH_LINES, port=core.device_http_port, token=device.token)
        path = home / "telegraf.conf"
        path.write_text(agent + OF_FILE.format(path=read) + inputs, encoding="utf-8")
        self._command = tethered([PROGRAM, "--config", str(path)], death_signal=signal.SIGKILL)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it."""
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def log(self) -> str:
        """Return what it said."""
        return self._log_path.read_text(encoding="utf-8")

    async def ended(self) -> int:
        """Wait for its end."""
        assert self._process is not None
        process = self._process
        await until_in_thread(lambda: process.poll() is not None, "Telegraf ends", seconds=60)
        return process.wait()

    def clean_up(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
        print(f"--- Telegraf\n{self.log()[-3000:]}")


@pytest.fixture
def running() -> Iterator[list[Telegraf]]:
    """Those that a test started."""
    started: list[Telegraf] = []
    yield started
    for one in started:
        one.clean_up()


def lines_of(count: int, padding: str = "a") -> str:
    """So many lines, each with a time of its own."""
    return "".join(f"meter,phase={padding} power={number} {AT_NS + number * 1_000_000}\n" for number in range(count))


def num_written(core: Core) -> int:
    """How often it was answered that all is durable."""
    _, text = core.get("/metrics")
    found = re.search(r'^hse_ingest_http_answers_total{code="204"} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


async def values_of(database: Database, device: Credentials, count: int, kind: str) -> dict[float, int]:
    """Wait until so many different values of a type are stored; return how often each is."""
    select = "select value, count(*) from device_events where device_id = %s and event_type = %s group by value"
    what = f"{count} values are stored"
    rows = await database.rows(select, [device.device_id, kind], count, what, seconds=60)
    return {float(str(value)): int(str(times)) for value, times in rows}


async def test_what_it_reads_is_stored_once_with_its_time_and_tags(
    shared_core: Core, database: Database, device: Credentials, tmp_path: Path, running: list[Telegraf]
) -> None:
    telegraf = Telegraf(tmp_path, shared_core, device, lines_of(NUM_LINES), OF_MEMORY)
    running.append(telegraf)
    telegraf.start("--once")
    assert await telegraf.ended() == 0
    counts = await values_of(database, device, NUM_LINES, "meter.power")
    assert counts == {float(number): 1 for number in range(NUM_LINES)}
    select = (
        "select extract(epoch from time)::float8, metadata, source from device_events"
        " where device_id = %s and event_type = 'meter.power' and value = 1500"
    )
    ((at, metadata, source),) = database.execute(select, [device.device_id])
    assert (at, metadata, source) == (AT_NS / 1e9 + 1.5, {"host": "edge", "phase": "a"}, "http")
    used = "select value from device_events where device_id = %s and event_type = 'mem.used_percent'"
    ((percent,),) = database.execute(used, [device.device_id])
    assert 0 < float(str(percent)) < 100
    assert database.execute("select id from dead_letters where device_id = %s", [device.device_id]) == []
    assert "E!" not in telegraf.log(), telegraf.log()


async def test_lines_that_break_a_rule_are_dead_letters_and_it_goes_on(
    shared_core: Core, database: Database, device: Credentials, tmp_path: Path, running: list[Telegraf]
) -> None:
    telegraf = Telegraf(tmp_path, shared_core, device, f"{'n' * 60} value=1 {AT_NS}\ngood value=2 {AT_NS}\n")
    running.append(telegraf)
    telegraf.start("--once")
    assert await telegraf.ended() == 0
    assert await values_of(database, device, 1, "good") == {2.0: 1}
    assert [letter[0] for letter in await dead_letters(database, device, 1)] == ["bad_type"]
    assert "E!" not in telegraf.log(), telegraf.log()


async def test_a_batch_of_nothing_but_such_lines_is_told_and_not_sent_again(
    shared_core: Core, database: Database, device: Credentials, tmp_path: Path, running: list[Telegraf]
) -> None:
    telegraf = Telegraf(tmp_path, shared_core, device, f"{'n' * 60} value=1 {AT_NS}\n")
    running.append(telegraf)
    telegraf.start()
    said = "kept as a dead letter"
    await until_in_thread(lambda: said in telegraf.log(), "it says so", seconds=30)
    # Long enough for five more tries of what would be tried again.
    await asyncio.sleep(1)
    assert len(await dead_letters(database, device, 1)) == 1


async def test_a_token_that_is_none_is_said_and_what_was_read_is_kept_for_later(
    shared_core: Core, database: Database, device: Credentials, tmp_path: Path, running: list[Telegraf]
) -> None:
    stranger = Credentials(device.device_id, "nobody")
    telegraf = Telegraf(tmp_path, shared_core, stranger, lines_of(10))
    running.append(telegraf)
    telegraf.start()
    await until_in_thread(lambda: "401" in telegraf.log(), "it says so", seconds=30)
    assert database.execute("select 1 from device_events where device_id = %s", [device.device_id]) == []


@pytest.mark.timeout(240)
async def test_a_core_that_is_full_and_killed_is_written_to_again_and_nothing_is_lost(
    new_core: NewCore, database: Database, device: Credentials, tmp_path: Path, running: list[Telegraf]
) -> None:
    """A batch that was durable when its answer was lost comes again and is stored twice; none is lost."""
    core = new_core(batch_age_ms_max=200, journal_bytes_max=4 << 20)
    await core.started()
    telegraf = Telegraf(tmp_path, core, device, lines_of(NUM_LINES_FULL, padding="x" * 300))
    running.append(telegraf)
    await database.kill()
    telegraf.start()
    await until_in_thread(lambda: "503" in telegraf.log(), "the journal is full", seconds=60)
    await core.kill()
    await core.started()
    await database.start()
    for _ in range(NUM_KILLS):
        await until_in_thread(lambda: num_written(core) >= 3, "it is written to again", seconds=60)
        await core.kill()
        await core.started()
    counts = await values_of(database, device, NUM_LINES_FULL, "meter.power")
    assert set(counts) == set(map(float, range(NUM_LINES_FULL)))
    assert sum(times - 1 for times in counts.values()) <= (NUM_KILLS + 1) * BATCH_LINES
    assert len(re.findall("E! .*(?:EOF|refused|reset)", telegraf.log())) >= NUM_KILLS, telegraf.log()
