"""Parts of aggregates in Redis, for five minutes at most: what counts of them is decided by who finds them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from hse.adapters.guarded_redis import GuardedRedis
from hse.domain.telemetry.partials import Partial
from hse.domain.telemetry.ports import KeptParts, Parts

if TYPE_CHECKING:
    from redis.asyncio import Redis

# What late hours are remembered for (0012_history: ten minutes) must be longer.
KEPT_SECONDS = 300
# The number changes with the form of what is kept.
PREFIX = "hse:history:1:"
ENTRY_BYTES_MAX = 1 << 20
RESULTS = ("hit", "miss", "outdated", "away")

logger = structlog.get_logger(__name__)

# samples, values, total, minimum, maximum, square deviation, first and last unit
Row = tuple[int, int, float | None, float | None, float | None, float | None, str | None, str | None]


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of one device."""

    snapshot: str
    parts: dict[str, dict[int, Row]]


DECODER = msgspec.msgpack.Decoder(Entry)
ENCODER = msgspec.msgpack.Encoder()


class NoHistoryCache:
    """Keeps nothing: where there is no Redis."""

    def __init__(self) -> None:
        self.results = dict.fromkeys(RESULTS, 0.0)

    async def find(self, names: Sequence[str]) -> Mapping[str, KeptParts]:
        """Nothing."""
        return {}

    async def keep(self, kept: Mapping[str, KeptParts]) -> None:
        """Keeps nothing."""

    def note(self, hits: int, misses: int, outdated: int) -> None:
        """Count what was found, was not there, or had been overtaken."""
        for name, number in (("hit", hits), ("miss", misses), ("outdated", outdated)):
            self.results[name] += number

    async def close(self) -> None:
        """Nothing to close."""


class RedisHistoryCache(NoHistoryCache):
    """Keeps parts in Redis, and nothing while it is away."""

    def __init__(self, redis: GuardedRedis) -> None:
        super().__init__()
        self._redis = redis

    async def find(self, names: Sequence[str]) -> Mapping[str, KeptParts]:
        """Those that are kept and can be read."""
        if not names:
            return {}
        keys = [PREFIX + name for name in names]
        answer = await self._redis.ask(lambda redis: redis.mget(keys))
        if answer is None:
            self.results["away"] += len(names)
            return {}
        found = zip(names, (_decode(one) for one in answer), strict=True)
        return {name: kept for name, kept in found if kept is not None}

    async def keep(self, kept: Mapping[str, KeptParts]) -> None:
        """Keep them for a while, if Redis is there."""
        encoded = {PREFIX + name: _encode(one) for name, one in kept.items()}
        small = {key: entry for key, entry in encoded.items() if len(entry) <= ENTRY_BYTES_MAX}
        await self._redis.ask(_set_all(small))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.close()


def _set_all(entries: Mapping[str, bytes]) -> Callable[["Redis"], Awaitable[Any]]:
    async def send(redis: "Redis") -> Any:
        pipeline = redis.pipeline(transaction=False)
        for key, entry in entries.items():
            pipeline.set(key, entry, ex=KEPT_SECONDS)
        return await pipeline.execute()

    return send


def _encode(kept: KeptParts) -> bytes:
    parts = {
        event_type: {number: _row(part) for number, part in of_type.items()}
        for event_type, of_type in kept.parts.items()
    }
    return ENCODER.encode(Entry(snapshot=kept.snapshot, parts=parts))


def _row(part: Partial) -> Row:
    return (
        part.samples,
        part.num_values,
        part.total,
        part.minimum,
        part.maximum,
        part.square_deviation,
        part.unit_min,
        part.unit_max,
    )


def _decode(entry: bytes | str | None) -> KeptParts | None:
    if not isinstance(entry, bytes):
        return None
    try:
        decoded = DECODER.decode(entry)
    except msgspec.DecodeError as error:
        logger.warning("an entry of the history's cache cannot be read", error=str(error))
        return None
    parts: Parts = {
        event_type: {number: _partial(row) for number, row in of_type.items()}
        for event_type, of_type in decoded.parts.items()
    }
    return KeptParts(snapshot=decoded.snapshot, parts=parts)


def _partial(row: Row) -> Partial:
    samples, num_values, total, minimum, maximum, square_deviation, unit_min, unit_max = row
    return Partial(
        samples=samples,
        num_values=num_values,
        total=total,
        minimum=minimum,
        maximum=maximum,
        square_deviation=square_deviation,
        unit_min=unit_min,
        unit_max=unit_max,
    )
