"""Both planes and their servers, killed and frozen in turn and together, under load, with commands under way.

`make chaos` sets HSE_CHAOS_SECONDS for a longer run, and draws another schedule with HSE_CHAOS_SEED.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.api.world import World
from tests.faults.balancer import Balancer
from tests.faults.cache import Cache
from tests.faults.checker import Checker
from tests.faults.commands import Commander, Done, read_commands, until_ended, violations, watched_states
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.control_plane import ControlPlane
from tests.faults.core import SERVICE_TOKEN
from tests.faults.database import Database
from tests.faults.load import DeviceLoad, Load, Plan
from tests.faults.planes import Planes
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials

SECONDS = int(os.environ.get("HSE_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("HSE_CHAOS_SEED", "1"))
UNHURRIED = Plan(pause_seconds=0.02, resend_max=60)
BETWEEN_COMMANDS_SECONDS = (0.05, 0.4)
KINDS = ("do", "do", "do", "fail", "mute")
TIMEOUTS_SECONDS = (2, 10, 20)
# A worker that was killed has had its claims for half a minute.
LAST_TIMEOUT_SECONDS = 120


@pytest.fixture
async def planes(
    new_core: NewCore,
    database: Database,
    cache: Cache,
    people: World,  # noqa: ARG001 (he who commands, and the login of the api)
    fleet: list[Credentials],
    tmp_path: Path,
) -> AsyncIterator[Planes]:
    assert fleet  # registered before the nodes start
    nodes = [new_core(node_name=name, redis_url=cache.url) for name in ("node a", "node b")]
    control_plane = ControlPlane(
        tmp_path,
        database,
        redis_url=cache.url,
        service_token=SERVICE_TOKEN,
        rate_limit_address_per_minute=100_000,
        rate_limit_user_per_minute=100_000,
    )
    made = Planes(database, cache, nodes, control_plane)
    await made.start()
    yield made
    control_plane.clean_up()
    print("\n".join(made.log))
    for program in (control_plane.api, control_plane.worker):
        print(f"--- the end of {program.log_path.name}\n{program.tail()}")


async def command(commander: Commander, device: UUID, chance: random.Random, is_over: asyncio.Event) -> None:
    """Send a device one command after another, and a last one that it must do."""
    while not is_over.is_set():
        timeout = chance.choice(TIMEOUTS_SECONDS)
        await commander.send(device, chance.choice(KINDS), timeout_seconds=timeout)
        await asyncio.sleep(chance.uniform(*BETWEEN_COMMANDS_SECONDS))
    await commander.send(device, timeout_seconds=LAST_TIMEOUT_SECONDS)


def deeds(device: DeviceLoad) -> list[Done]:
    """What a device was told, in the order in which it heard of it first."""
    params = {request_id: told["params"] for request_id, told in device.commands.items()}
    return [
        Done(device.credentials.device_id, int(one["number"]), UUID(request_id))
        for request_id, one in params.items()
        if isinstance(one, dict)
    ]


@pytest.mark.timeout(400 + 2 * SECONDS)
async def test_nothing_is_lost_or_doubled_and_no_command_lies_whatever_is_killed_and_frozen(
    planes: Planes, people: World, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    chance = random.Random(SEED)
    ids = [device.device_id for device in fleet]
    commander = Commander(planes.control_plane.url, people.root)
    is_over = asyncio.Event()
    with watched_states(planes.database):
        async with (
            planes.managed(),
            Balancer([node.port for node in planes.nodes]).listening() as balancer,
            Load(balancer.port, fleet, recorder, UNHURRIED) as load,
            asyncio.TaskGroup() as commanding,
        ):
            for device in ids:
                commanding.create_task(command(commander, device, random.Random(chance.random()), is_over))
            await planes.torment(chance, SECONDS)
            await planes.whole()
            is_over.set()
            await load.settle(seconds=90)
            await checker.until_stored(seconds=90)
            await until_ended(planes.database, ids, seconds=LAST_TIMEOUT_SECONDS + 30)
            await until_in_thread(
                lambda: all(node.metric("journal_bytes") == 0 for node in planes.nodes),
                "the journals are empty",
                seconds=60,
            )
        kept = read_commands(planes.database, ids)
    found = violations(commander.sent, kept, {one.credentials.device_id: deeds(one) for one in load.devices})
    assert not found, "\n".join(found)
    last = {one.device_id: one for one in sorted(kept, key=lambda one: one.number)}
    assert {one.state for one in last.values()} == {"succeeded"}, last
    states = [one.state for one in kept]
    assert states.count("succeeded") > len(fleet), states
    checker.check(acked_min=1000)
    print(f"{len(kept)} commands: { {state: states.count(state) for state in set(states)} }; {commander.problems}")
