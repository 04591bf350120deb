"""The ingest nodes over gRPC: one channel a node, for the event loop that made it. A node that does not answer holds up nobody.

Every call carries the service token and has a deadline. A node that fails again and again is left alone for a while (`Breaker`);
keepalive finds out that a node is frozen or cut off.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
from grpc import aio

from hse.adapters.breaker import Breaker, Circuit
from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.ingest_stubs.devices_pb2_grpc import DeviceStreamStub
from hse.adapters.nodes import Node

if TYPE_CHECKING:
    # It is there for type checkers only.
    from hse.adapters.ingest_stubs.devices_pb2_grpc import DeviceStreamAsyncStub

T = TypeVar("T")

CONNECT_SECONDS_MAX = 2.0
REASON_SECONDS_MAX = 0.5
CALL_SECONDS = 5.0
# A node says at once whether it has taken a command.
FIRST_ANSWER_SECONDS_MAX = 5.0
# Channels of nodes that were asked last; a node that comes back under another address gets another one.
CHANNELS_MAX = 64
MESSAGE_BYTES_MAX = 16 << 20
OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # What is repeated, and when, is decided here.
    ("grpc.enable_retries", 0),
]
# The node, or the way to it, is at fault; anything else is an answer.
FAULTS = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCredentials:
    """How nodes are convinced that we may call: with the service token, or with a certificate; with an authority over TLS."""

    token: str | None = field(default=None, repr=False)
    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


class NodeAway(Exception):
    """A node did not answer. `is_in_doubt` says that it may have heard what it was told all the same."""

    def __init__(self, node: Node, reason: str, *, is_in_doubt: bool) -> None:
        super().__init__(f"ingest node {node.name} at {node.address} is away: {reason}")
        self.node = node
        self.is_in_doubt = is_in_doubt


class NodeRefused(Exception):
    """A node refused the call as a whole, such as for a wrong token; `code` is gRPC's."""

    def __init__(self, node: Node, code: str, details: str) -> None:
        super().__init__(f"ingest node {node.name} refused: {code}: {details}")
        self.node = node
        self.code = code


class IngestNodes:
    """The channels to the nodes. Made, used and closed inside one event loop."""

    def __init__(self, credentials: NodeCredentials) -> None:
        self._credentials = credentials
        self._metadata = () if credentials.token is None else (("authorization", f"Bearer {credentials.token}"),)
        self._channels: dict[str, aio.Channel] = {}
        self._breakers: dict[str, Breaker] = {}

    async def close(self) -> None:
        """Close the channels; calls that are under way end."""
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for channel in channels))

    def circuits(self) -> dict[str, float]:
        """How the breakers stand, by node: 0 closed, 1 half open, 2 open. For metrics."""
        return {name: float(breaker.circuit.value) for name, breaker in self._breakers.items()}

    def breaker(self, node: Node) -> Breaker:
        """The breaker of a node."""
        return self._breakers.setdefault(node.name, Breaker())

    async def send_commands(
        self, node: Node, commands: Sequence[pb.DeviceCommand], *, seconds: float
    ) -> AsyncGenerator[pb.CommandProgress, None]:
        """Send many commands; what becomes of each, until all have ended or `seconds` have passed.

        Raises `NodeAway`, in doubt once the commands were on their way; `NodeRefused`.
        """
        stub = await self._reach(node)
        call = stub.SendDeviceCommands(pb.DeviceCommands(commands=commands), timeout=seconds, metadata=self._metadata)
        try:
            async for progress in self._answers(node, call, first_seconds=FIRST_ANSWER_SECONDS_MAX):
                yield progress
        finally:
            call.cancel()

    async def changes(
        self, node: Node, request: pb.SubscriptionRequest, *, begun: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[pb.DeviceChangeEvent, None]:
        """What happens on a node, until it ends; `begun` is called when nothing is missed from there on.

        Raises `NodeAway`, `NodeRefused`.
        """
        stub = await self._reach(node)
        call = stub.StreamDeviceChanges(request, metadata=self._metadata)
        try:
            # What a node without events has to say is that it listens.
            await self._begun(node, call)
            begun()
            async for told in self._answers(node, call, first_seconds=None):
                for change in told.changes:
                    yield change
        finally:
            call.cancel()

    async def call(
        self, node: Node, ask: Callable[["DeviceStreamAsyncStub"], Callable[..., Awaitable[T]]], request: object
    ) -> T:
        """One answer to one request: `call(node, lambda stub: stub.GetDeviceStatus, request)`. Raises `NodeAway`, `NodeRefused`."""
        stub = await self._reach(node)
        try:
            answer = await ask(stub)(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except aio.AioRpcError as error:
            raise self._fault(node, error) from error
        self._succeeded(node)
        return answer

    async def _begun(self, node: Node, call: "aio.UnaryStreamCall[Any, Any]") -> None:
        try:
            async with asyncio.timeout(FIRST_ANSWER_SECONDS_MAX):
                await call.initial_metadata()
        except TimeoutError as error:
            raise self._failed(node, "it takes a call and does not answer", is_in_doubt=True) from error
        self._succeeded(node)

    async def _answers(
        self, node: Node, call: "aio.UnaryStreamCall[Any, T]", *, first_seconds: float | None
    ) -> AsyncGenerator[T, None]:
        try:
            is_first = True
            while True:
                async with asyncio.timeout(first_seconds if is_first else None):
                    answer = await call.read()
                if answer is aio.EOF:
                    break
                if is_first:
                    self._succeeded(node)
                    is_first = False
                yield cast("T", answer)
        except aio.AioRpcError as error:
            raise self._fault(node, error) from error
        except TimeoutError as error:
            raise self._failed(node, "it takes a call and does not answer", is_in_doubt=True) from error

    async def _reach(self, node: Node) -> "DeviceStreamAsyncStub":
        """A node that has a connection to us now. Raises `NodeAway`, surely not in doubt: nothing was sent."""
        if not self.breaker(node).admits():
            raise NodeAway(node, "it failed before, and is left alone for a while", is_in_doubt=False)
        channel = self._channel(node)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await channel.channel_ready()
        except TimeoutError as error:
            raise self._failed(node, await self._why_unconnected(channel), is_in_doubt=False) from error
        return DeviceStreamStub(channel)

    async def _why_unconnected(self, channel: aio.Channel) -> str:
        """What the last attempt to connect failed of, such as a certificate: a call that waits for no connection is told."""
        reason = "there is no connection to it"
        if channel.get_state() is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            return reason
        try:
            await DeviceStreamStub(channel).GetNode(
                pb.NodeRequest(), timeout=REASON_SECONDS_MAX, metadata=self._metadata
            )
        except aio.AioRpcError as error:
            return f"{reason}: {error.details()}"
        return reason

    def _channel(self, node: Node) -> aio.Channel:
        channel = self._channels.pop(node.address, None)
        if channel is None:
            channel = self._open(node.address)
        # Last used, last in the order; the first one is closed when there are too many.
        self._channels[node.address] = channel
        if len(self._channels) > CHANNELS_MAX:
            oldest = self._channels.pop(next(iter(self._channels)))
            asyncio.get_running_loop().create_task(oldest.close())
        return channel

    def _open(self, address: str) -> aio.Channel:
        credentials = self._credentials
        if credentials.authority is None:
            return aio.insecure_channel(address, options=OPTIONS)
        secured = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
        return aio.secure_channel(address, secured, options=OPTIONS)

    def _fault(self, node: Node, error: aio.AioRpcError) -> NodeAway | NodeRefused:
        code = error.code()
        if code not in FAULTS:
            self._succeeded(node)
            return NodeRefused(node, code.name, error.details() or "")
        return self._failed(node, f"{code.name}: {error.details()}", is_in_doubt=True)

    def _succeeded(self, node: Node) -> None:
        breaker = self.breaker(node)
        if breaker.circuit is not Circuit.CLOSED:
            logger.info("ingest node %s answers again", node.name)
        breaker.succeeded()

    def _failed(self, node: Node, reason: str, *, is_in_doubt: bool) -> NodeAway:
        breaker = self.breaker(node)
        was_closed = breaker.circuit is Circuit.CLOSED
        breaker.failed()
        away = NodeAway(node, reason, is_in_doubt=is_in_doubt)
        if was_closed and breaker.circuit is not Circuit.CLOSED:
            logger.warning("%s: it is left alone for a while", away)
        return away
