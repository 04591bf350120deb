"""An hour's worth of alarms waits while the control plane is away; then its worker is killed again and again amidst it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from hse.embedded.tether import tethered
from tests.faults.conditions import until_in_thread
from tests.faults.database import Database

NUM_DEVICES = 40
ALARMS_PER_DEVICE = 150
# Raised, said again, over.
REPORTS_PER_ALARM = 3
NUM_EVENTS = NUM_DEVICES * ALARMS_PER_DEVICE * REPORTS_PER_ALARM
NUM_KILLS = 6
START = datetime(2030, 1, 1, tzinfo=UTC)


def fill(database: Database, devices: list[UUID]) -> None:
    """Put the backlog into the outbox, as the core's COPY does."""
    said = [json.dumps(one) for one in ({"alarm": "smoke"}, {"alarm": "smoke"}, {"alarm": "smoke", "state": "cleared"})]
    with (
        psycopg.connect(database.url) as connection,
        connection.cursor() as cursor,
        cursor.copy("copy event_outbox (time, device_id, event_type, metadata) from stdin") as copy,
    ):
        for number in range(ALARMS_PER_DEVICE * REPORTS_PER_ALARM):
            time = START + timedelta(seconds=number)
            for device in devices:
                copy.write_row((time, device, "alarm", said[number % REPORTS_PER_ALARM]))


def num_waiting(database: Database, devices: list[UUID]) -> int:
    """How many of these devices' events are in the outbox."""
    ((count,),) = database.execute("select count(*) from event_outbox where device_id = any(%s)", [devices])
    return int(str(count))


def is_down_to(database: Database, devices: list[UUID], target: int) -> bool:
    """Whether no more than this is left."""
    return num_waiting(database, devices) <= target


@contextmanager
def a_worker(database: Database, home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`hse worker`, gone after the block."""
    command = tethered([sys.executable, "-m", "hse", "worker"], death_signal=signal.SIGKILL)
    environment = {"PATH": "/usr/bin:/bin", "HSE_DATA_DIR": str(home), "HSE_DATABASE_URL": database.url}
    with (home / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(600)
async def test_a_backlog_is_handled_once_by_workers_that_are_killed_in_the_middle(
    database: Database, tmp_path: Path
) -> None:
    devices = [device.device_id for device in database.add_devices(NUM_DEVICES)]
    fill(database, devices)
    left = num_waiting(database, devices)
    assert left == NUM_EVENTS
    for _ in range(NUM_KILLS):
        with a_worker(database, tmp_path):
            target = left - NUM_EVENTS // (NUM_KILLS + 2)
            await until_in_thread(partial(is_down_to, database, devices, target), "the worker gets on", seconds=60)
        left = num_waiting(database, devices)
    # Two at once for the rest.
    with a_worker(database, tmp_path), a_worker(database, tmp_path):
        await until_in_thread(partial(is_down_to, database, devices, 0), "nothing waits", seconds=120)
    found = database.execute(
        "select device_id, count(*), count(*) filter (where state = 'cleared' and num_reports = 2) from device_alarms"
        " where device_id = any(%s) group by device_id",
        [devices],
    )
    assert {row[1:] for row in found} == {(ALARMS_PER_DEVICE, ALARMS_PER_DEVICE)}
    assert len(found) == NUM_DEVICES
    assert database.execute("select count(*) from parked_events") == [(0,)]
