"""`hse simulate`."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hse.cli.options import DataDir, ReadyFile, settings_with
from hse.cli.place import place_of
from hse.settings import data_dir_of
from hse.simulation.devices import Address, Totals, run_devices
from hse.simulation.fleet import replayed_meters, synthetic_fleet
from hse.simulation.identities import load_identities
from hse.simulation.lock_fleet import Days, locks_on_doors, run_locks
from hse.simulation.meters import SPEED
from hse.wiring.machine import enroll_fleet, enroll_locks, enroll_meters

REPORT_SECONDS = 10.0
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

logger = logging.getLogger(__name__)


class Recorded(StrEnum):
    """What can be replayed."""

    METERS = "meters"


def simulate(
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="How many synthetic devices.")] = 100,
    rate: Annotated[float, typer.Option(min=0.001, help="Events a second, of all together.")] = 100.0,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Events a burst of one device.")] = 10,
    replay: Annotated[Recorded | None, typer.Option(help="Replay recordings instead.", show_default=False)] = None,
    speed: Annotated[
        float, typer.Option(min=1, help="Recorded seconds a second, until the replay reaches now.")
    ] = SPEED,
    locks: Annotated[
        int, typer.Option(min=0, max=10_000, help="Be this many door locks instead (docs/door-locks.md).")
    ] = 0,
    power_cuts: Annotated[
        float, typer.Option(min=0, help="How often an hour a lock is without power for a while.")
    ] = 0.0,
    data_dir: DataDir = None,
    ready_file: ReadyFile = None,
) -> None:
    """Be devices of a running core, until Ctrl-C. Who they are is kept in the data directory."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    place = place_of(data_dir)
    directory = data_dir_of(settings_with(data_dir)) / "simulation"
    address, totals = Address(host="127.0.0.1", port=place.hdp_port), Totals()
    if locks:
        path = directory / "locks.json"
        enroll_locks(place.database_url, path, locks)
        days = Days(power_cuts_per_hour=power_cuts)
        running = run_locks(locks_on_doors(directory, load_identities(path)[:locks], address, totals, days))
    elif replay is Recorded.METERS:
        path = directory / "meters.json"
        enroll_meters(place.database_url, path)
        running = run_devices(replayed_meters(path, address, totals, speed=speed))
    else:
        path = directory / "fleet.json"
        enroll_fleet(place.database_url, path, devices)
        fleet = synthetic_fleet(path, load_identities(path)[:devices], address, totals, rate=rate, batch=batch)
        running = run_devices(fleet)
    asyncio.run(_run(running, totals, ready_file))
    logger.info("%s", totals.line())


async def _run(simulation: Coroutine[None, None, None], totals: Totals, ready_file: Path | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running = asyncio.create_task(simulation)
    reporting = asyncio.create_task(_report(totals, ready_file))
    stopping = asyncio.create_task(stop.wait())
    done, pending = await asyncio.wait((running, reporting, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()


async def _report(totals: Totals, ready_file: Path | None) -> None:
    await totals.first_connection.wait()
    if ready_file is not None:
        await asyncio.to_thread(ready_file.touch, mode=0o600)
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        logger.info("%s", totals.line())
