"""How often somebody may ask the application, and what he is told about it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from hse.adapters.limits import RedisRateLimiter
from hse.api.app import Parts
from hse.api.limits import RequestLimits, subject_of
from tests.api.conftest import Client, problem_of, serving
from tests.api.world import World

Limited = Callable[..., AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def client_with(parts: Parts, **limits: int) -> AsyncIterator[Client]:
    async with serving(replace(parts, limits=RequestLimits(**limits))) as client:
        yield client


@pytest.fixture
def limited(parts: Parts, valkey_url: str) -> Limited:
    """Makes an application with these limits, counted in Redis. The user of a test is new, so its count is, too."""
    return partial(client_with, replace(parts, limiter=RedisRateLimiter(valkey_url)))


async def test_a_user_who_asks_too_often_is_told_when_to_come_back(limited: Limited, world: World) -> None:
    async with limited(user_per_minute=3) as api:
        answers = [await api.get("/api/v1/areas", headers=world.chief.headers) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
        assert answers[0].headers["ratelimit-limit"] == "3"
        problem = problem_of(answers[3], 429, "request.too-many")
        assert problem["limit"] == "user"
        assert answers[3].headers["retry-after"] == str(problem["retry_after_seconds"])
        assert 15 <= int(answers[3].headers["retry-after"]) <= 20
        # It is this user's count, not everybody's.
        assert (await api.get("/api/v1/areas", headers=world.root.headers)).status_code == 200


async def test_a_refusal_has_the_headers_of_every_answer(limited: Limited, world: World) -> None:
    async with limited(user_per_minute=1) as api:
        await api.get("/api/v1/areas", headers=world.chief.headers)
        refused = await api.get("/api/v1/areas", headers={**world.chief.headers, "X-Correlation-Id": "abc"})
        assert refused.status_code == 429
        assert refused.headers["x-correlation-id"] == "abc"
        assert refused.headers["x-content-type-options"] == "nosniff"


async def test_an_address_is_counted_whoever_asks_and_health_is_not(parts: Parts, world: World) -> None:
    async with client_with(parts, address_per_minute=3) as api:
        for headers in (world.chief.headers, {}, {"Authorization": "Bearer wrong"}):
            assert (await api.get("/api/v1/areas", headers=headers)).status_code in (200, 401)
        problem = problem_of(await api.get("/api/v1/areas", headers=world.root.headers), 429, "request.too-many")
        assert problem["limit"] == "address"
        for _ in range(5):
            assert (await api.get("/health/liveness")).status_code == 200


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        (None, "unknown"),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
    ],
)
def test_an_ipv6_address_is_counted_with_its_network(address: str | None, subject: str) -> None:
    assert subject_of(address) == subject
