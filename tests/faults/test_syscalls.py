"""The core dies at every N-th system call that changes its files, and a disk reports that it could not write.

In CI a bounded sample of N; HSE_SYSCALL_DEATHS=all (set by `make crash`) steps through all of them.
"""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import NeverHappened, until
from tests.faults.conftest import NewCore
from tests.faults.core import EXIT_POISONED, Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.proxy import DatabaseProxy, Wire
from tests.faults.recorder import Recorder
from tests.faults.strace import counting, dying_at, tampering, why_no_strace
from tests.faults.wire import Credentials, Peer

pytestmark = pytest.mark.skipif(why_no_strace() is not None, reason=why_no_strace() or "")

CALLS = ["write", "pwrite64", "fdatasync", "fsync", "rename", "fallocate"]
# Freed segments beyond the spares are unlinked; that needs a backlog, and has a test of its own.
CALLS_ON_FREEING = ["rename", "unlink"]
# Not used today. If the core begins to use one, it belongs into a list above.
CALLS_UNUSED = [
    "pwritev",
    "pwritev2",
    "renameat",
    "renameat2",
    "unlinkat",
    "ftruncate",
    "sync_file_range",
    "msync",
    "linkat",
]
IS_EVERY_N = os.environ.get("HSE_SYSCALL_DEATHS") == "all"
FIRST_DEATHS = 20
DEATHS_MAX = 2000
# Few and fat events, one frame in flight a device: many small groups, hence many calls, and segments of 1 MiB roll over twice.
FAT = Plan(padding=4096, events_per_frame=(1, 4), frames_in_flight=1)
EVENTS_OF_A_RUN = 600
# A run that is to die goes on for longer than the run whose calls were counted: how groups form and which thread makes a call
# differs, and on a busy machine more events share a call.
EVENTS_UNTIL_DEAD = 4 * EVENTS_OF_A_RUN


async def run_until_dead(core: Core, load: Load, call: str, number: int) -> bool:
    """Run under load; return whether the core died at its `number`-th `call` before so many events were acknowledged."""
    goal = load.num_acked + EVENTS_UNTIL_DEAD
    core.start(dying_at(call, number))
    await until(lambda: not core.is_running or load.num_acked >= goal, "the core dies or the run ends", seconds=60)
    if core.is_running:
        await core.kill()
        return False
    assert core.process.returncode == -9, core.tail()
    return True


async def count_calls(core: Core, load: Load, log: Path) -> Counter[str]:
    """Return, for each call, the largest number that one thread made in a run: what `when=N` counts."""
    goal = load.num_acked + EVENTS_OF_A_RUN
    core.start(counting(",".join([*CALLS, *CALLS_UNUSED]), log))
    await until(lambda: not core.is_running or load.num_acked >= goal, "the run ends", seconds=60)
    assert core.is_running, core.tail()
    await core.kill()
    return most_of_a_thread(log)


def most_of_a_thread(log: Path) -> Counter[str]:
    """Count a log's calls, each by the thread that made most of them."""
    by_thread = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE))
    most: Counter[str] = Counter()
    for (_, call), number in by_thread.items():
        most[call] = max(most[call], number)
    return most


async def move_to_an_empty_directory(core: Core, checker: Checker, directory: Path) -> None:
    """Store what the old journal holds, and go on as another node."""
    await core.started()
    await checker.until_stored()
    assert await core.stop() == 0, core.tail()
    core.settings["data_dir"] = directory


@pytest.mark.timeout(7200 if IS_EVERY_N else 300)
@pytest.mark.parametrize("call", CALLS)
async def test_a_core_that_dies_at_any_call_that_changes_its_files_loses_and_doubles_nothing(
    call: str, new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker, tmp_path: Path
) -> None:
    core = new_core(journal_bytes_max=4 << 20)
    deaths = 0
    async with Load(core.port, fleet, recorder, FAT) as load:
        counts = await count_calls(core, load, tmp_path / "calls")
        assert not counts.keys() & set(CALLS_UNUSED), f"the core makes calls that no test makes it die at: {counts}"
        last = counts[call]
        if last == 0:
            raise AssertionError(f"the core no longer calls {call}: test what it calls instead")
        numbers = list(range(1, min(last, DEATHS_MAX if IS_EVERY_N else FIRST_DEATHS) + 1))
        for number in numbers:
            if last < FIRST_DEATHS:
                # A call so rare belongs to the making of a journal: let this run make one.
                await move_to_an_empty_directory(core, checker, tmp_path / f"core-{number}")
            deaths += await run_until_dead(core, load, call, number)
            assert recorder.num_broken == 0, checker.violations()
        # And the last one: the largest that is still reached.
        for number in range(last, numbers[-1], -max(1, last // 10)):
            if await run_until_dead(core, load, call, number):
                deaths += 1
                break
        await core.started()
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0
    assert deaths > len(numbers) // 2, f"only {deaths} deaths at {call}, of which a run has {last}"
    print(f"{call}: survived {deaths} deaths, at numbers up to {last}")
    checker.check(acked_min=1)


@pytest.mark.parametrize("call", CALLS_ON_FREEING)
async def test_a_core_that_dies_while_it_frees_a_backlog_loses_and_doubles_nothing(
    call: str, new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    deaths = 0
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(database_url=proxy.url)
        async with Load(core.port, fleet, recorder, FAT) as load:
            for number in range(1, 4):
                proxy.cut(Wire.WHOLE)
                await core.started()
                proxy.cut(Wire.REFUSED)
                proxy.cut_all()
                await load.progress(2000)  # 8 MiB: eight segments
                await core.kill()
                proxy.cut(Wire.WHOLE)
                core.start(dying_at(call, number))
                try:
                    await until(lambda: not core.is_running, "the core dies while it frees segments", seconds=10)
                    deaths += 1
                except NeverHappened:
                    await core.kill()
            await core.started()
            await load.settle()
            await checker.until_stored()
            assert await core.stop() == 0
    assert deaths >= 2, f"only {deaths} deaths at {call}"
    checker.check(acked_min=6000)


@pytest.mark.parametrize("times", ["1", "1+"], ids=["once", "from now on"])
async def test_after_a_failed_fdatasync_nothing_is_acknowledged_and_the_process_ends(
    times: str,
    new_core: NewCore,
    database: Database,
    fleet: list[Credentials],
    recorder: Recorder,
    checker: Checker,
    tmp_path: Path,
) -> None:
    core = new_core()
    await core.started()
    async with Load(core.port, fleet[1:], recorder) as load:
        await load.progress(1000)
        await load.settle()
        peer = await Peer.join(core.port, fleet[0])
        await peer.acked(1, {"type": "before"})
        async with tampering(core.process.pid, tmp_path / "strace", "fdatasync,fsync", f"error=EIO:when={times}"):
            await peer.send_events(2, {"type": "after"})
            heard = [message.name for message in await peer.everything()]
            assert await core.ended() == EXIT_POISONED, core.tail()
        assert "INJECTED" in (tmp_path / "strace").read_text(encoding="utf-8")
        assert "ack" not in heard, f"acknowledged after a failed fdatasync: {heard}"
        await core.started()
        again = await Peer.join(core.port, fleet[0])
        assert again.last_seq in {1, 2}
        await again.acked(2, {"type": "after"})
        await again.close()
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0
    checker.check(acked_min=1000)
    assert [event[1] for event in database.events_of(fleet[0].device_id)] == ["before", "after"]


async def test_a_welcome_waits_until_what_the_older_connection_had_in_flight_is_decided(
    new_core: NewCore, device: Credentials, tmp_path: Path
) -> None:
    core = new_core()
    await core.started()
    older, newer = await Peer.join(core.port, device), await Peer.dial(core.port)
    async with tampering(core.process.pid, tmp_path / "strace", "fdatasync,fsync", "delay_enter=700000"):
        await older.send_events(1, *[{"type": "t", "value": seq} for seq in range(1, 6)])
        # The frame is in the journal's hands as soon as its sync has begun, which now takes long.
        traced = tmp_path / "strace"
        await until(lambda: "sync(" in traced.read_text(encoding="utf-8"), "the sync of the frame began")
        welcome = await newer.ask("hello", **device.hello())
    assert welcome.number("last_seq") == 5
    heard = [message.name for message in await older.everything()]
    assert heard[-1] == "error"
    assert set(heard[:-1]) <= {"ack"}
    await newer.close()


async def test_a_device_is_not_read_beyond_its_frames_in_flight_while_the_disk_is_slow(
    new_core: NewCore, device: Credentials, tmp_path: Path
) -> None:
    core = new_core(inflight_frames_max=4)
    await core.started()
    peer = await Peer.join(core.port, device)
    frame = peer.encode("events", first_seq=1, events=[{"type": "t", "metadata": {"k": "x" * 8000}}] * 25)
    limit = 64 << 20
    async with tampering(core.process.pid, tmp_path / "strace", "fdatasync,fsync", "delay_enter=20000000"):
        poured = await peer.pour(frame, limit)
    # Four frames are 0.8 MB; the rest are the buffers of two sockets.
    assert poured < limit // 2, "frames are read without an end while none is acknowledged"
    peer.abort()
    await core.kill()
