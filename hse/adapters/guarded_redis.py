"""Redis as what can be done without: asked briefly, and left alone for some seconds after it did not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

T = TypeVar("T")

ANSWER_SECONDS_MAX = 0.25
AWAY_SECONDS = 2.0
CONNECTIONS_MAX = 16

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
    """A pool of connections. `now` is a clock in seconds that never goes back."""

    def __init__(self, redis_url: str, *, purpose: str, now: Callable[[], float] = time.monotonic) -> None:
        pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=CONNECTIONS_MAX,
            timeout=ANSWER_SECONDS_MAX,
            socket_timeout=ANSWER_SECONDS_MAX,
            socket_connect_timeout=ANSWER_SECONDS_MAX,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._guard = Guard(purpose=purpose, answer_seconds_max=ANSWER_SECONDS_MAX, away_seconds=AWAY_SECONDS, now=now)

    @property
    def is_away(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self._guard.is_away

    async def ask(self, call: Callable[["Redis"], Awaitable[T]]) -> T | None:
        """What it answers; None while it is away."""
        return await self._guard.ask(partial(call, self._redis))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
