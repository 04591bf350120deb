"""The ingest nodes that are there, and which of them a device is connected to, as the nodes themselves write it to Redis.

Nothing here is the truth: a node may have died a moment ago, a device may be on its way to another. What was read last stands while
Redis is away, and nodes that are named in the settings are known without it.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast
from uuid import UUID

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hse.adapters.breaker import Breaker

T = TypeVar("T")

NAMES_KEY = "ingest:node_names"
CONNECTIONS_MAX = 4
ANSWER_SECONDS_MAX = 1.0
# Nodes come and go seldom; they are asked for often.
NODES_FRESH_SECONDS = 1.0
# In one question.
KEYS_MAX = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An ingest node, and where its gRPC server listens (`host:port`). `run` is one life of its process, if it says."""

    name: str
    address: str
    run: str | None = None


class NodeDirectory:
    """Where the nodes and the devices are. `fixed` are addresses that are known whatever Redis says."""

    def __init__(
        self, redis_url: str | None, *, fixed: Sequence[str] = (), now: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = None if redis_url is None else _client(redis_url)
        self._fixed = {address: Node(name=address, address=address) for address in fixed}
        self._now = now
        self.breaker = Breaker(now=now)
        self._known: dict[str, Node] = {}
        self._read_at: float | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def nodes(self) -> list[Node]:
        """The nodes by name; those that were known last while Redis is away."""
        is_fresh = self._read_at is not None and self._now() - self._read_at < NODES_FRESH_SECONDS
        if self._redis is not None and not is_fresh:
            registered = await self._guarded(self._read_nodes)
            if registered is not None:
                self._known = registered
                self._read_at = self._now()
        by_address = {**self._fixed, **{node.address: node for node in self._known.values()}}
        return sorted(by_address.values(), key=lambda node: node.name)

    async def names_of(self, device_ids: Collection[UUID]) -> dict[UUID, str]:
        """Of the devices that are connected, as far as Redis knows, the name of their node."""
        ids = list(device_ids)
        if self._redis is None or not ids:
            return {}
        found: dict[UUID, str] = {}
        for start in range(0, len(ids), KEYS_MAX):
            some = ids[start : start + KEYS_MAX]
            texts = await self._guarded(partial(self._read, [f"device:state:{one}" for one in some]))
            if texts is None:
                break
            for device_id, text in zip(some, texts, strict=True):
                name = _node_of(text)
                if name is not None:
                    found[device_id] = name
        return found

    async def _read(self, keys: list[str]) -> list[str | None]:
        assert self._redis is not None
        return cast("list[str | None]", await self._redis.mget(keys))

    async def _read_nodes(self) -> dict[str, Node]:
        assert self._redis is not None
        names = sorted(await cast("Awaitable[set[str]]", self._redis.smembers(NAMES_KEY)))
        if not names:
            return {}
        texts = await self._read([f"ingest:node:{name}" for name in names])
        gone = [name for name, text in zip(names, texts, strict=True) if text is None]
        if gone:
            # A name whose key has expired: its node is gone, and writes the name again when it comes back.
            await self._redis.srem(NAMES_KEY, *gone)
        found = [_node(name, text) for name, text in zip(names, texts, strict=True)]
        return {node.name: node for node in found if node is not None}

    async def _guarded(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What Redis answers; None while it is away."""
        if not self.breaker.admits():
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                answer = await ask()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("redis does not answer, the nodes known last are taken: %s", type(error).__name__)
            self.breaker.failed()
            return None
        self.breaker.succeeded()
        return answer


def _client(redis_url: str) -> "Redis":
    pool = BlockingConnectionPool.from_url(
        redis_url,
        max_connections=CONNECTIONS_MAX,
        timeout=ANSWER_SECONDS_MAX,
        socket_timeout=ANSWER_SECONDS_MAX,
        socket_connect_timeout=ANSWER_SECONDS_MAX,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    return Redis.from_pool(pool)


def _decoded(text: str | None) -> dict[str, Any]:
    """The object that a key holds; an empty one where it holds something else."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _node(name: str, text: str | None) -> Node | None:
    known = _decoded(text)
    address, run = known.get("grpcAddress"), known.get("run")
    if not isinstance(address, str) or not address:
        return None
    return Node(name=name, address=address, run=run if isinstance(run, str) else None)


def _node_of(text: str | None) -> str | None:
    connection = _decoded(text).get("connectionState")
    if not isinstance(connection, dict) or connection.get("connected") is not True:
        return None
    name = connection.get("node")
    return name if isinstance(name, str) and name else None
