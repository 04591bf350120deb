"""Redis as what can be done without: asked briefly, and left alone for some seconds after it did not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog
from redis.exceptions import RedisError

from hse.adapters.redis import SharedConnection

T = TypeVar("T")

ANSWER_SECONDS_MAX = 0.25
AWAY_SECONDS = 2.0

logger = structlog.get_logger(__name__)


class Guard:
    """Asks Redis briefly, and leaves it alone for some seconds after it did not answer.

    `purpose` goes into the log; `now` is a clock in seconds that never goes back.
    """

    def __init__(
        self, *, purpose: str, answer_seconds_max: float, away_seconds: float, now: Callable[[], float]
    ) -> None:
        self._purpose = purpose
        self._answer_seconds_max = answer_seconds_max
        self._away_seconds = away_seconds
        self._now = now
        self._away_until: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether Redis did not answer when it was last asked."""
        return self._away_until is not None

    async def ask(self, call: Callable[[], Awaitable[T]], *, on_failure: Callable[[], None] = lambda: None) -> T | None:
        """What Redis answers; None while it is away. `on_failure` is called when an answer did not come."""
        if self._away_until is not None:
            if self._now() < self._away_until:
                return None
            # One request finds out whether it is back; the others do not wait for that.
            self._away_until = self._now() + self._away_seconds
        try:
            async with asyncio.timeout(self._answer_seconds_max):
                answer = await call()
        except (RedisError, OSError, TimeoutError) as error:
            on_failure()
            if self._away_until is None:
                logger.warning("redis does not answer", purpose=self._purpose, error=type(error).__name__)
            self._away_until = self._now() + self._away_seconds
            return None
        if self._away_until is not None:
            self._away_until = None
            logger.info("redis answers again", purpose=self._purpose)
        return answer


class GuardedRedis:
    """One shared connection. `now` is a clock in seconds that never goes back."""

    def __init__(self, redis_url: str, *, purpose: str, now: Callable[[], float] = time.monotonic) -> None:
        self._redis = SharedConnection(redis_url, connect_seconds_max=ANSWER_SECONDS_MAX)
        self._guard = Guard(purpose=purpose, answer_seconds_max=ANSWER_SECONDS_MAX, away_seconds=AWAY_SECONDS, now=now)

    @property
    def is_away(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self._guard.is_away

    async def ask(self, *words: str | bytes | int) -> Any:
        """What it answers to a command; None while it is away."""
        # A connection that does not answer would keep the next ones waiting behind what it owes.
        return await self._guard.ask(partial(self._redis.call, *words), on_failure=self._redis.drop)

    async def ask_all(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[Any] | None:
        """What it answers to commands that are sent together; None while it is away."""

        async def call() -> list[Any]:
            return await asyncio.gather(*(self._redis.call(*words) for words in commands))

        return await self._guard.ask(call, on_failure=self._redis.drop)

    async def close(self) -> None:
        """Close the connection."""
        await self._redis.close()
