"""How devices are now: as the core writes it into Redis, and as the database knows it when nobody else can tell."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
import redis as redis_client

from hse.adapters.guarded_redis import GuardedRedis
from hse.adapters.live_states import RedisLiveStates
from hse.adapters.postgres.engine import create_engine
from hse.api.app import Parts
from hse.api.history import History
from tests.api.conftest import Client, serving
from tests.api.graphql import data
from tests.api.profiled import give_profile, new_profile
from tests.api.world import World
from tests.storage.drain import Reading, drain

SEEN = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
MILLISECONDS = 1_772_368_215_250


def written(device: UUID, node: str, **changes: Any) -> str:
    """What the core writes (source plan §5.3)."""
    state = {
        "deviceId": str(device),
        "status": "online",
        "lastEvent": {"type": "power", "value": 1.5, "unit": "kW", "timestamp": MILLISECONDS},
        "connectionState": {
            "connected": True,
            "lastSeen": MILLISECONDS,
            "protocol": "hdp",
            "remoteAddress": "192.0.2.7:4711",
            "node": node,
        },
        "updatedAt": MILLISECONDS,
        **changes,
    }
    return json.dumps(state)


@pytest.fixture
def node() -> str:
    """The name of an ingest node of this test's own."""
    return f"node-{uuid4().hex}"


@pytest.fixture
def redis(valkey_url: str) -> Iterator["redis_client.Redis"]:
    with redis_client.Redis.from_url(valkey_url) as client:
        yield client


@pytest_asyncio.fixture
async def live(parts: Parts, world: World, valkey_url: str) -> AsyncIterator[Client]:  # noqa: ARG001
    states = RedisLiveStates(GuardedRedis(valkey_url, purpose="tests"))
    async with serving(replace(parts, history=History(states=states))) as client:
        yield client


async def state_of(api: Client, world: World, device: UUID) -> dict[str, Any]:
    response = await api.get(f"/api/v1/devices/{device}/state", headers=world.chief.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_a_state_is_told_as_the_core_wrote_it(
    live: Client, world: World, redis: "redis_client.Redis", node: str
) -> None:
    first, second = (site.device_id for site in world.tenant.sites)
    redis.set(f"ingest:node:{node}", "{}", ex=60)
    redis.set(f"device:state:{first}", written(first, node))
    redis.set(f"device:state:{second}", written(second, node, status="error", lastEvent=None, somethingNew=1))
    found = await state_of(live, world, first)
    assert found == {
        "device_id": str(first),
        "status": "online",
        "is_live": True,
        "last_event": {"type": "power", "time": "2026-03-01T12:30:15.250000Z", "value": 1.5, "unit": "kW"},
        "connection": {
            "is_connected": True,
            "last_seen": "2026-03-01T12:30:15.250000Z",
            "protocol": "hdp",
            "remote_address": "192.0.2.7:4711",
            "node": node,
        },
        "updated_at": "2026-03-01T12:30:15.250000Z",
        "overdue_since": None,
    }
    params = {"device_id": [str(second), str(first)]}
    listed = (await live.get("/api/v1/telemetry/states", headers=world.chief.headers, params=params)).json()
    assert [(one["device_id"], one["status"]) for one in listed] == [(str(second), "error"), (str(first), "online")]
    query = '{ devices(first: 10, sort: "name") { edges { node { state { status connection { node } } } } } }'
    edges = (await data(live, world.chief, query))["devices"]["edges"]
    assert [edge["node"]["state"]["status"] for edge in edges] == ["online", "error"]


async def test_the_states_of_a_node_that_is_gone_are_not_believed(
    live: Client, world: World, redis: "redis_client.Redis", node: str
) -> None:
    device = world.tenant.sites[0].device_id
    redis.set(f"device:state:{device}", written(device, node))
    found = await state_of(live, world, device)
    assert (found["status"], found["is_live"], found["connection"]) == ("unknown", False, None)
    assert found["last_event"]["value"] == 1.5
    gone = {"connected": False, "lastSeen": MILLISECONDS, "protocol": "hdp", "remoteAddress": None, "node": node}
    redis.set(f"device:state:{device}", written(device, node, status="offline", connectionState=gone))
    found = await state_of(live, world, device)
    assert (found["status"], found["is_live"], found["connection"]["is_connected"]) == ("offline", True, False)


async def test_what_redis_does_not_know_is_found_in_the_database(
    live: Client, parts: Parts, world: World, redis: "redis_client.Redis"
) -> None:
    known, silent = (site.device_id for site in world.tenant.sites)
    now = datetime.now(UTC)
    engine = create_engine(world.database_url)
    drain(
        engine,
        [
            Reading(time=now - timedelta(hours=3), device_id=known, value=2.0, event_type="power", unit="W"),
            Reading(time=now - timedelta(days=3), device_id=known, value=1.0, event_type="door"),
        ],
    )
    engine.dispose()
    redis.set(f"device:state:{silent}", "rubbish")
    params = {"device_id": [str(known), str(silent)]}
    away = RedisLiveStates(GuardedRedis("redis://127.0.0.1:1/0", purpose="tests"))
    async with serving(replace(parts, history=History(states=away))) as without_redis:
        for client, status in ((live, "offline"), (without_redis, "unknown")):
            response = await client.get("/api/v1/telemetry/states", headers=world.chief.headers, params=params)
            first, second = response.json()
            assert (first["status"], first["is_live"], first["connection"]) == (status, False, None)
            assert (first["last_event"]["type"], first["last_event"]["value"]) == ("power", 2.0)
            assert (second["status"], second["last_event"], second["updated_at"]) == (status, None, None)


async def test_a_state_is_kept_from_whom_it_is_none_of_his_business(
    live: Client, world: World, redis: "redis_client.Redis", node: str
) -> None:
    device = world.tenant.sites[0].device_id
    redis.set(f"ingest:node:{node}", "{}", ex=60)
    redis.set(f"device:state:{device}", written(device, node))
    for person, status in ((world.other_chief, 404), (world.other_site_admin, 404), (world.custom, 403)):
        for path, params in ((f"devices/{device}/state", {}), ("telemetry/states", {"device_id": str(device)})):
            response = await live.get(f"/api/v1/{path}", headers=person.headers, params=params)
            assert response.status_code == status
            assert "192.0.2.7" not in response.text


async def test_a_device_is_overdue_as_long_as_it_is_silent(
    live: Client, world: World, redis: "redis_client.Redis", node: str
) -> None:
    """Of which something is expected every minute: known from Redis as from the database."""
    heard, stored = (site.device_id for site in world.tenant.sites)
    now = datetime.now(UTC).replace(microsecond=0)
    last = now - timedelta(minutes=10)
    milliseconds = int(last.timestamp() * 1000)
    event = {"type": "power", "value": 1.5, "unit": "kW", "timestamp": milliseconds}
    redis.set(f"device:state:{heard}", written(heard, node, lastEvent=event))
    engine = create_engine(world.database_url)
    drain(engine, [Reading(time=last, device_id=stored, value=2.0)])
    engine.dispose()
    assert [(await state_of(live, world, one))["overdue_since"] for one in (heard, stored)] == [None, None]
    profile = new_profile(world, world.tenant, expected_interval_s=60)
    for device in (heard, stored):
        give_profile(world, device, profile)
    due = (last + timedelta(minutes=3)).isoformat().replace("+00:00", "Z")
    assert [(await state_of(live, world, one))["overdue_since"] for one in (heard, stored)] == [due, due]
    query = '{ devices(first: 10, sort: "name") { edges { node { state { overdueSince } } } } }'
    edges = (await data(live, world.chief, query))["devices"]["edges"]
    assert [edge["node"]["state"]["overdueSince"] for edge in edges] == [due.replace("Z", "+00:00")] * 2
    # The admin of one site is not shown that of another, and nobody's who sees no telemetry.
    for person, status in ((world.admin, 404), (world.custom, 404), (world.user, 404)):
        answer = await live.get(f"/api/v1/devices/{stored}/state", headers=person.headers)
        assert (answer.status_code, due in answer.text) == (status, False)
    redis.set(
        f"device:state:{heard}", written(heard, node, lastEvent={**event, "timestamp": int(now.timestamp() * 1000)})
    )
    assert (await state_of(live, world, heard))["overdue_since"] is None
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update devices set is_enabled = false where id = %s", [stored])
    assert (await state_of(live, world, stored))["overdue_since"] is None
