"""Guessing is slowed down, and a stranger's guesses lock nobody out."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest
from litestar import Litestar

from hse.adapters import throttle
from hse.adapters.limits import RedisRateLimiter
from hse.api.app import Parts, create_app
from tests.api.conftest import Client, living, problem_of
from tests.api.test_auth import LOGIN, client_at, log_in
from tests.api.test_second_factor import enrol
from tests.api.world import PASSWORD, World

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


async def test_of_many_guesses_at_once_no_more_are_judged_than_may_fail(
    app: Litestar, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "FAILURES_OF_ACCOUNT", 5)
    monkeypatch.setattr(throttle, "FAILURES_OF_ADDRESS", 7)
    world.give_password(world.chief)

    async def guess_at(address: str, email: str) -> int:
        async with client_at(app, address) as stranger:
            return await guess(stranger, email)

    of_account = await asyncio.gather(*(guess_at(f"2001:db8:0:{n:x}::1", world.chief.email) for n in range(20)))
    assert sorted(of_account) == [401] * 5 + [429] * 15
    of_address = await asyncio.gather(*(guess_at(ELSEWHERE, f"person{n}@example.com") for n in range(20)))
    assert sorted(of_address) == [401] * 7 + [429] * 13


async def test_what_was_no_guess_costs_an_office_nothing(
    app: Litestar, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "FAILURES_OF_ACCOUNT", 2)
    monkeypatch.setattr(throttle, "FAILURES_OF_ADDRESS", 2)
    async with client_at(app, HOME) as office:
        _, recovery_codes = await enrol(office, world)
        for number in range(5):
            problem_of(await log_in(office, world.chief), 401, "identity.totp-required")
            right = await log_in(office, world.chief, recovery_code=recovery_codes[number])
            assert right.status_code == 200, right.text
        weak = {"password": PASSWORD, "new_password": "short"}
        for _ in range(5):
            weakly = await office.post("/api/v1/me/password", headers=world.chief.headers, json=weak)
            problem_of(weakly, 422, "identity.weak-password")
        assert [await guess(office, "nobody@example.com") for _ in range(3)] == [401, 401, 429]


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
