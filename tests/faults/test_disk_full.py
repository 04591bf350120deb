"""The disk under the journal fills up: BUSY, never a lie; and when there is space again, all goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.database import Database
from tests.faults.disks import fill, small_disk, why_no_mount
from tests.faults.load import Load, Plan
from tests.faults.proxy import DatabaseProxy, Wire
from tests.faults.recorder import Recorder, read_record
from tests.faults.wire import Credentials

pytestmark = pytest.mark.skipif(why_no_mount() is not None, reason=why_no_mount() or "")

MEBIBYTE = 1 << 20
# Standard output and error lie on a disk that has been full all along.
NO_ROOM_FOR_LOGS = ("/bin/sh", "-c", 'exec "$@" >/dev/full 2>&1', "sh")
FAT = Plan(padding=2048, events_per_frame=(1, 20))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", 12 * MEBIBYTE) as mounted:
        yield mounted


def num_busy(recorder: Recorder) -> int:
    return read_record(recorder.path).busy


async def test_a_disk_that_fills_up_makes_devices_wait_until_the_drain_has_made_room(
    disk: Path, new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(data_dir=disk / "core", database_url=proxy.url)
        await core.started()
        proxy.cut(Wire.REFUSED)
        proxy.cut_all()
        async with Load(core.port, fleet, recorder, FAT) as load:
            await until(lambda: num_busy(recorder) > 20, "devices are told BUSY", seconds=30)
            assert core.is_running, core.tail()
            proxy.cut(Wire.WHOLE)
            await load.progress(10_000, seconds=60)
            await load.settle()
            await checker.until_stored()
            assert await core.stop() == 0
    checker.check(acked_min=10_000)


async def test_a_disk_filled_by_others_makes_devices_wait_until_there_is_space_again(
    disk: Path, new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(data_dir=disk / "core", database_url=proxy.url)
        await core.started()
        # Taken before the load starts: how much becomes free later must not depend on how fast the devices are.
        (filler := disk / "filler").write_bytes(bytes(8 * MEBIBYTE))
        proxy.cut(Wire.REFUSED)
        proxy.cut_all()
        async with Load(core.port, fleet, recorder, FAT) as load:
            await load.progress(100)
            await until(lambda: num_busy(recorder) > 20, "devices are told BUSY", seconds=30)
            filler.unlink()
            await load.progress(500, seconds=30)
            proxy.cut(Wire.WHOLE)
            await load.settle()
            await checker.until_stored()
            assert await core.stop() == 0
    checker.check(acked_min=600)


async def test_a_core_killed_on_a_full_disk_starts_on_it_and_drains_it(
    disk: Path, new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(data_dir=disk / "core", database_url=proxy.url)
        await core.started()
        proxy.cut(Wire.REFUSED)
        proxy.cut_all()
        async with Load(core.port, fleet, recorder, FAT) as load:
            await until(lambda: num_busy(recorder) > 5, "devices are told BUSY", seconds=30)
            fill(disk)
            await core.kill()
            proxy.cut(Wire.WHOLE)
            core.start()
            # The filler stays: only what the drain frees makes room.
            await load.progress(2000, seconds=60)
            await load.settle()
            await checker.until_stored()
            assert await core.stop() == 0
    checker.check(acked_min=2000)


async def test_a_core_that_cannot_write_its_log_goes_on(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(database_url=proxy.url)
        await core.started(NO_ROOM_FOR_LOGS)
        async with Load(core.port, fleet, recorder) as load:
            await load.progress(500)
            # That the database is away is said in the log, again and again.
            proxy.cut(Wire.REFUSED)
            proxy.cut_all()
            await load.progress(500)
            await until_in_thread(
                lambda: core.metric("database_circuit_state") > 0, "the database is missed", seconds=30
            )
            proxy.cut(Wire.WHOLE)
            await load.settle()
            await checker.until_stored()
            assert await core.stop() == 0
    checker.check(acked_min=1000)
