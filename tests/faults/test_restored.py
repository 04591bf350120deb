"""Journal and database part: one of them is put back from an older copy. Nothing that is still there is lost or doubled."""

import shutil
from pathlib import Path

import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.load import Load
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials


async def outgrow_a_copy(core: Core, load: Load, copy: Path) -> None:
    """Take a copy of the journal, store far more than it holds, and put the copy back; the core is left stopped."""
    core.start()
    await load.progress(1000)
    await core.kill()
    shutil.copytree(core.data_dir / "journal", copy)
    core.start()
    await load.progress(5000)
    assert await core.stop() == 0, core.tail()
    shutil.rmtree(core.data_dir / "journal")
    shutil.copytree(copy, core.data_dir / "journal")


@pytest.mark.parametrize("is_away_at_first", [False, True], ids=["database there", "database away, and a restart"])
async def test_an_older_copy_of_the_journal_loses_and_doubles_nothing(
    *,
    is_away_at_first: bool,
    new_core: NewCore,
    database: Database,
    fleet: list[Credentials],
    recorder: Recorder,
    checker: Checker,
    tmp_path: Path,
) -> None:
    core = new_core()
    async with Load(core.port, fleet, recorder) as load:
        await outgrow_a_copy(core, load, tmp_path / "copy")
        if is_away_at_first:
            # The copy takes events and is restarted before the database can say that it knows better.
            await database.stop_immediately()
            await core.started()
            await load.progress(1000)
            await core.kill()
            await database.start()
        await core.started()
        await load.progress(3000)
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0, core.tail()
    checker.check(acked_min=9000)
    assert any("older copy of itself" in line for line in core.log_lines())


async def test_a_database_that_has_forgotten_the_journal_is_told_of_it_while_the_core_runs(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    async with Load(core.port, fleet, recorder) as load:
        await core.started()
        await load.progress(2000)
        await until_in_thread(lambda: core.metric("events_stored_total") > 0, "a batch is stored")
        # As after a restore to before this node's first batch; the ranges and rows stay, so the checker can still judge.
        database.execute("delete from ingest_cursor")
        await load.progress(3000)
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0, core.tail()
    checker.check(acked_min=5000)
    assert any("database is older than this journal" in line for line in core.log_lines())
