"""A server is killed while commands are under way: who is asked says so at once, and afterwards each command is where it was."""

import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.api.world import World
from tests.faults.cache import Cache
from tests.faults.commands import Commander, Done, read_commands, until_ended, violations, watched_states
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.control_plane import ControlPlane
from tests.faults.core import SERVICE_TOKEN, Core
from tests.faults.database import Database
from tests.faults.wire import Credentials, Peer

HOUR_SECONDS = 3600
PATIENCE_SECONDS = 60.0
# The api answers within what a pool of connections waits.
REFUSED_SECONDS_MAX = 20.0


@dataclass
class Scene:
    """A node with its control plane, and what its devices have done."""

    database: Database
    core: Core
    control_plane: ControlPlane
    commander: Commander
    done: dict[UUID, list[Done]]

    async def do(self, peer: Peer, device: Credentials) -> UUID:
        """Have a device hear of a command and answer; returns its id."""
        command_id = await self.hear(peer, device)
        await peer.send("result", request_id=str(command_id), status=0)
        return command_id

    async def hear(self, peer: Peer, device: Credentials) -> UUID:
        """Have a device hear of a command."""
        message = await peer.receive(seconds=PATIENCE_SECONDS)
        assert message.name == "command", message
        params = message["params"]
        assert isinstance(params, dict)
        command_id = UUID(str(message["request_id"]))
        self.done.setdefault(device.device_id, []).append(Done(device.device_id, params["number"], command_id))
        return command_id

    async def becomes(self, command_id: UUID, state: str) -> None:
        """Wait until a command is in a state."""
        select = "select state from device_commands where id = %s"
        await until_in_thread(
            lambda: self.database.execute(select, [command_id]) == [(state,)],
            f"the command is {state}",
            seconds=PATIENCE_SECONDS,
        )

    async def all_succeed(self, devices: Sequence[Credentials]) -> None:
        """Wait until every command has ended, and see that each has done so truly, and well."""
        ids = [device.device_id for device in devices]
        await until_ended(self.database, ids, seconds=PATIENCE_SECONDS)
        kept = read_commands(self.database, ids)
        found = violations(self.commander.sent, kept, self.done)
        assert not found, "\n".join(found)
        assert {one.state for one in kept} == {"succeeded"}


@pytest.fixture
async def scene(
    new_core: NewCore, database: Database, cache: Cache, people: World, fleet: list[Credentials], tmp_path: Path
) -> AsyncIterator[Scene]:
    assert fleet  # registered before the node starts
    core = new_core(node_name="n1", redis_url=cache.url)
    await core.started()
    control_plane = ControlPlane(tmp_path, database, redis_url=cache.url, service_token=SERVICE_TOKEN)
    await control_plane.start()
    with watched_states(database):
        yield Scene(database, core, control_plane, Commander(control_plane.url, people.root), {})
        await database.ensure_running()
    control_plane.clean_up()
    for program in (control_plane.api, control_plane.worker):
        print(f"--- the end of {program.log_path.name}\n{program.tail()}")


@pytest.mark.timeout(300)
async def test_postgresql_that_is_killed_while_commands_are_under_way_loses_none_and_no_answer(
    scene: Scene, database: Database, fleet: list[Credentials]
) -> None:
    present, absent = fleet[:2]
    peer = await Peer.join(scene.core.port, present)
    under_way = await scene.commander.send(present.device_id, timeout_seconds=HOUR_SECONDS)
    assert await scene.hear(peer, present) == under_way
    await scene.becomes(under_way, "delivered")
    queued = [await scene.commander.send(absent.device_id, timeout_seconds=HOUR_SECONDS) for _ in range(3)]
    await database.kill()
    await peer.send("result", request_id=str(under_way), status=0)
    async with httpx.AsyncClient(base_url=scene.control_plane.url, timeout=REFUSED_SECONDS_MAX) as client:
        path = f"/api/v1/devices/{present.device_id}/commands"
        answer = await client.post(path, headers=scene.commander.headers(), json={"type": "do"})
    assert (answer.status_code, answer.json()["code"]) == (503, "service.unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    # Who connects meanwhile is welcome, and gets what waits when it is known again.
    late = await Peer.join(scene.core.port, absent)
    await database.start()
    await scene.becomes(under_way, "succeeded")
    assert [await scene.do(late, absent) for _ in queued] == queued
    await scene.all_succeed([present, absent])


@pytest.mark.timeout(300)
async def test_redis_that_is_killed_while_commands_are_under_way_delays_none_and_a_new_worker_until_it_is_back(
    scene: Scene, cache: Cache, fleet: list[Credentials]
) -> None:
    device, worker = fleet[0], scene.control_plane.worker
    peer = await Peer.join(scene.core.port, device)
    under_way = await scene.commander.send(device.device_id, timeout_seconds=HOUR_SECONDS)
    assert await scene.hear(peer, device) == under_way
    await scene.becomes(under_way, "delivered")
    await cache.kill()
    await peer.send("result", request_id=str(under_way), status=0)
    await scene.becomes(under_way, "succeeded")
    # Where the node is was known before.
    without_redis = await scene.commander.send(device.device_id, timeout_seconds=HOUR_SECONDS)
    assert await scene.do(peer, device) == without_redis
    await scene.becomes(without_redis, "succeeded")
    # A new worker knows no node.
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    worker.start()
    waiting = await scene.commander.send(device.device_id, timeout_seconds=HOUR_SECONDS)
    select = "select state, message from device_commands where id = %s"
    await until_in_thread(
        lambda: scene.database.execute(select, [waiting]) == [("queued", "no ingest node is known")],
        "it is said why it waits",
        seconds=PATIENCE_SECONDS,
    )
    await cache.start()
    assert await scene.do(peer, device) == waiting
    await scene.all_succeed([device])
