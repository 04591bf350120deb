"""An ingest node that does what a test tells it: a real gRPC server that speaks `proto/devices.proto`, without devices behind it.

It is a peer, and not a mock: what is told to it goes over a socket, and it keeps the rules that the core keeps (one connection a
device, commands in order, a request id that is waited for is not sent twice).
"""

import json
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import grpc
import redis

from hse.adapters.dispatch.messages import plain
from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.ingest_stubs.devices_pb2_grpc import DeviceStreamServicer, add_DeviceStreamServicer_to_server
from hse.embedded.ports import free_ports

TOKEN = "a service token for tests, long enough to be taken"
LOOK_SECONDS = 0.05
# The core does not mind how often it is asked whether it lives.
OPTIONS = [("grpc.http2.min_ping_interval_without_data_ms", 1000), ("grpc.keepalive_permit_without_calls", 1)]


@dataclass
class Received:
    """A command that a device got."""

    device_id: UUID
    request_id: str
    type: str
    params: dict[str, Any]
    listeners: list["queue.Queue[pb.CommandProgress]"] = field(default_factory=list)
    end: pb.CommandProgress | None = None


@dataclass
class Device:
    """A connected device; one that is silent answers when the test says so."""

    is_silent: bool = False
    status: int = 0


class FakeNode(DeviceStreamServicer):
    """One node. `is_held` keeps calls from being looked at, `is_mute` keeps what is told from being sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        (self.port,) = free_ports(1)
        self.received: list[Received] = []
        self.devices: dict[UUID, Device] = {}
        self.is_held = threading.Event()
        self.is_mute = threading.Event()
        self.num_calls = 0
        self.token = TOKEN
        self._lock = threading.Lock()
        self._subscribers: list[queue.Queue[pb.DeviceChangeEvent]] = []
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to serve, on the same port as before."""
        self._server = grpc.server(ThreadPoolExecutor(max_workers=32), options=OPTIONS)
        add_DeviceStreamServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """End at once, as when it is killed."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def register(self, url: str) -> None:
        """Write to Redis what a node writes about itself."""
        known = {"name": self.name, "run": str(uuid4()), "grpcAddress": self.address, "startedAt": 0}
        with redis.Redis.from_url(url) as client:
            client.set(f"ingest:node:{self.name}", json.dumps(known))
            client.sadd("ingest:node_names", self.name)

    def connect(self, device_id: UUID, *, is_silent: bool = False, status: int = 0) -> None:
        """A device connects."""
        with self._lock:
            self.devices[device_id] = Device(is_silent=is_silent, status=status)
            change = pb.DeviceChangeEvent(device_id=str(device_id), kind=pb.CONNECTED, node=self.name)
            self._tell(change)

    def disconnect(self, device_id: UUID) -> None:
        """A device goes."""
        with self._lock:
            del self.devices[device_id]

    def answer(self, received: Received, status: int = 0, data: dict[str, Any] | None = None) -> None:
        """A device answers a command: to who waits for it, and to all who listen."""
        with self._lock:
            self._end(received, status, data)
            change = pb.DeviceChangeEvent(
                device_id=str(received.device_id), kind=pb.EVENT, event_type="command_result", time_us=now_us()
            )
            change.typed_metadata.update({"request_id": received.request_id, "status": status, "data": data or {}})
            self._tell(change)

    def types(self, device_id: UUID) -> list[str]:
        """What a device was told, in order."""
        return [one.type for one in self.received if one.device_id == device_id]

    @property
    def num_subscribers(self) -> int:
        """How many listen to its changes."""
        return len(self._subscribers)

    def _check(self, context: Any) -> None:
        """Refuse who has not the token."""
        given = dict(context.invocation_metadata()).get("authorization")
        if given != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no service token")

    def _tell(self, change: pb.DeviceChangeEvent) -> None:
        for subscriber in self._subscribers:
            subscriber.put(change)

    def _end(self, received: Received, status: int, data: dict[str, Any] | None) -> None:
        state = pb.SUCCEEDED if status == 0 else pb.FAILED
        received.end = told(received, state, status=status)
        received.end.data.update(data or {"done": status == 0})
        for listener in received.listeners:
            listener.put(received.end)

    # --- the service ---

    def SendDeviceCommands(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Take commands in order, and tell what becomes of them until all have ended."""
        self.num_calls += 1
        self._check(context)
        wait_while(self.is_held, context)
        listener: queue.Queue[pb.CommandProgress] = queue.Queue()
        progress, waited_for = self._take(request.commands, listener)
        wait_while(self.is_mute, context)
        yield from progress
        while waited_for and context.is_active():
            try:
                end = listener.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            waited_for.discard(end.request_id)
            yield end

    def _take(
        self, commands: Any, listener: "queue.Queue[pb.CommandProgress]"
    ) -> tuple[list[pb.CommandProgress], set[str]]:
        progress: list[pb.CommandProgress] = []
        waited_for: set[str] = set()
        with self._lock:
            for command in commands:
                device = self.devices.get(UUID(command.device_id))
                if device is None:
                    progress.append(
                        pb.CommandProgress(
                            request_id=command.request_id,
                            device_id=command.device_id,
                            state=pb.OFFLINE,
                            time_us=now_us(),
                        )
                    )
                    continue
                received = self._deliver(command, device)
                progress += [told(received, pb.SENT), told(received, pb.DELIVERED)]
                if received.end is None:
                    received.listeners.append(listener)
                    waited_for.add(command.request_id)
                else:
                    progress.append(received.end)
        return progress, waited_for

    def _deliver(self, command: Any, device: Device) -> Received:
        known = next((one for one in self.received if one.request_id == command.request_id), None)
        if known is not None:
            return known
        received = Received(
            UUID(command.device_id), command.request_id, command.command_type, plain(command.typed_params)
        )
        self.received.append(received)
        if not device.is_silent:
            self._end(received, device.status, None)
        return received

    def StreamDeviceChanges(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Tell who connects, until the caller goes."""
        self._check(context)
        changes: queue.Queue[pb.DeviceChangeEvent] = queue.Queue()
        context.send_initial_metadata(())
        self._subscribers.append(changes)
        try:
            while context.is_active():
                try:
                    yield pb.DeviceChanges(changes=[changes.get(timeout=LOOK_SECONDS)])
                except queue.Empty:
                    continue
        finally:
            self._subscribers.remove(changes)

    def SendDeviceCommand(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Nobody asks."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in these tests")

    NotifyDeviceEvents = GetDeviceStatus = GetDeviceEvents = SubscribeToDeviceChanges = SendDeviceCommand

    def GetNode(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say who it is."""
        self._check(context)
        return pb.Node(name=self.name, num_connected=len(self.devices))


def told(received: Received, state: Any, *, status: int = 0) -> pb.CommandProgress:
    """One word about a command."""
    return pb.CommandProgress(
        request_id=received.request_id,
        device_id=str(received.device_id),
        state=state,
        time_us=now_us(),
        status=status,
    )


def wait_while(held: threading.Event, context: Any) -> None:
    """Do nothing for as long as the test says so; what was called off meanwhile is not done."""
    while held.is_set():
        if not context.is_active():
            context.abort(grpc.StatusCode.CANCELLED, "called off")
        time.sleep(LOOK_SECONDS)


def now_us() -> int:
    """The time, as nodes tell it."""
    return time.time_ns() // 1000
