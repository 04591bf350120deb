"""A program that calls the control plane's port, with the blocking client: its calls run in threads beside the test's loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc

from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.ingest_stubs.devices_pb2_grpc import DeviceStreamStub
from tests.faults.conditions import until
from tests.faults.core import SERVICE_TOKEN, Core

CALL_SECONDS = 30.0
OPTIONS = [
    # A test's channel is not shared with that of the test before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Who does not read takes no more than the standard's window, however fast the wire is found to be.
    ("grpc.http2.bdp_probe", 0),
]


class Caller:
    """One channel to one core, with a token or without."""

    def __init__(
        self, core: Core, *, token: str | None = SERVICE_TOKEN, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        if credentials is None:
            self.channel = grpc.insecure_channel(f"127.0.0.1:{core.grpc_port}", options=OPTIONS)
        else:
            self.channel = grpc.secure_channel(f"localhost:{core.grpc_port}", credentials, options=OPTIONS)
        self.metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self.stub: Any = DeviceStreamStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    async def ask(self, method: str, request: object, *, seconds: float = CALL_SECONDS) -> Any:
        """Call a method that has one answer."""
        call = getattr(self.stub, method)
        return await asyncio.to_thread(call, request, timeout=seconds, metadata=self.metadata, wait_for_ready=True)

    async def refused(self, method: str, request: object) -> grpc.StatusCode:
        """Call a method that must be refused; return the code."""
        try:
            answer = await self.ask(method, request)
        except grpc.RpcError as error:
            return code_of(error)
        raise AssertionError(f"it was answered: {answer}")

    @contextlib.contextmanager
    def listening(self, method: str, request: object) -> Iterator["Heard"]:
        """Call a method that has many answers, and hear them while the context lasts."""
        heard = Heard(getattr(self.stub, method)(request, metadata=self.metadata, wait_for_ready=True))
        try:
            yield heard
        finally:
            heard.stop()


class Heard:
    """What a stream has said so far, heard by a thread."""

    def __init__(self, call: Any) -> None:
        self.messages: list[Any] = []
        self.end: grpc.StatusCode | None = None
        self._call = call
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for message in self._call:
                self.messages.append(message)
        except grpc.RpcError as error:
            self.end = code_of(error)
        else:
            self.end = grpc.StatusCode.OK

    def stop(self) -> None:
        """End the call and the thread."""
        self._call.cancel()
        self._thread.join(10)

    async def begun(self) -> None:
        """Wait until the core has taken the call."""
        await asyncio.to_thread(self._call.initial_metadata)

    async def until(self, holds: Callable[[list[Any]], object], what: str, *, seconds: float = 30.0) -> None:
        """Wait until what was heard so far is as the test needs it."""
        await until(lambda: holds(self.messages), what, seconds=seconds)

    async def ended(self, *, seconds: float = 30.0) -> grpc.StatusCode:
        """Wait for the end of the stream and return its code."""
        await until(lambda: self.end is not None, "the stream ends", seconds=seconds)
        assert self.end is not None
        return self.end


def code_of(error: Any) -> grpc.StatusCode:
    """Return the code of what a call raised: a `grpc.RpcError` that is a `grpc.Call` too, which its type does not say."""
    code = error.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def event(device: object, event_type: str = "temperature", value: float = 1.0, **fields: Any) -> pb.DeviceEvent:
    """Return an event as a service sends it."""
    return pb.DeviceEvent(device_id=str(device), event_type=event_type, value=value, **fields)
