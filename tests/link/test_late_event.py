"""An event of an hour that has long ended, from the device's socket to a series that was cached before it came."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest_asyncio

from hse.adapters.guarded_redis import GuardedRedis
from hse.adapters.history_cache import RedisHistoryCache
from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.maintenance import refresh_rollups
from hse.api.app import Parts
from hse.api.history import History
from tests.api.conftest import Client, api_database_url, parts, serving, world
from tests.api.world import World
from tests.faults.conditions import NeverHappened, until_in_thread
from tests.faults.conftest import knows, no_connection_is_left_open
from tests.faults.core import Core
from tests.faults.wire import Credentials, Peer

__all__ = ["api_database_url", "no_connection_is_left_open", "parts", "world"]

HOUR = timedelta(hours=1)
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
NUM_HOURS = 24
# What is promised, of which the core may wait a second for more events.
SECONDS_UNTIL_SEEN_MAX = 5.0
READ_SECONDS = 0.1


@pytest_asyncio.fixture
async def core(tmp_path: Path, world: World) -> AsyncIterator[Core]:
    """A node on the test's database that stores as seldom as one in production."""
    made = Core(tmp_path / "core", world.database_url, batch_age_ms_max=1000)
    await made.started()
    yield made
    made.clean_up()


@pytest_asyncio.fixture
async def cache(redis_url: str) -> RedisHistoryCache:
    return RedisHistoryCache(GuardedRedis(redis_url, purpose="tests"))


@pytest_asyncio.fixture
async def api(parts: Parts, core: Core, cache: RedisHistoryCache) -> AsyncIterator[Client]:  # noqa: ARG001 (the world is there)
    async with serving(replace(parts, history=History(cache=cache))) as client:
        yield client


def measured(hour: float, value: float) -> dict[str, object]:
    """What the device sends of a moment, in hours after the start."""
    time_us = int((START + hour * HOUR).timestamp() * 1_000_000)
    return {"type": "power", "value": value, "time_us": time_us}


def num_stored(world: World, device: UUID) -> int:
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute("select count(*) from device_events where device_id = %s", [device]).fetchone()
    assert row is not None
    return int(row[0])


def count_all(world: World) -> None:
    """Refresh the aggregates, and let time pass until late hours are forgotten."""
    engine = create_engine(world.database_url)
    refresh_rollups(engine, before=datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
    engine.dispose()
    with psycopg.connect(world.database_url) as connection:
        connection.execute("delete from late_hours")


async def maxima(api: Client, world: World, device: UUID) -> list[float | None]:
    """The series of the day, by hours."""
    window = {"from": START.isoformat(), "to": (START + NUM_HOURS * HOUR).isoformat(), "step": "1h", "type": "power"}
    params = {"device_id": str(device), "function": "max", **window}
    response = await api.get("/api/v1/telemetry/series", headers=world.user.headers, params=params)
    assert response.status_code == 200, response.text
    numbers: list[float | None] = response.json()["series"][0]["max"]
    return numbers


async def test_an_event_of_an_old_hour_shows_in_a_series_that_was_cached_before_within_five_seconds(
    api: Client, world: World, core: Core, cache: RedisHistoryCache
) -> None:
    device_id = world.tenant.sites[0].device_id
    response = await api.post(f"/api/v1/devices/{device_id}/token", headers=world.admin.headers)
    device = Credentials(device_id, response.json()["token"])
    await knows(core, device)
    peer = await Peer.join(core.port, device)
    await peer.acked(1, *(measured(hour + 0.5, float(hour)) for hour in range(NUM_HOURS)))
    await until_in_thread(lambda: num_stored(world, device_id) == NUM_HOURS, "the day is stored", seconds=30)
    count_all(world)
    expected: list[float | None] = [float(hour) for hour in range(NUM_HOURS)]
    assert await maxima(api, world, device_id) == expected
    hits = cache.results["hit"]
    assert await maxima(api, world, device_id) == expected
    assert cache.results["hit"] == hits + 1, "it comes from the cache"
    await peer.acked(NUM_HOURS + 1, measured(7.25, 700.0))
    expected[7] = 700.0
    await shows(api, world, device_id, expected)
    # Counted at last, it is still what is shown.
    count_all(world)
    assert await maxima(api, world, device_id) == expected
    await peer.close()


async def shows(api: Client, world: World, device: UUID, expected: list[float | None]) -> None:
    """Read the series until it is the expected one."""
    deadline = asyncio.get_running_loop().time() + SECONDS_UNTIL_SEEN_MAX
    while await maxima(api, world, device) != expected:
        if asyncio.get_running_loop().time() > deadline:
            raise NeverHappened(f"after {SECONDS_UNTIL_SEEN_MAX} s the late event is still not shown")
        await asyncio.sleep(READ_SECONDS)
