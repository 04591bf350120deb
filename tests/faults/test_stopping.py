"""How a core stops, pauses, and keeps others off its journal."""

import signal
import time

from tests.faults.checker import Checker
from tests.faults.conftest import NewCore
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.recorder import Recorder, read_record
from tests.faults.wire import Credentials, Peer

FROZEN_SECONDS = 3.0


async def test_a_core_told_to_stop_answers_what_is_in_flight_and_says_goodbye_last(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    core = new_core()
    await core.started()
    peer = await Peer.join(core.port, device)
    for seq in range(1, 21):
        await peer.send_events(seq, {"type": "t", "value": seq})
    assert (await peer.receive()).name == "ack"
    core.signal(signal.SIGTERM)
    heard = await peer.everything()
    assert [message.name for message in heard[:-1]] == ["ack"] * (len(heard) - 1)
    assert (heard[-1].name, heard[-1]["code"]) == ("error", "shutting_down")
    promised = max((message.number("seq") for message in heard[:-1]), default=1)
    assert await core.ended() == 0, core.tail()
    stored = [event[2] for event in database.events_of(device.device_id)]
    assert stored[:promised] == [float(seq) for seq in range(1, promised + 1)]
    await peer.close()


async def test_a_core_stopped_under_load_has_stored_all_that_it_acknowledged_when_it_ends(
    new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    async with Load(core.port, fleet, recorder) as load:
        for _ in range(3):
            core.start()
            await load.progress(3000)
            assert await core.stop() == 0, core.tail()
            # The drain has finished: nothing is waited for here.
            assert not checker.violations()
        assert "shutting_down" in read_record(recorder.path).errors
        await core.started()
        await load.settle()
        assert await core.stop() == 0
    checker.check(acked_min=9000)


async def test_a_core_stopped_while_the_database_is_away_keeps_all_in_its_journal(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core(drain_timeout_s=2)
    await core.started()
    async with Load(core.port, fleet, recorder, Plan(pause_seconds=0.005)) as load:
        await load.progress(500)
        await database.kill()
        await load.progress(1000)
        assert await core.stop(seconds=15) == 0, core.tail()
        await database.start()
        assert checker.lost(), "nothing was left for the next start"
        await core.started()
        await load.settle()
        await checker.until_stored()
    checker.check(acked_min=1500)


async def test_a_frozen_core_goes_on_without_loss(
    new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    await core.started()
    async with Load(core.port, fleet, recorder) as load:
        await load.progress(1000)
        core.signal(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)  # noqa: ASYNC251 - the fault itself, and the devices stand still with the core
        core.signal(signal.SIGCONT)
        await load.progress(1000)
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0
    checker.check(acked_min=2000)


async def test_a_second_process_on_the_same_journal_is_refused_and_the_first_goes_on(
    new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    first = new_core()
    await first.started()
    second = new_core(data_dir=first.data_dir)
    second.log_path = first.log_path.with_suffix(".second")
    async with Load(first.port, fleet, recorder) as load:
        await load.progress(500)
        second.start()
        assert await second.ended() > 0
        assert str(first.data_dir) in second.tail(), second.tail()
        assert "another process" in second.tail().lower() or "lock" in second.tail().lower(), second.tail()
        await load.progress(500)
        await load.settle()
        assert await first.stop() == 0
    checker.check(acked_min=1000)
    assert not second.is_running
