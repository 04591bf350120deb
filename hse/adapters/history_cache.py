"""Parts of aggregates in Redis, for five minutes at most: what counts of them is decided by who finds them."""

from collections.abc import Mapping, Sequence

import msgspec
import structlog

from hse.adapters.guarded_redis import GuardedRedis
from hse.domain.telemetry.partials import Partial
from hse.domain.telemetry.ports import KeptParts

# What late hours are remembered for (0012_history: ten minutes) must be longer.
KEPT_SECONDS = 300
# The number changes with the form of what is kept.
PREFIX = "hse:history:1:"
ENTRY_BYTES_MAX = 1 << 20
RESULTS = ("hit", "miss", "outdated", "away")

logger = structlog.get_logger(__name__)


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What is kept of one device."""

    snapshot: str
    parts: dict[str, dict[int, Partial]]


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
        answer = await self._redis.ask("MGET", *keys)
        if answer is None:
            self.results["away"] += len(names)
            return {}
        found = zip(names, (_decode(one) for one in answer), strict=True)
        return {name: kept for name, kept in found if kept is not None}

    async def keep(self, kept: Mapping[str, KeptParts]) -> None:
        """Keep them for a while, if Redis is there."""
        encoded = {PREFIX + name: _encode(one) for name, one in kept.items()}
        small = ((key, entry) for key, entry in encoded.items() if len(entry) <= ENTRY_BYTES_MAX)
        await self._redis.ask_all([("SET", key, entry, "EX", KEPT_SECONDS) for key, entry in small])

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.close()


def _encode(kept: KeptParts) -> bytes:
    parts = {event_type: dict(of_type) for event_type, of_type in kept.parts.items()}
    return ENCODER.encode(Entry(snapshot=kept.snapshot, parts=parts))


def _decode(entry: bytes | str | None) -> KeptParts | None:
    if not isinstance(entry, bytes):
        return None
    try:
        decoded = DECODER.decode(entry)
    except msgspec.DecodeError as error:
        logger.warning("an entry of the history's cache cannot be read", error=str(error))
        return None
    return KeptParts(snapshot=decoded.snapshot, parts=decoded.parts)
