"""The counting behind rate limits: the same in Redis and in one process, exact under a rush, and never an outage."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from hse.adapters.limits import (
    ANSWER_SECONDS_MAX,
    AWAY_SECONDS,
    LOCAL_LIMITS_MAX,
    Limit,
    LocalRateLimiter,
    RateLimiter,
    RedisRateLimiter,
)
from hse.embedded.ports import free_ports
from hse.embedded.valkey import prepare_valkey
from tests.conftest import running

# Between asking and answering the test itself may be kept from running.
SLACK_SECONDS = 0.4


class HandSetClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def a_limit(requests: int = 5, *, name: str = "test", seconds: float = 3600.0) -> Limit:
    return Limit(name=name, subject=uuid4().hex, requests=requests, seconds=seconds)


@pytest_asyncio.fixture(params=["local", "redis"])
async def limiter(request: pytest.FixtureRequest, valkey_url: str) -> AsyncIterator[RateLimiter]:
    made: RateLimiter = LocalRateLimiter() if request.param == "local" else RedisRateLimiter(valkey_url)
    yield made
    await made.close()


async def test_as_many_as_the_limit_says_are_let_through_at_once(limiter: RateLimiter) -> None:
    limit = a_limit(5)
    verdicts = [verdict for _ in range(7) for verdict in await limiter.take(limit)]
    assert [verdict.has_room for verdict in verdicts] == [True] * 5 + [False] * 2
    assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    # One comes back every 3600 / 5 seconds.
    assert 700 < verdicts[-1].retry_after_seconds <= 720
    assert 3500 < verdicts[-1].reset_seconds <= 3600


async def test_a_rush_takes_no_more_than_there_is(limiter: RateLimiter) -> None:
    limit = a_limit(20)
    verdicts = await asyncio.gather(*(limiter.take(limit) for _ in range(100)))
    assert sum(verdict.has_room for (verdict,) in verdicts) == 20


async def test_room_comes_back_with_time(limiter: RateLimiter) -> None:
    limit = a_limit(10, seconds=0.5)
    while (await limiter.take(limit))[0].has_room:
        pass
    (refused,) = await limiter.look(limit)
    assert 0 < refused.retry_after_seconds <= 0.05
    await asyncio.sleep(refused.retry_after_seconds)
    assert (await limiter.take(limit))[0].has_room


async def test_of_several_limits_none_is_taken_when_one_has_no_room(limiter: RateLimiter) -> None:
    wide, narrow = a_limit(10), a_limit(1)
    await limiter.take(wide, narrow)
    of_wide, of_narrow = await limiter.take(wide, narrow)
    assert (of_wide.has_room, of_narrow.has_room) == (True, False)
    assert (await limiter.look(wide))[0].remaining == 9


async def test_looking_takes_nothing_and_forgetting_gives_back(limiter: RateLimiter) -> None:
    limit = a_limit(2)
    for _ in range(5):
        assert (await limiter.look(limit))[0].has_room
    await limiter.take(limit)
    await limiter.take(limit)
    assert not (await limiter.look(limit))[0].has_room
    await limiter.forget(limit)
    assert (await limiter.look(limit))[0].remaining == 2


async def test_one_is_given_back_and_never_more_than_was_taken(limiter: RateLimiter) -> None:
    limit = a_limit(3)
    for _ in range(3):
        await limiter.take(limit)
    await limiter.give_back(limit)
    assert (await limiter.look(limit))[0].remaining == 1
    for _ in range(5):
        await limiter.give_back(limit)
    assert (await limiter.look(limit))[0].remaining == 3
    assert [(await limiter.take(limit))[0].has_room for _ in range(4)] == [True] * 3 + [False]


async def test_subjects_and_names_do_not_share_a_count(limiter: RateLimiter) -> None:
    subject = uuid4().hex
    one = Limit(name="user", subject=subject, requests=1)
    same_subject = Limit(name="key", subject=subject, requests=1)
    same_name = Limit(name="user", subject=subject + "x", requests=1)
    for limit in (one, same_subject, same_name):
        assert (await limiter.take(limit))[0].has_room
    assert not (await limiter.take(one))[0].has_room


async def test_processes_share_their_counts_in_redis(valkey_url: str) -> None:
    first, second = RedisRateLimiter(valkey_url), RedisRateLimiter(valkey_url)
    limit = a_limit(10)
    taken = await asyncio.gather(*(one.take(limit) for _ in range(10) for one in (first, second)))
    assert sum(verdict.has_room for (verdict,) in taken) == 10
    await first.close()
    await second.close()


async def test_who_stops_waiting_leaves_the_others_their_own_answers(valkey_url: str) -> None:
    """All share one connection, on which answers come in the order of the questions."""
    limiter = RedisRateLimiter(valkey_url)
    limits = [a_limit(10 + number) for number in range(30)]
    await limiter.look(limits[0])
    asking = [asyncio.create_task(limiter.take(limit)) for limit in limits]
    await asyncio.sleep(0)
    for task in asking[::3]:
        task.cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert not isinstance(answer, BaseException)
            assert answer[0].remaining == 9 + number
    assert limiter.condition == "up"
    await limiter.close()


async def test_a_redis_that_has_forgotten_the_script_is_told_it_again(valkey_url: str) -> None:
    limiter, limit = RedisRateLimiter(valkey_url), a_limit(5)
    await limiter.take(limit)
    async with Redis.from_url(valkey_url) as redis:
        await redis.script_flush()
    assert [(await limiter.take(limit))[0].remaining for _ in range(2)] == [3, 2]
    assert limiter.condition == "up"
    await limiter.close()


async def test_the_memory_of_one_process_is_bounded() -> None:
    limiter = LocalRateLimiter()
    for number in range(LOCAL_LIMITS_MAX + 10):
        await limiter.take(Limit(name="address", subject=str(number), requests=1))
    assert len(limiter._marks) == LOCAL_LIMITS_MAX


async def seconds_of(call: Callable[[], object]) -> float:
    start = time.monotonic()
    await call()  # type: ignore[misc]
    return time.monotonic() - start


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
async def test_redis_going_away_is_no_outage_and_coming_back_is_noticed(tmp_path: Path, fault: signal.Signals) -> None:
    port = free_ports(1)[0]
    clock = HandSetClock()
    limit = a_limit(3)
    server = prepare_valkey(tmp_path, port=port)
    with running(server, tmp_path / "valkey.log") as process:
        limiter = RedisRateLimiter(server.url(), now=clock)
        assert (await limiter.take(limit))[0].remaining == 2
        os.kill(process.pid, fault)
        if fault is signal.SIGKILL:
            process.wait()
        # The one that finds out waits a little, and is counted here.
        assert await seconds_of(lambda: limiter.take(limit)) < ANSWER_SECONDS_MAX + SLACK_SECONDS
        assert limiter.is_away
        # All others wait for nothing, and the limit holds.
        assert await seconds_of(lambda: asyncio.gather(*(limiter.look(limit) for _ in range(200)))) < SLACK_SECONDS
        assert [(await limiter.take(limit))[0].has_room for _ in range(3)] == [True, True, False]
        # While it is still away one asks again, after a while.
        clock.seconds += AWAY_SECONDS + 0.1
        assert (await limiter.look(limit))[0].remaining == 0
        assert limiter.is_away
        if fault is signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            clock.seconds += AWAY_SECONDS + 0.1
            await limiter.look(limit)
            assert not limiter.is_away
    if fault is signal.SIGKILL:
        with running(prepare_valkey(tmp_path, port=port), tmp_path / "valkey.log"):
            clock.seconds += AWAY_SECONDS + 0.1
            await limiter.look(limit)
            assert not limiter.is_away
    await limiter.close()


async def test_redis_that_was_never_there_is_no_outage() -> None:
    limiter = RedisRateLimiter(f"redis://127.0.0.1:{free_ports(1)[0]}/0")
    limit = a_limit(2)
    assert [(await limiter.take(limit))[0].has_room for _ in range(3)] == [True, True, False]
    await limiter.close()
