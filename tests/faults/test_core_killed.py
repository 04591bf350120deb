"""kill -9 of the core under load, again and again. `make crash` sets HSE_CRASH_KILLS for a longer run."""

import asyncio
import os
import random

import pytest

from tests.faults.checker import Checker
from tests.faults.conftest import NewCore
from tests.faults.load import Load
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials

NUM_KILLS = int(os.environ.get("HSE_CRASH_KILLS", "50"))
EVENTS_BETWEEN_KILLS_MAX = 3000


@pytest.mark.timeout(120 + 6 * NUM_KILLS)
@pytest.mark.parametrize(("lanes", "num_kills"), [(1, NUM_KILLS * 4 // 5), (3, NUM_KILLS // 5)])
async def test_a_core_killed_again_and_again_under_load_loses_and_doubles_nothing(
    lanes: int, num_kills: int, new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    chance = random.Random(lanes)
    core = new_core(lanes=lanes, batch_age_ms_max=300)  # much is in the journal only, at every kill
    async with Load(core.port, fleet, recorder) as load:
        for kill in range(num_kills):
            core.start()
            if kill and chance.random() < 0.2:
                await asyncio.sleep(chance.uniform(0, 0.4))  # somewhere in start-up and recovery
            else:
                await load.progress(chance.randint(1, EVENTS_BETWEEN_KILLS_MAX))
            await core.kill()
            assert recorder.num_broken == 0, checker.violations()
        await core.started()
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0
    checker.check(acked_min=num_kills * 10)


async def test_a_killed_core_gives_its_first_answer_within_two_seconds(
    new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    async with Load(core.port, fleet, recorder) as load:
        core.start()
        await load.progress(5000)
        await core.kill()
        core.start()
        await load.progress(1, seconds=2.0)
        await load.settle()
        await checker.until_stored()
    checker.check(acked_min=5000)
