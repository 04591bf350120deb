"""How often something may be done: counted in Redis for all processes together, or in this one while Redis is away.

The algorithm is GCRA (the generic cell rate algorithm): what is kept of a limit is one time, at which it would be untouched again.
Each taking moves it on by `seconds / requests`; it is refused when that would lie more than `seconds` ahead. So `requests` fit at
once, and room for one more comes back every `seconds / requests`. In Redis a script does this in one step, by the clock of Redis,
so that no two processes take the same room.

Redis is never waited for longer than a tenth of a second, and after a failure not asked again for some seconds: a limit must not
become an outage. Counting in one process is laxer, by the number of processes, and that is all that is lost.
"""

import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from redis.exceptions import ResponseError

from hse.adapters.guarded_redis import Guard
from hse.adapters.redis import SharedConnection

ANSWER_SECONDS_MAX = 0.1
AWAY_SECONDS = 5.0
# What is kept in one process: the oldest makes room, so that a flood of addresses costs memory only up to here.
LOCAL_LIMITS_MAX = 100_000
# One hash slot for all, so that a cluster can run the script on several of them.
KEY_PREFIX = "hse:{limits}:"

# KEYS: the limits. ARGV: 0 to look only, 1 to take, -1 to give one back; then `requests` and microseconds of each.
# Answers for each: whether there is room, how many more fit, microseconds until one more fits, microseconds until it is untouched.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local change = tonumber(ARGV[1])
local marks, steps, spans, has_room = {}, {}, {}, true
for i, key in ipairs(KEYS) do
    spans[i] = tonumber(ARGV[2 * i + 1])
    steps[i] = spans[i] / tonumber(ARGV[2 * i])
    marks[i] = math.max(now, tonumber(redis.call('GET', key) or 0))
    has_room = has_room and marks[i] + steps[i] - spans[i] <= now + 1
end
local answers = {}
for i, key in ipairs(KEYS) do
    local wait = marks[i] + steps[i] - spans[i] - now
    if change < 0 or (change > 0 and has_room) then
        marks[i] = math.max(now, marks[i] + change * steps[i])
        redis.call('SET', key, string.format('%.0f', marks[i]), 'PX', math.ceil((marks[i] - now) / 1000) + 1)
    end
    answers[#answers + 1] = wait <= 1 and 1 or 0
    answers[#answers + 1] = math.floor((spans[i] - (marks[i] - now)) / steps[i] + 0.001)
    answers[#answers + 1] = math.ceil(math.max(0, wait))
    answers[#answers + 1] = math.ceil(marks[i] - now)
end
return answers
"""
TAKE_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """So many `requests` in `seconds`, for one `subject` of one `name`: ("address", "192.0.2.1")."""

    name: str
    subject: str
    requests: int
    seconds: float = 60.0

    @property
    def key(self) -> str:
        """Where it is kept. The subject may be an e-mail address, so its hash stands there."""
        digest = hashlib.blake2b(self.subject.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"{KEY_PREFIX}{self.name}:{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a limit stands after it was asked. `retry_after_seconds` is 0 while there is room for one more."""

    limit: Limit
    has_room: bool
    remaining: int
    retry_after_seconds: float
    reset_seconds: float


class RateLimiter(Protocol):
    """Counts against limits. Several at once are taken together or not at all; each has its verdict, in their order."""

    @property
    def condition(self) -> str:
        """Whether counts are shared by all processes: `up`; `away` when they should be; `not set` when they are not meant to."""

    async def take(self, *limits: Limit) -> tuple[Verdict, ...]:
        """Take one from each, if each has room."""

    async def look(self, *limits: Limit) -> tuple[Verdict, ...]:
        """Say how they stand, and take nothing."""

    async def give_back(self, *limits: Limit) -> None:
        """Give back one that was taken from each."""

    async def forget(self, *limits: Limit) -> None:
        """Give back all that was taken."""

    async def close(self) -> None:
        """Close connections."""


class LocalRateLimiter:
    """Counts in this process. `now` is a clock in seconds that never goes back."""

    condition = "not set"

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._marks: dict[str, float] = {}

    async def take(self, *limits: Limit) -> tuple[Verdict, ...]:
        """Take one from each, if each has room."""
        return self._ask(limits, change=1)

    async def look(self, *limits: Limit) -> tuple[Verdict, ...]:
        """Say how they stand, and take nothing."""
        return self._ask(limits, change=0)

    async def give_back(self, *limits: Limit) -> None:
        """Give back one that was taken from each."""
        self._ask(limits, change=-1)

    async def forget(self, *limits: Limit) -> None:
        """Give back all that was taken."""
        for limit in limits:
            self._marks.pop(limit.key, None)

    async def close(self) -> None:
        """Nothing to close."""

    def _ask(self, limits: Sequence[Limit], *, change: int) -> tuple[Verdict, ...]:
        now = self._now()
        asked = [_Asked(limit, max(now, self._marks.get(limit.key, 0.0)), now) for limit in limits]
        if change < 0 or (change > 0 and all(one.has_room for one in asked)):
            for one in asked:
                one.mark = max(now, one.mark + change * one.step)
                # Taken out first, so that what was used last stands last.
                self._marks.pop(one.limit.key, None)
                self._marks[one.limit.key] = one.mark
            while len(self._marks) > LOCAL_LIMITS_MAX:
                del self._marks[next(iter(self._marks))]
        return tuple(one.verdict(now) for one in asked)


class _Asked:
    """One limit while it is asked."""

    def __init__(self, limit: Limit, mark: float, now: float) -> None:
        self.limit = limit
        self.mark = mark
        self.step = limit.seconds / limit.requests
        self.wait = mark + self.step - limit.seconds - now
        self.has_room = self.wait <= 1e-6

    def verdict(self, now: float) -> Verdict:
        room = self.limit.seconds - (self.mark - now)
        return Verdict(
            limit=self.limit,
            has_room=self.has_room,
            remaining=max(0, math.floor(room / self.step + 0.001)),
            retry_after_seconds=0.0 if self.has_room else self.wait,
            reset_seconds=self.mark - now,
        )


class RedisRateLimiter:
    """Counts in Redis, and in this process while Redis is away."""

    def __init__(self, redis_url: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._redis = SharedConnection(redis_url, connect_seconds_max=ANSWER_SECONDS_MAX)
        self._local = LocalRateLimiter(now)
        self._guard = Guard(
            purpose="limits, which each process counts alone meanwhile",
            answer_seconds_max=ANSWER_SECONDS_MAX,
            away_seconds=AWAY_SECONDS,
            now=now,
        )

    @property
    def condition(self) -> str:
        """Whether counts are shared just now."""
        return "away" if self.is_away else "up"

    @property
    def is_away(self) -> bool:
        """Whether Redis did not answer when it was last asked."""
        return self._guard.is_away

    async def take(self, *limits: Limit) -> tuple[Verdict, ...]:
        """Take one from each, if each has room."""
        answered = await self._ask(limits, change=1)
        return answered if answered is not None else await self._local.take(*limits)

    async def look(self, *limits: Limit) -> tuple[Verdict, ...]:
        """Say how they stand, and take nothing."""
        answered = await self._ask(limits, change=0)
        return answered if answered is not None else await self._local.look(*limits)

    async def give_back(self, *limits: Limit) -> None:
        """Give back one that was taken from each."""
        if await self._ask(limits, change=-1) is None:
            await self._local.give_back(*limits)

    async def forget(self, *limits: Limit) -> None:
        """Give back all that was taken."""
        await self._local.forget(*limits)
        await self._guarded(self._redis.call, "DEL", *(limit.key for limit in limits))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.close()

    async def _ask(self, limits: Sequence[Limit], *, change: int) -> tuple[Verdict, ...] | None:
        arguments: list[str | int] = [len(limits), *(limit.key for limit in limits), change]
        for limit in limits:
            arguments += [limit.requests, round(limit.seconds * 1_000_000)]
        answer = await self._guarded(self._run_script, *arguments)
        if answer is None:
            return None
        return tuple(
            Verdict(
                limit=limit,
                has_room=has_room == 1,
                remaining=max(0, remaining),
                retry_after_seconds=0.0 if has_room == 1 else wait / 1_000_000,
                reset_seconds=reset / 1_000_000,
            )
            for limit, has_room, remaining, wait, reset in zip(
                limits, answer[0::4], answer[1::4], answer[2::4], answer[3::4], strict=True
            )
        )

    async def _run_script(self, *arguments: str | int) -> Any:
        try:
            return await self._redis.call("EVALSHA", TAKE_SHA, *arguments)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            return await self._redis.call("EVAL", TAKE, *arguments)

    async def _guarded(self, call: Callable[..., Awaitable[Any]], *arguments: str | int) -> Any:
        """What Redis answers; None while it is away."""
        # A connection that does not answer would keep the next ones waiting behind what it owes.
        return await self._guard.ask(partial(call, *arguments), on_failure=self._redis.drop)
