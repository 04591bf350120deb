"""Cut the power under the journal's file system, again and again: `python -m tests.faults.powercut --cuts 100`.

The journal lies on ext4 on a disk with a volatile cache (see `disks`). A cut kills the core and the disk, loses every block
that was not flushed, and brings both back. Needs root, nbdkit, nbdfuse and loop devices.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.checker import Checker
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.disks import PowerCutDisk, why_no_power_cut
from tests.faults.load import Load, Plan
from tests.faults.recorder import Record, Recorder

EVENTS_BETWEEN_CUTS_MAX = 2000
# A pause, so that a cut often falls between a write and its sync and not only into a stream of full groups.
PLAN = Plan(events_per_frame=(1, 100), padding=200, pause_seconds=0.002)
# The drain takes its time, so that at a cut many acknowledged events are in the journal and nowhere else.
BATCH_AGE_MS_MAX = 1000


async def survive_cuts(
    directory: Path,
    database: Database,
    num_cuts: int,
    *,
    seed: int,
    wrapper: Sequence[str] = (),
    store_seconds: float = 60.0,
) -> Record:
    """Run devices against a core whose power is cut `num_cuts` times; return the record, or fail with what was broken."""
    chance = random.Random(seed)
    fleet = database.add_devices(6)
    recorder = Recorder(directory / "record")
    checker = Checker(recorder.path, database.url)
    async with PowerCutDisk(directory / "disk").in_use() as disk:
        core = Core(disk.mount_point / "core", database.url, batch_age_ms_max=BATCH_AGE_MS_MAX)
        core.log_path = directory / "core.log"
        try:
            async with Load(core.port, fleet, recorder, PLAN, seed=seed) as load:
                for _ in range(num_cuts):
                    core.start(wrapper)
                    await load.progress(chance.randint(1, EVENTS_BETWEEN_CUTS_MAX))
                    await cut(core, disk, is_core_first=chance.random() < 0.5)
                    assert recorder.num_broken == 0, checker.violations()
                    await disk.power_on()
                await core.started(wrapper)
                await load.settle()
                await checker.until_stored(seconds=store_seconds)
                assert await core.stop() == 0, core.tail()
        finally:
            core.clean_up()
            recorder.close()
    return checker.check(acked_min=num_cuts)


async def cut(core: Core, disk: PowerCutDisk, *, is_core_first: bool) -> None:
    """Cut: either the core sees nothing of it, or it lives on for a moment and sees its disk fail."""
    if is_core_first:
        await core.kill()
        await disk.cut_power()
    else:
        disk.kill_server()
        await core.kill()
        await disk.cut_power()


async def main(num_cuts: int, seed: int) -> None:
    """Run and report."""
    with tempfile.TemporaryDirectory(prefix="hse-powercut-") as name:
        directory = Path(name)
        database = Database(directory / "postgres")
        started = time.monotonic()
        try:
            await database.create()
            record = await survive_cuts(directory, database, num_cuts, seed=seed)
        finally:
            await database.clean_up()
    seconds = time.monotonic() - started
    print(
        f"survived {num_cuts} power cuts in {seconds:.0f} s: {record.num_acked} acknowledged events, each stored exactly once"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Cut the power under the journal's file system.")
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if reason := why_no_power_cut():
        sys.exit(f"cannot cut the power here: {reason}")
    asyncio.run(main(arguments.cuts, arguments.seed))
