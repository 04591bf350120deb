"""The states of devices that the ingest core keeps in Redis under `device:state:{id}` (source plan §5.3), as it writes them.

A state says `online` until its node says otherwise. A node that has died says nothing any more, so a state that claims a
connection is believed only while its node is registered: `ingest:node:{name}` lives for 15 s and is renewed every 5.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import structlog

from hse.adapters.guarded_redis import GuardedRedis
from hse.domain.telemetry.model import ConnectionState, DeviceState, LastEvent

STATE_PREFIX = "device:state:"
NODE_PREFIX = "ingest:node:"
# Who is asked for with every state.
NODES_MAX = 50

logger = structlog.get_logger(__name__)


class _LastEvent(msgspec.Struct):
    type: str
    timestamp: int
    value: float | None = None
    unit: str | None = None


class _Connection(msgspec.Struct, rename="camel"):
    connected: bool
    last_seen: int | None = None
    protocol: str | None = None
    remote_address: str | None = None
    node: str | None = None


class _State(msgspec.Struct, rename="camel"):
    status: str
    updated_at: int
    last_event: _LastEvent | None = None
    connection_state: _Connection | None = None


DECODER = msgspec.json.Decoder(_State)


class NoLiveStates:
    """Knows nothing: where there is no Redis."""

    async def find(self, device_ids: Sequence[UUID]) -> Mapping[UUID, DeviceState] | None:
        """Nothing, because nobody can tell."""
        return None

    async def close(self) -> None:
        """Nothing to close."""


class RedisLiveStates:
    """Reads what the core wrote."""

    def __init__(self, redis: GuardedRedis) -> None:
        self._redis = redis
        # Nodes that devices were connected to: asked for together with the states.
        self._nodes: frozenset[str] = frozenset()

    async def find(self, device_ids: Sequence[UUID]) -> Mapping[UUID, DeviceState] | None:
        """Those that there are; None while Redis is away."""
        expected = sorted(self._nodes)
        keys = [*(f"{STATE_PREFIX}{device_id}" for device_id in device_ids), *(NODE_PREFIX + node for node in expected)]
        answer = await self._redis.ask("MGET", *keys)
        if answer is None:
            return None
        texts, registrations = answer[: len(device_ids)], answer[len(device_ids) :]
        found = {
            device_id: state
            for device_id, text in zip(device_ids, texts, strict=True)
            if text is not None and (state := _read(device_id, text)) is not None
        }
        connections = [state.connection for state in found.values() if state.connection is not None]
        nodes = frozenset(one.node for one in connections if one.is_connected and one.node is not None)
        others = await self._alive(sorted(nodes - self._nodes))
        if others is None:
            return None
        alive = others | _registered(expected, registrations)
        self._nodes = nodes | self._nodes if len(self._nodes) < NODES_MAX else nodes
        return {device_id: _believed(state, alive) for device_id, state in found.items()}

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.close()

    async def _alive(self, nodes: list[str]) -> set[str] | None:
        if not nodes:
            return set()
        answer = await self._redis.ask("MGET", *(NODE_PREFIX + node for node in nodes))
        return None if answer is None else _registered(nodes, answer)


def _registered(nodes: Sequence[str], registrations: Sequence[bytes | None]) -> set[str]:
    return {node for node, registration in zip(nodes, registrations, strict=True) if registration is not None}


def _believed(state: DeviceState, alive: set[str]) -> DeviceState:
    connection = state.connection
    if connection is None or not connection.is_connected or connection.node is None or connection.node in alive:
        return state
    return DeviceState(
        device_id=state.device_id,
        status="unknown",
        is_live=False,
        last_event=state.last_event,
        connection=None,
        updated_at=state.updated_at,
        overdue_since=None,
    )


def _read(device_id: UUID, text: bytes | str) -> DeviceState | None:
    try:
        state = DECODER.decode(text)
        return DeviceState(
            device_id=device_id,
            status=state.status,
            is_live=True,
            last_event=_last_event(state.last_event),
            connection=_connection(state.connection_state),
            updated_at=_time(state.updated_at),
            # That depends on the time at which it is asked, and on the device's profile.
            overdue_since=None,
        )
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        logger.warning("a device's state cannot be read", device_id=str(device_id), error=str(error))
        return None


def _last_event(event: _LastEvent | None) -> LastEvent | None:
    if event is None:
        return None
    return LastEvent(type=event.type, time=_time(event.timestamp), value=event.value, unit=event.unit)


def _connection(connection: _Connection | None) -> ConnectionState | None:
    if connection is None:
        return None
    return ConnectionState(
        is_connected=connection.connected,
        last_seen=None if connection.last_seen is None else _time(connection.last_seen),
        protocol=connection.protocol,
        remote_address=connection.remote_address,
        node=connection.node,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
