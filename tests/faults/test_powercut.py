"""A few power cuts, where the tools are there; `make powercut` makes many."""

import os
from pathlib import Path

import pytest

from tests.faults.database import Database
from tests.faults.disks import PowerCutDisk, why_no_power_cut
from tests.faults.powercut import survive_cuts
from tests.faults.strace import pretending, why_no_strace

pytestmark = pytest.mark.skipif(why_no_power_cut() is not None, reason=why_no_power_cut() or "")

NUM_CUTS = 4


def write(path: Path, *, is_synced: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x" * 5000)
    if is_synced:
        os.fsync(descriptor)
    os.close(descriptor)


async def test_a_power_cut_loses_what_was_not_synced_and_keeps_what_was(tmp_path: Path) -> None:
    async with PowerCutDisk(tmp_path / "disk").in_use() as disk:
        write(disk.mount_point / "synced", is_synced=True)
        write(disk.mount_point / "unsynced", is_synced=False)
        await disk.cut_power()
        await disk.power_on()
        names = {path.name for path in disk.mount_point.iterdir()}
    assert "synced" in names
    assert "unsynced" not in names


async def test_power_cuts_lose_and_double_nothing(database: Database, tmp_path: Path) -> None:
    await survive_cuts(tmp_path, database, NUM_CUTS, seed=1)


@pytest.mark.skipif(why_no_strace() is not None, reason=why_no_strace() or "")
async def test_power_cuts_are_noticed_when_the_core_only_pretends_to_sync(database: Database, tmp_path: Path) -> None:
    """The test above can fail: with syncs that do nothing, acknowledged events are gone."""
    pretence = pretending("fdatasync,fsync")
    with pytest.raises(AssertionError, match="lost"):
        await survive_cuts(tmp_path, database, NUM_CUTS, seed=1, wrapper=pretence, store_seconds=5.0)
