"""An ingest node as the api hears it: a real gRPC server that speaks proto/devices.proto, registered as nodes are."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from grpc import aio
from redis.asyncio import Redis

from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.ingest_stubs import devices_pb2_grpc as rpc
from hse.adapters.nodes import NAMES_KEY

TOKEN = "a service token for tests, long enough to be taken"
# How often it is asked whether it lives is nothing to it.
OPTIONS = [("grpc.http2.min_ping_interval_without_data_ms", 1000), ("grpc.keepalive_permit_without_calls", 1)]
START_US = 1_900_000_000_000_000


class LiveNode(rpc.DeviceStreamServicer):
    """One node. It keeps its last changes for who resumes; `start` after `stop` is another run of it on the same port."""

    def __init__(self, redis_url: str, *, remembered_max: int = 100) -> None:
        self.name = f"node-{uuid4().hex[:8]}"
        self.run = ""
        self.last_position = 0
        self.num_subscriptions = 0
        self.num_subscribed_ever = 0
        self._redis_url = redis_url
        self._port = 0
        self._remembered_max = remembered_max
        self._past: list[pb.DeviceChangeEvent] = []
        self._queues: set[asyncio.Queue[pb.DeviceChangeEvent]] = set()
        self._server: aio.Server | None = None

    async def start(self, *, is_new_run: bool = True) -> None:
        """Serve, and be known."""
        if is_new_run:
            self.run, self.last_position, self._past = str(uuid4()), 0, []
        self._server = aio.server(options=OPTIONS)
        rpc.add_DeviceStreamServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()
        known = {"name": self.name, "run": self.run, "grpcAddress": f"127.0.0.1:{self._port}", "startedAt": 0}
        async with Redis.from_url(self._redis_url) as redis:
            await redis.set(f"ingest:node:{self.name}", json.dumps(known))
            await redis.sadd(NAMES_KEY, self.name)

    async def stop(self) -> None:
        """Be gone, as after a kill: what is registered stays."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(0)

    async def forget(self) -> None:
        """Be registered no more."""
        async with Redis.from_url(self._redis_url) as redis:
            await redis.delete(f"ingest:node:{self.name}")
            await redis.srem(NAMES_KEY, self.name)

    def event(self, device_id: UUID, value: float, event_type: str = "temperature", **metadata: Any) -> None:
        """A device reports."""
        change = self._change(device_id, pb.EVENT)
        change.event_type, change.value, change.exact_value, change.unit = event_type, value, value, "C"
        change.timestamp, change.time_us = START_US // 1_000_000, START_US + self.last_position
        change.received_us = change.time_us
        if metadata:
            change.typed_metadata.update(metadata)
        self._tell(change)

    def connected(self, device_id: UUID, *, is_connected: bool = True) -> None:
        """A device connects, or its connection ends."""
        self._tell(self._change(device_id, pb.CONNECTED if is_connected else pb.DISCONNECTED))

    def missed(self, count: int) -> None:
        """The api has read too slowly."""
        change = pb.DeviceChangeEvent(kind=pb.MISSED, num_missed=count, node=self.name)
        change.position.node_run, change.position.number = self.run, self.last_position
        for queue in self._queues:
            queue.put_nowait(change)

    def _change(self, device_id: UUID, kind: pb.ChangeKind.ValueType) -> pb.DeviceChangeEvent:
        self.last_position += 1
        change = pb.DeviceChangeEvent(device_id=str(device_id), kind=kind, node=self.name)
        change.position.node_run, change.position.number = self.run, self.last_position
        return change

    def _tell(self, change: pb.DeviceChangeEvent) -> None:
        self._past = [*self._past, change][-self._remembered_max :]
        for queue in self._queues:
            queue.put_nowait(change)

    async def GetNode(self, request: pb.NodeRequest, context: Any) -> pb.Node:  # noqa: N802
        """Say who it is."""
        self._check(context)
        first = self._past[0].position.number if self._past else self.last_position
        return pb.Node(name=self.name, run=self.run, first_position=first, last_position=self.last_position)

    async def StreamDeviceChanges(  # noqa: N802
        self, request: pb.SubscriptionRequest, context: Any
    ) -> AsyncIterator[pb.DeviceChanges]:
        """Tell what happens, from `resume_after` on, as much at a time as is there."""
        self._check(context)
        assert request.with_connections
        queue: asyncio.Queue[pb.DeviceChangeEvent] = asyncio.Queue()
        after = request.resume_after
        for change in self._past:
            if (
                request.HasField("resume_after")
                and after.node_run == self.run
                and change.position.number > after.number
            ):
                queue.put_nowait(change)
        self._queues.add(queue)
        self.num_subscriptions += 1
        self.num_subscribed_ever += 1
        try:
            while True:
                changes = [await queue.get()]
                while not queue.empty():
                    changes.append(queue.get_nowait())
                yield pb.DeviceChanges(changes=changes)
        finally:
            self._queues.discard(queue)
            self.num_subscriptions -= 1

    def _check(self, context: Any) -> None:
        assert dict(context.invocation_metadata())["authorization"] == f"Bearer {TOKEN}"


@asynccontextmanager
async def a_node(redis_url: str, **more: Any) -> AsyncIterator[LiveNode]:
    """A node that serves, gone after the block."""
    # What is not asked of it is not there.
    node = LiveNode(redis_url, **more)  # type: ignore[abstract]
    await node.start()
    try:
        yield node
    finally:
        await node.stop()
        await node.forget()
