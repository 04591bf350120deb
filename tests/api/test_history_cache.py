"""The cache of the history: what it keeps, what a late event does to it, and that it tells nobody what is not his."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
import redis as redis_client

from hse.adapters.guarded_redis import GuardedRedis
from hse.adapters.history_cache import PREFIX, RedisHistoryCache
from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.maintenance import refresh_rollups
from hse.api.app import Parts
from hse.api.history import History
from hse.domain.telemetry.ports import KeptParts
from tests.api.conftest import Client, problem_of, serving
from tests.api.world import Person, World
from tests.storage.drain import Reading, drain

HOUR = timedelta(hours=1)
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=20)
WINDOW = {"from": START.isoformat(), "to": (START + timedelta(days=2)).isoformat(), "step": "1h", "type": "power"}


class Watched(RedisHistoryCache):
    """The cache, with the names that it was asked for."""

    def __init__(self, redis: GuardedRedis) -> None:
        super().__init__(redis)
        self.asked: list[str] = []

    async def find(self, names: Sequence[str]) -> Mapping[str, KeptParts]:
        """Look them up."""
        self.asked += names
        return await super().find(names)


def power(device: UUID, hour: float, value: float) -> Reading:
    return Reading(time=START + hour * HOUR, device_id=device, value=value, event_type="power")


@pytest.fixture
def reported(world: World) -> World:
    """The first device has reported, and the aggregates have it."""
    store(world, [power(world.tenant.sites[0].device_id, number, float(number)) for number in range(48)])
    count_all(world)
    return world


def store(world: World, events: Sequence[Reading]) -> None:
    engine = create_engine(world.database_url)
    drain(engine, events)
    engine.dispose()


def count_all(world: World) -> None:
    """Let the aggregates be refreshed, and time pass until late hours are forgotten."""
    engine = create_engine(world.database_url)
    refresh_rollups(engine, before=datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
    engine.dispose()
    with psycopg.connect(world.database_url) as connection:
        connection.execute("delete from late_hours")


@pytest.fixture
def cache(valkey_url: str) -> Watched:
    with redis_client.Redis.from_url(valkey_url) as redis:
        redis.flushdb()
    return Watched(GuardedRedis(valkey_url, purpose="tests"))


@pytest_asyncio.fixture
async def cached(parts: Parts, reported: World, cache: Watched) -> AsyncIterator[Client]:  # noqa: ARG001
    async with serving(replace(parts, history=History(cache=cache))) as client:
        yield client


async def maxima(api: Client, person: Person, device: UUID, **more: Any) -> list[float | None]:
    """The series of the window."""
    params = {"device_id": str(device), "function": "max", **WINDOW, **more}
    response = await api.get("/api/v1/telemetry/series", headers=person.headers, params=params)
    assert response.status_code == 200, response.text
    numbers: list[float | None] = response.json()["series"][0]["max"]
    return numbers


async def test_what_was_read_is_kept_for_whoever_may_read_it(cached: Client, reported: World, cache: Watched) -> None:
    device = reported.tenant.sites[0].device_id
    first = await maxima(cached, reported.user, device)
    assert first == [float(number) for number in range(48)]
    assert cache.results == {"hit": 0, "miss": 1, "outdated": 0, "away": 0}
    # Gone from the database, so what is answered was kept.
    with psycopg.connect(reported.database_url) as connection:
        connection.execute("delete from rollup_hourly")
    assert await maxima(cached, reported.chief, device) == first
    # One entry serves every function but the standard deviation.
    params = {"device_id": str(device), "function": ["min", "count"], **WINDOW}
    lowest = await cached.get("/api/v1/telemetry/series", headers=reported.root.headers, params=params)
    assert lowest.json()["series"][0]["min"] == first
    assert cache.results == {"hit": 2, "miss": 1, "outdated": 0, "away": 0}
    metrics = (await cached.get("/metrics")).text
    assert 'hse_api_history_cache_lookups_total{result="hit"} 2.0' in metrics


async def test_a_late_event_is_seen_at_once_before_and_after_it_is_counted(
    cached: Client, reported: World, cache: Watched
) -> None:
    device = reported.tenant.sites[0].device_id
    numbers = [float(number) for number in range(48)]
    assert await maxima(cached, reported.user, device) == numbers
    store(reported, [power(device, 7.5, 700.0)])
    numbers[7] = 700.0
    assert await maxima(cached, reported.user, device) == numbers
    assert cache.results["outdated"] == 1
    # Kept anew, though the mark of the late hour is still there.
    assert await maxima(cached, reported.user, device) == numbers
    assert cache.results["hit"] == 1
    engine = create_engine(reported.database_url)
    refresh_rollups(engine, before=datetime.now(UTC))
    engine.dispose()
    store(reported, [power(device, 9.5, 900.0)])
    numbers[9] = 900.0
    assert await maxima(cached, reported.user, device) == numbers
    # A late event of another time, or of another device, overtakes nothing.
    store(reported, [power(device, 60, 1.0), power(reported.tenant.sites[1].device_id, 7, 1.0)])
    hits = cache.results["hit"]
    assert await maxima(cached, reported.user, device) == numbers
    assert cache.results["hit"] == hits + 1


async def test_an_event_that_was_stored_and_not_yet_committed_overtakes_what_was_kept_meanwhile(
    cached: Client, reported: World
) -> None:
    device = reported.tenant.sites[0].device_id
    numbers = [float(number) for number in range(48)]
    with psycopg.connect(reported.database_url) as drain_under_way:
        drain_under_way.execute(
            "insert into device_events (time, device_id, event_type, value) values (%s, %s, 'power', 300)",
            [START + 3.5 * HOUR, device],
        )
        drain_under_way.execute(
            "insert into late_hours (device_id, bucket) values (%s, %s)", [device, START + 3 * HOUR]
        )
        # Other transactions come and go: that of the drain is older than the snapshot, and not in it.
        store(reported, [power(reported.tenant.sites[1].device_id, 1, 1.0)])
        assert await maxima(cached, reported.user, device) == numbers
        drain_under_way.commit()
    numbers[3] = 300.0
    assert await maxima(cached, reported.user, device) == numbers


async def test_the_cache_is_asked_only_for_what_the_asker_may_read(
    cached: Client, reported: World, cache: Watched
) -> None:
    own, foreign = reported.tenant.sites[0].device_id, reported.other_tenant.sites[0].device_id
    await maxima(cached, reported.user, own)
    cache.asked.clear()
    params = {"device_id": [str(own)], **WINDOW}
    for person, status, code in (
        (reported.other_chief, 404, "resource.not-found"),
        (reported.other_site_admin, 404, "resource.not-found"),
        (reported.custom, 403, "permission.missing"),
    ):
        response = await cached.get("/api/v1/telemetry/series", headers=person.headers, params=params)
        problem_of(response, status, code)
    both = {**params, "device_id": [str(foreign), str(own)]}
    response = await cached.get("/api/v1/telemetry/series", headers=reported.other_chief.headers, params=both)
    problem_of(response, 404, "resource.not-found")
    assert cache.asked == []
    # A right that is taken away counts before what is kept does.
    with psycopg.connect(reported.database_url) as connection:
        connection.execute("delete from user_establishments where user_id = %s", [reported.user.id])
    response = await cached.get("/api/v1/telemetry/series", headers=reported.user.headers, params=params)
    problem_of(response, 404, "resource.not-found")
    assert cache.asked == []


async def test_every_entry_is_of_one_device_and_expires(cached: Client, reported: World, valkey_url: str) -> None:
    devices = [site.device_id for site in reported.tenant.sites]
    params = {"device_id": [str(device) for device in devices], **WINDOW}
    response = await cached.get("/api/v1/telemetry/series", headers=reported.chief.headers, params=params)
    assert response.status_code == 200
    with redis_client.Redis.from_url(valkey_url) as redis:
        keys = [key.decode() for key in redis.keys(f"{PREFIX}*")]
        assert sorted(key.removeprefix(PREFIX).split(":")[0] for key in keys) == sorted(map(str, devices))
        assert all(0 < redis.ttl(key) <= 300 for key in keys)


async def test_without_redis_and_with_rubbish_in_it_the_database_answers(
    parts: Parts, reported: World, cache: Watched, valkey_url: str, cached: Client
) -> None:
    device = reported.tenant.sites[0].device_id
    numbers = [float(number) for number in range(48)]
    assert await maxima(cached, reported.user, device) == numbers
    with redis_client.Redis.from_url(valkey_url) as redis:
        for key in redis.keys(f"{PREFIX}*"):
            redis.set(key, b"\x00rubbish")
    assert await maxima(cached, reported.user, device) == numbers
    assert cache.results["hit"] == 0
    away = RedisHistoryCache(GuardedRedis("redis://127.0.0.1:1/0", purpose="tests"))
    async with serving(replace(parts, history=History(cache=away))) as client:
        assert await maxima(client, reported.user, device) == numbers
        assert await maxima(client, reported.user, device) == numbers
    assert away.results["hit"] == 0
    assert away.results["away"] == 2
