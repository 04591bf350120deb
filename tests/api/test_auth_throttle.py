"""Guessing is slowed down, and a stranger's guesses lock nobody out."""

from dataclasses import replace
from uuid import uuid4

import pytest
from litestar import Litestar

from hse.adapters import throttle
from hse.adapters.limits import RedisRateLimiter
from hse.api.app import Parts, create_app
from tests.api.conftest import Client, living, problem_of
from tests.api.test_auth import LOGIN, client_at, log_in
from tests.api.world import World

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


async def guess(api: Client, email: str) -> int:
    return (await api.post(LOGIN, json={"email": email, "password": "wrong"})).status_code


@pytest.mark.parametrize("is_known", [True, False])
async def test_an_account_is_tried_ten_times_from_one_address(app: Litestar, world: World, is_known: bool) -> None:
    world.give_password(world.chief)
    email = world.chief.email if is_known else "nobody@example.com"
    async with client_at(app, ELSEWHERE) as stranger:
        assert [await guess(stranger, email) for _ in range(11)] == [401] * 10 + [429]
        refused = await stranger.post(LOGIN, json={"email": email.upper(), "password": "wrong"})
    problem = problem_of(refused, 429, "identity.too-many-attempts")
    assert refused.headers["retry-after"] == str(problem["retry_after_seconds"])
    assert 0 < int(refused.headers["retry-after"]) <= 90


async def test_a_right_password_is_refused_too_while_there_were_too_many(app: Litestar, world: World) -> None:
    world.give_password(world.chief)
    async with client_at(app, ELSEWHERE) as stranger:
        for _ in range(10):
            await guess(stranger, world.chief.email)
        problem_of(await log_in(stranger, world.chief), 429, "identity.too-many-attempts")


async def test_a_strangers_guesses_lock_the_owner_out_nowhere(app: Litestar, world: World) -> None:
    world.give_password(world.chief)
    async with client_at(app, HOME) as owner, client_at(app, "203.0.113.9") as owner_elsewhere:
        assert (await log_in(owner, world.chief)).status_code == 200
        async with client_at(app, ELSEWHERE) as stranger:
            for _ in range(15):
                await guess(stranger, world.chief.email)
        assert (await log_in(owner, world.chief)).status_code == 200
        assert (await log_in(owner_elsewhere, world.chief)).status_code == 200


async def test_guesses_from_many_addresses_slow_new_addresses_down_and_no_known_one(
    app: Litestar, world: World
) -> None:
    world.give_password(world.chief)
    async with client_at(app, HOME) as owner:
        assert (await log_in(owner, world.chief)).status_code == 200
    for number in range(throttle.FAILURES_OF_ACCOUNT):
        async with client_at(app, f"198.51.100.{number}") as stranger:
            assert await guess(stranger, world.chief.email) == 401
    async with client_at(app, HOME) as owner, client_at(app, "203.0.113.9") as stranger:
        response = await stranger.post(LOGIN, json={"email": world.chief.email, "password": "wrong"})
        problem_of(response, 429, "identity.too-many-attempts")
        assert int(response.headers["retry-after"]) <= 30
        assert (await log_in(owner, world.chief)).status_code == 200


async def test_one_address_cannot_try_one_password_on_many(app: Litestar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "FAILURES_OF_ADDRESS", 5)
    async with client_at(app, ELSEWHERE) as stranger:
        tried = [await guess(stranger, f"person{number}@example.com") for number in range(6)]
    assert tried == [401] * 5 + [429]


async def test_a_login_that_succeeds_forgets_the_tries_before_it(app: Litestar, world: World) -> None:
    world.give_password(world.chief)
    async with client_at(app, HOME) as owner:
        for _ in range(3):
            for _ in range(9):
                assert await guess(owner, world.chief.email) == 401
            assert (await log_in(owner, world.chief)).status_code == 200


def test_whoever_has_one_ipv6_address_has_its_network() -> None:
    assert throttle.network_of("2001:db8:1:2:3:4:5:6") == throttle.network_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert throttle.network_of("192.0.2.1") == "192.0.2.1"


async def test_two_processes_count_together_in_redis(parts: Parts, valkey_url: str) -> None:
    email = f"{uuid4().hex}@example.com"
    tried = []
    for _ in range(2):
        made = create_app(replace(parts, limiter=RedisRateLimiter(valkey_url)))
        async with living(made), client_at(made, ELSEWHERE) as stranger:
            tried += [await guess(stranger, email) for _ in range(6)]
    assert tried == [401] * 10 + [429] * 2
