"""PostgreSQL is killed, stopped, frozen, or not there at all: devices hear nothing of it, and afterwards all is stored once."""

import asyncio
import json

import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials, Peer

MILLION = 1_000_000
STEADY = Plan(pause_seconds=0.005)


def readiness(core: Core) -> tuple[int, str]:
    status, body = core.get("/health/readiness")
    return status, str(json.loads(body)["status"]) if body else ""


@pytest.mark.parametrize("fault", ["kill", "stop_immediately"])
async def test_a_database_that_dies_under_load_costs_no_event_and_only_degrades_the_core(
    fault: str, new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    await core.started()
    async with Load(core.port, fleet, recorder, STEADY) as load:
        for _ in range(3):
            await load.progress(500)
            await getattr(database, fault)()
            await until_in_thread(lambda: readiness(core) == (200, "degraded"), "the core says that it is degraded")
            await load.progress(500)
            await database.start()
        await until_in_thread(lambda: readiness(core) == (200, "ready"), "the core is ready again", seconds=60)
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0
    assert checker.check(acked_min=3000).busy == 0


async def test_a_frozen_database_costs_no_event(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    await core.started()
    async with Load(core.port, fleet, recorder, STEADY) as load:
        for _ in range(3):
            await load.progress(500)
            database.freeze()
            await load.progress(3000)
            assert readiness(core)[0] == 200
            database.thaw()
        await load.settle()
        await checker.until_stored(seconds=90)
        assert await core.stop() == 0
    assert checker.check(acked_min=9000).busy == 0


async def test_a_database_frozen_while_the_core_is_killed_stores_every_event_once(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    await core.started()
    async with Load(core.port, fleet, recorder, STEADY) as load:
        await load.progress(500)
        database.freeze()
        await load.progress(1000)
        await core.kill()
        core.start()
        await load.progress(1000)
        database.thaw()
        await load.settle()
        await checker.until_stored(seconds=90)
    checker.check(acked_min=2000)


async def test_a_million_events_that_arrive_while_the_database_is_away_are_all_stored_once(
    new_core: NewCore, database: Database, recorder: Recorder, checker: Checker
) -> None:
    fleet = database.add_devices(10)
    core = new_core(
        journal_segment_bytes=16 << 20, journal_bytes_max=1 << 30, frame_bytes_max=1 << 20, batch_age_ms_max=200
    )
    await core.started()
    await database.kill()
    plan = Plan(events_per_frame=(8000, 8000), events_max=MILLION // len(fleet), frames_in_flight=4)
    async with Load(core.port, fleet, recorder, plan) as load:
        await load.settle(seconds=60)
    await database.start()
    assert checker.lost(), "nothing was waiting for the database"
    await checker.until_stored(seconds=60)
    assert await core.stop() == 0
    assert checker.check(acked_min=MILLION).num_acked == MILLION


async def test_a_core_started_while_the_database_is_away_authenticates_from_its_snapshot(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    async with Load(core.port, fleet, recorder, STEADY) as load:
        core.start()
        await load.progress(200)
        await core.stop()
        await database.kill()
        assert await core.started() == "degraded"
        await load.progress(500)
        stranger = await Peer.dial(core.port)
        await stranger.send("hello", **Credentials(fleet[0].device_id, fleet[1].token).hello())
        assert await stranger.refused() == "auth_failed"
        await core.kill()
        assert await core.started() == "degraded"
        await load.progress(500)
        await database.start()
        await load.settle()
        await checker.until_stored()
    checker.check(acked_min=1000)


async def test_a_core_that_never_saw_its_registry_is_not_ready_until_the_database_is_there(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    await database.kill()
    core = new_core()
    core.start()
    await until_in_thread(lambda: readiness(core) == (503, "not_ready"), "the core says that it is not ready")
    assert await asyncio.to_thread(core.get, "/health/liveness") == (200, core.get("/health/liveness")[1])
    await database.start()
    # The registry and the drain find the database again one after the other, and between the two the core is degraded.
    await until_in_thread(lambda: readiness(core) == (200, "ready"), "the core is ready", seconds=60)
    peer = await Peer.join(core.port, device)
    await peer.close()
