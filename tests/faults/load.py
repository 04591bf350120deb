"""Devices that keep the core busy: pipelined frames, reconnects, reboots, and everything unacknowledged sent again.

All that is sent and answered goes to the recorder first; the checker judges afterwards.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgpack

from tests.faults.conditions import until
from tests.faults.recorder import Recorder, Stream, mark_of
from tests.faults.wire import ConnectionEnded, Credentials, Message, Peer, frame

RECONNECT_SECONDS = 0.01
BATCH_KIND = 0x02


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the devices of a load behave."""

    events_per_frame: tuple[int, int] = (1, 40)
    frames_in_flight: int = 8
    events_max: int | None = None  # per device; None: until told to settle
    reboot_probability: float = 0.05  # at a reconnect: a new epoch, and what was not acknowledged is gone
    resend_max: int = 30  # after a reconnect, events that are known to be durable are sent again, up to so many
    pause_seconds: float = 0.0  # between two frames
    padding: int = 0  # bytes of metadata in every event, to fill segments with few events


class ConnectionOver(Exception):
    """The session ended; the device connects again."""


class DeviceLoad:
    """One device: its epoch, what it sent, and what it was promised."""

    def __init__(
        self, credentials: Credentials, port: int, recorder: Recorder, plan: Plan, seed: int, transport: type[Peer]
    ) -> None:
        self.credentials = credentials
        self.port = port
        self.transport = transport
        self.recorder = recorder
        self.plan = plan
        self.random = random.Random(seed)
        self.epoch = 1
        self.position = 0  # the last event written in this connection
        self.highest = 0  # the last event ever written in this epoch
        self.acked = 0
        self.acked_before = 0  # events acknowledged in earlier epochs
        self.is_producing = True
        self.is_over = False  # a task group may swallow a cancellation that meets the end of a connection
        self.in_flight: deque[int] = deque()
        self.may_send = asyncio.Event()
        self.sessions = 0
        # What it was told to do, by request id, in the order in which it heard of it first.
        self.commands: dict[str, Message] = {}

    @property
    def stream(self) -> Stream:
        """What the sequence numbers count."""
        return self.credentials.device_id, self.epoch

    @property
    def is_settled(self) -> bool:
        """Nothing more will be sent, and all that was sent is acknowledged."""
        is_done = not self.is_producing or self._left() == 0
        return is_done and self.acked >= self.highest

    def _left(self) -> int | None:
        """How many new events this device may still send; None without a limit."""
        return None if self.plan.events_max is None else max(0, self.plan.events_max - self.highest)

    async def run(self) -> None:
        """Connect, send, and do it again, until told that it is over and cancelled."""
        while not self.is_over:
            try:
                await self.session()
            except* (OSError, ConnectionEnded, ConnectionOver, TimeoutError):
                await asyncio.sleep(RECONNECT_SECONDS)

    async def session(self) -> None:
        """One connection, from HELLO to its end."""
        peer = await self.transport.dial(self.port)
        if self.sessions and self.random.random() < self.plan.reboot_probability:
            self.acked_before += self.acked
            self.epoch, self.position, self.highest, self.acked = self.epoch + 1, 0, 0, 0
        self.sessions += 1
        try:
            self.resume(await peer.ask("hello", **self.credentials.hello(self.epoch)))
            async with asyncio.TaskGroup() as group:
                group.create_task(self.receive(peer))
                group.create_task(self.send(peer))
        finally:
            peer.abort()

    def resume(self, answer: Message) -> None:
        """Go on after the higher of what WELCOME and what ACKs said, sending a little of it again: resending is always safe."""
        if answer.name != "welcome":
            self.refused(answer)
        last_seq = answer.number("last_seq")
        self.promise(last_seq)
        self.position = max(0, self.acked - self.random.randint(0, self.plan.resend_max))
        self.in_flight.clear()
        self.may_send.set()

    def promise(self, seq: int) -> None:
        """Note that the core answers for everything up to `seq`."""
        self.recorder.acked(self.stream, seq)
        if seq > self.highest:
            self.recorder.broken(self.stream, f"{seq} is acknowledged, but {self.highest} was the last one sent")
        self.acked = max(self.acked, seq)

    def refused(self, answer: Message) -> None:
        """Note an ERROR; those that only a mistake of the core can bring to a well-behaved device break a rule."""
        code = str(answer["code"])
        self.recorder.error(self.stream, code)
        if code not in {"shutting_down", "superseded", "internal"}:
            self.recorder.broken(self.stream, f"a well-behaved device was answered {answer}")
        raise ConnectionOver(code)

    async def receive(self, peer: Peer) -> None:
        """Take every answer down."""
        while True:
            answer = await peer.receive(seconds=3600)
            match answer.name:
                case "ack":
                    self.on_ack(answer)
                case "busy":
                    await self.on_busy(answer)
                case "error":
                    self.refused(answer)
                case "command":
                    await self.on_command(peer, answer)
                case _:
                    self.recorder.broken(self.stream, f"unexpected {answer}")

    def on_ack(self, answer: Message) -> None:
        """ACKs are cumulative and in order."""
        seq = answer.number("seq")
        for rejected, code in answer.rejected():
            self.recorder.rejected(self.stream, rejected, code)
        self.promise(seq)
        while self.in_flight and self.in_flight[0] <= seq:
            self.in_flight.popleft()
        self.may_send.set()

    async def on_busy(self, answer: Message) -> None:
        """Events after `seq` were not taken: send them again when told."""
        seq = answer.number("seq")
        self.recorder.busy(self.stream, seq)
        if seq < self.acked:
            self.recorder.broken(self.stream, f"BUSY {seq}, but {self.acked} was acknowledged")
        self.may_send.clear()
        self.in_flight.clear()
        await asyncio.sleep(answer.number("retry_after_ms") / 1000)
        self.position = max(seq, self.acked)
        self.may_send.set()

    async def on_command(self, peer: Peer, told: Message) -> None:
        """Do it, once under one id; answer each time it is told. One that is called `fail` fails, and to `mute` nothing is said."""
        request_id = str(told["request_id"])
        self.commands.setdefault(request_id, told)
        if told["command_type"] != "mute":
            status = 7 if told["command_type"] == "fail" else 0
            await peer.send("result", request_id=request_id, status=status)

    async def send(self, peer: Peer) -> None:
        """Keep the pipeline full."""
        while True:
            await self.may_send.wait()
            num_events = self.next_frame_events()
            if num_events == 0 or len(self.in_flight) >= self.plan.frames_in_flight:
                self.may_send.clear()
                continue
            first, last = self.position + 1, self.position + num_events
            self.recorder.sent(self.stream, first, last)
            self.position, self.highest = last, max(self.highest, last)
            self.in_flight.append(last)
            await peer.send_bytes(self.events_frame(first, last))
            await asyncio.sleep(self.plan.pause_seconds)

    def next_frame_events(self) -> int:
        """How many events the next frame has; 0: nothing to send."""
        resendable = self.highest - self.position
        left = self._left()
        fresh = (1 << 30 if left is None else left) if self.is_producing else 0
        return min(self.random.randint(*self.plan.events_per_frame), resendable + fresh)

    def events_frame(self, first: int, last: int) -> bytes:
        """Return the frame of these events; the same events are the same bytes each time."""
        base, offset = self.recorder.base_us, mark_of(self.epoch, 1) - 1
        padding: list[object] = [None, {"padding": "x" * self.plan.padding}] if self.plan.padding else []
        events = [[base + offset + seq, "t", float(offset + seq), *padding] for seq in range(first, last + 1)]
        return frame(BATCH_KIND, msgpack.packb([first, events]))


class Load:
    """A number of devices, running while the `async with` block runs."""

    def __init__(
        self,
        port: int,
        fleet: Sequence[Credentials],
        recorder: Recorder,
        plan: Plan | None = None,
        *,
        seed: int = 1,
        transport: type[Peer] = Peer,
    ) -> None:
        self.devices = [
            DeviceLoad(credentials, port, recorder, plan or Plan(), seed * 1000 + place, transport)
            for place, credentials in enumerate(fleet)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(device.run()) for device in self.devices]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for device, task in zip(self.devices, self._tasks, strict=True):
            device.is_over = True
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    def _live(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    @property
    def num_acked(self) -> int:
        """How many events are acknowledged, all devices and epochs together."""
        self._live()
        return sum(device.acked_before + device.acked for device in self.devices)

    async def progress(self, num_events: int, *, seconds: float = 30.0) -> None:
        """Wait until `num_events` more are acknowledged."""
        goal = self.num_acked + num_events
        await until(lambda: self.num_acked >= goal, f"{num_events} more events acknowledged", seconds=seconds)

    async def settle(self, *, seconds: float = 60.0) -> None:
        """Send nothing new, and wait until all that was sent is acknowledged."""
        for device in self.devices:
            if device.plan.events_max is None:
                device.is_producing = False
            device.may_send.set()
        await until(self._all_settled, "all that was sent is acknowledged", seconds=seconds)

    def _all_settled(self) -> bool:
        self._live()
        return all(device.is_settled for device in self.devices)
