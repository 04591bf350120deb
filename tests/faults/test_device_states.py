"""The state of each device in Redis: what it says, and that losing it, or Redis, costs nothing else."""

import asyncio
import json
import time

import pytest

from tests.faults.cache import Cache
from tests.faults.checker import Checker
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials, Peer

SEVEN_DAYS = 7 * 24 * 3600
STEADY = Plan(pause_seconds=0.002)
PATIENCE_SECONDS = 60.0  # for what takes a second or two on a machine that has nothing else to do


@pytest.fixture
async def core(new_core: NewCore, cache: Cache, device: Credentials, fleet: list[Credentials]) -> Core:
    assert device not in fleet  # all are registered before the core starts
    made = new_core(redis_url=cache.url, node_name="a")
    await made.started()
    return made


async def has_status(cache: Cache, device: Credentials, status: str) -> None:
    await until_in_thread(
        lambda: cache.status(device.device_id) == status, f"the device is {status}", seconds=PATIENCE_SECONDS
    )


async def has_value(cache: Cache, device: Credentials, value: float) -> None:
    def is_there() -> bool:
        event = cache.state(device.device_id).get("lastEvent") or {}
        return bool(event.get("value") == value)

    await until_in_thread(is_there, f"the last value is {value}", seconds=PATIENCE_SECONDS)


async def test_a_state_has_the_documented_form_from_the_connection_to_its_end(
    core: Core, cache: Cache, device: Credentials
) -> None:
    before = time.time_ns() // 1_000_000
    peer = await Peer.join(core.port, device)
    await has_status(cache, device, "online")
    assert cache.state(device.device_id)["lastEvent"] is None
    time_us = time.time_ns() // 1000
    await peer.acked(1, {"time_us": time_us, "type": 'say ,"connectionState":', "value": 0.1, "unit": "°C"})
    await has_value(cache, device, 0.1)
    state = cache.state(device.device_id)
    connection = state.pop("connectionState")
    assert before <= state.pop("updatedAt") <= time.time_ns() // 1_000_000
    event = {"type": 'say ,"connectionState":', "value": 0.1, "unit": "°C", "timestamp": time_us // 1000}
    assert state == {"deviceId": str(device.device_id), "status": "online", "lastEvent": event}
    assert before <= connection["connectedAt"] <= connection["lastSeen"] <= time.time_ns() // 1_000_000
    assert (connection["connected"], connection["protocol"], connection["node"]) == (True, "hdp", "a")
    assert connection["remoteAddress"].startswith("127.0.0.1:")
    assert cache.seconds_left(device.device_id) == -1
    await peer.close()
    await has_status(cache, device, "offline")
    state = cache.state(device.device_id)
    assert (state["lastEvent"], state["connectionState"]["connected"]) == (event, False)
    assert SEVEN_DAYS - 60 < cache.seconds_left(device.device_id) <= SEVEN_DAYS


async def test_the_newest_event_wins_whatever_the_order_of_arrival(
    core: Core, cache: Cache, device: Credentials
) -> None:
    base = time.time_ns() // 1000 - 60_000_000
    peer = await Peer.join(core.port, device)
    newest = {"time_us": base + 9_000_000, "type": "t", "value": 9}
    await peer.acked(1, newest, {"time_us": base, "type": "t", "value": 1})
    await has_value(cache, device, 9)
    await peer.acked(3, {"time_us": base + 8_000_000, "type": "t", "value": 8})
    await peer.close()
    await has_status(cache, device, "offline")
    assert cache.state(device.device_id)["lastEvent"]["value"] == 9
    # What the node has forgotten meanwhile, Redis still knows.
    again = await Peer.join(core.port, device, epoch=2)
    await again.acked(1, {"time_us": base + 7_000_000, "type": "t", "value": 7})
    await has_status(cache, device, "online")
    await again.close()
    await has_status(cache, device, "offline")
    assert cache.state(device.device_id)["lastEvent"]["value"] == 9
    again = await Peer.join(core.port, device, epoch=2)
    await again.acked(2, {"time_us": base + 9_000_000, "type": "t", "value": 10})
    await has_value(cache, device, 10)
    await again.close()


async def test_a_device_whose_last_event_is_an_error_is_in_error_until_another_comes(
    core: Core, cache: Cache, device: Credentials
) -> None:
    peer = await Peer.join(core.port, device)
    await peer.acked(1, {"type": "error"})
    await has_status(cache, device, "error")
    await peer.acked(2, {"type": "temperature", "value": 1})
    await has_status(cache, device, "online")
    await peer.close()


async def test_a_device_that_falls_silent_is_offline_and_one_that_pings_is_seen(
    new_core: NewCore, cache: Cache, fleet: list[Credentials]
) -> None:
    core = new_core(redis_url=cache.url, keepalive_s=1)
    await core.started()
    silent, alive = await Peer.join(core.port, fleet[0]), await Peer.join(core.port, fleet[1])
    await has_status(cache, fleet[1], "online")
    first_seen = cache.state(fleet[1].device_id)["connectionState"]["lastSeen"]
    ending = asyncio.create_task(has_status(cache, fleet[0], "offline"))
    while not ending.done():
        await alive.ask("ping", nonce=1)
        await asyncio.sleep(0.2)
    await ending
    state = cache.state(fleet[1].device_id)
    assert state["status"] == "online"
    assert state["connectionState"]["lastSeen"] > first_seen
    await asyncio.gather(silent.close(), alive.close())


async def test_a_child_is_connected_through_its_gateway(
    new_core: NewCore, cache: Cache, database: Database, device: Credentials
) -> None:
    child, silent = database.add_devices(2, gateway=device)
    core = new_core(redis_url=cache.url)
    await core.started()
    peer = await Peer.join(core.port, device)
    await peer.acked(1, {"type": "t", "value": 1}, {"type": "t", "value": 2, "device_id": child.device_id})
    await has_value(cache, child, 2)
    await has_value(cache, device, 1)
    ours, its = (cache.state(one.device_id)["connectionState"] for one in (device, child))
    assert its["connected"]
    assert its["remoteAddress"] == ours["remoteAddress"]
    assert cache.status(silent.device_id) is None
    await peer.close()
    await has_status(cache, child, "offline")


async def test_what_is_lost_in_redis_is_written_again(core: Core, cache: Cache, fleet: list[Credentials]) -> None:
    peers = [await Peer.join(core.port, device) for device in fleet]
    for value, peer in enumerate(peers):
        await peer.acked(1, {"type": "t", "value": value})
    for value, device in enumerate(fleet):
        await has_value(cache, device, value)
    cache.ask("FLUSHALL")
    for value, device in enumerate(fleet):
        await has_value(cache, device, value)
    cache.ask("SCRIPT", "FLUSH")
    await peers[0].acked(2, {"type": "t", "value": 100})
    await has_value(cache, fleet[0], 100)
    await cache.lose_everything()
    await cache.start()
    await has_value(cache, fleet[0], 100)
    for value, device in enumerate(fleet[1:], start=1):
        await has_value(cache, device, value)
    for peer in peers:
        await peer.close()


async def test_what_is_no_state_is_replaced(core: Core, cache: Cache, device: Credentials) -> None:
    key = f"device:state:{device.device_id}"
    for command in (("SET", key, "nothing of ours"), ("HSET", key, "a", "b")):
        cache.ask("DEL", key)
        cache.ask(*command)
        peer = await Peer.join(core.port, device)
        await until_in_thread(
            lambda: cache.ask("TYPE", key) == "string" and cache.ask("GET", key).startswith("{"),
            "the state is written",
            seconds=PATIENCE_SECONDS,
        )
        await peer.close()
        await has_status(cache, device, "offline")


@pytest.mark.parametrize("harm", ["killed", "frozen"])
async def test_redis_away_costs_nothing_but_the_cache(
    harm: str,
    core: Core,
    cache: Cache,
    fleet: list[Credentials],
    device: Credentials,
    recorder: Recorder,
    checker: Checker,
) -> None:
    def redis_circuit() -> str:
        return str(json.loads(core.get("/health/readiness")[1])["circuits"]["redis"])

    async with Load(core.port, fleet, recorder, STEADY) as load:
        await load.progress(200)
        await until_in_thread(lambda: redis_circuit() == "closed", "Redis is reached", seconds=PATIENCE_SECONDS)
        peer = await Peer.join(core.port, device)
        if harm == "killed":
            await cache.kill()
        else:
            cache.freeze()
        await until_in_thread(lambda: redis_circuit() != "closed", "the circuit opens", seconds=PATIENCE_SECONDS)
        await peer.acked(1, {"type": "t", "value": 1})
        await load.progress(500)
        assert core.get("/health/readiness")[0] == 200
        assert json.loads(core.get("/health/readiness")[1])["status"] == "ready"
        assert core.metric("redis_failures_total") > 0
        if harm == "killed":
            await cache.start()
        else:
            cache.thaw()
        await has_value(cache, device, 1)
        await peer.close()
        await has_status(cache, device, "offline")
        await load.settle()
    assert [one.sessions for one in load.devices] == [1] * len(fleet)
    await checker.until_stored()
    checker.check(acked_min=700)


async def test_a_node_stops_in_time_while_redis_is_frozen(core: Core, cache: Cache, device: Credentials) -> None:
    peer = await Peer.join(core.port, device)
    await has_status(cache, device, "online")
    cache.freeze()
    try:
        assert await core.stop() == 0
    finally:
        cache.thaw()
    await peer.close()


async def test_a_core_without_redis_shows_no_circuit_for_it(new_core: NewCore) -> None:
    core = new_core()
    await core.started()
    assert set(json.loads(core.get("/health/readiness")[1])["circuits"]) == {"database"}


async def test_a_node_is_registered_while_it_lives_and_leaves_its_devices_offline(
    core: Core, cache: Cache, device: Credentials
) -> None:
    await until_in_thread(lambda: cache.ask("GET", "ingest:node:a"), "the node is registered", seconds=PATIENCE_SECONDS)
    entry = json.loads(cache.ask("GET", "ingest:node:a"))
    assert set(entry) == {"name", "run", "grpcAddress", "startedAt"}
    assert entry["name"] == "a"
    assert 0 < cache.ask("TTL", "ingest:node:a") <= 15
    assert cache.ask("SMEMBERS", "ingest:node_names") == {"a"}
    peer = await Peer.join(core.port, device)
    await has_status(cache, device, "online")
    assert await core.stop() == 0
    await peer.close()
    assert cache.ask("GET", "ingest:node:a") is None
    assert cache.status(device.device_id) == "offline"


async def test_devices_of_a_run_that_was_killed_are_offline_once_the_node_is_back(
    core: Core, cache: Cache, device: Credentials, fleet: list[Credentials]
) -> None:
    gone, back = device, fleet[0]
    for one in (gone, back):
        await Peer.join(core.port, one)
        await has_status(cache, one, "online")
    await core.kill()
    assert cache.status(gone.device_id) == "online"
    await core.started()
    peer = await Peer.join(core.port, back)
    await has_status(cache, gone, "offline")
    await has_status(cache, back, "online")
    await peer.close()


async def test_a_device_belongs_to_the_node_that_it_connected_to_last(
    core: Core, new_core: NewCore, cache: Cache, device: Credentials, fleet: list[Credentials]
) -> None:
    other = new_core(redis_url=cache.url, node_name="b")
    await other.started()
    moved, stays = device, fleet[0]
    old = await Peer.join(core.port, moved)
    stays_here = await Peer.join(core.port, stays)
    await has_status(cache, moved, "online")
    await has_status(cache, stays, "online")
    new = await Peer.join(other.port, moved)

    def node() -> object:
        return cache.state(moved.device_id)["connectionState"]["node"]

    await until_in_thread(lambda: node() == "b", "the device is at the other node", seconds=PATIENCE_SECONDS)
    written = core.metric("device_states_written_total")
    await old.close()
    await until_in_thread(
        lambda: core.metric("device_states_written_total") > written, "its end is told", seconds=PATIENCE_SECONDS
    )
    assert (node(), cache.status(moved.device_id)) == ("b", "online")
    # Without a word, and for good: the other node sees that the first one's entry is gone.
    await core.kill()
    await has_status(cache, stays, "offline")
    assert (node(), cache.status(moved.device_id)) == ("b", "online")
    assert cache.ask("SMEMBERS", "ingest:node_names") == {"b"}
    await asyncio.gather(new.close(), stays_here.close())
