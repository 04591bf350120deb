"""Devices that keep what was not acknowledged, send it again after a reconnect, and wait when the core is busy."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hse.simulation.commanded import Configurable, Does
from hse.simulation.hdp import Ack, Busy, Command, ConnectionClosed, DeviceConnection, Error, HelloRefused
from hse.simulation.identities import Identity
from hse.simulation.sources import EventArray, Source

logger = logging.getLogger(__name__)

EVENTS_PER_FRAME_MAX = 500
LOOK_SECONDS = 0.1
RECONNECT_FIRST_SECONDS = 0.2
RECONNECT_SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 15.0
# The core hears of a new device within two seconds; so many attempts take longer.
REFUSALS_TO_TELL = 4
AGENT = "hse-simulate"


class CoreClosed(Exception):
    """The core said why it closes the connection."""

    def __init__(self, error: Error) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the core listens."""

    host: str
    port: int


@dataclass(slots=True)
class Totals:
    """What all devices of a simulation have done so far."""

    first_connection: asyncio.Event = field(default_factory=asyncio.Event)
    connected: int = 0
    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0
    busy: int = 0
    reconnects: int = 0

    def line(self) -> str:
        """Return the totals as one line."""
        return (
            f"{self.connected} connected, {self.sent:,} sent, {self.acknowledged:,} acknowledged, {self.rejected:,} rejected, "
            f"{self.busy:,} busy, {self.reconnects:,} reconnects"
        )


@dataclass(slots=True, kw_only=True)
class Device:
    """One simulated device in one epoch."""

    identity: Identity
    epoch: int
    source: Source
    address: Address
    totals: Totals
    does: Does = field(default_factory=lambda: Configurable().do)
    acknowledged_seq: int = 0
    _next_seq: int = 1
    _inflight: list[int] = field(default_factory=list)  # the last number of each frame that is not acknowledged
    _resume_at: float = 0.0

    async def run(self) -> None:
        """Report for ever; a connection that ends is made again, after a delay with jitter."""
        failures = 0
        while True:
            try:
                connection = await self._connect()
                failures = 0
                await self._report(connection)
            except (OSError, CoreClosed, HelloRefused, TimeoutError) as error:
                failures += 1
                self.totals.reconnects += 1
                self._tell(error, failures)
            longest = min(RECONNECT_FIRST_SECONDS * 2**failures, RECONNECT_SECONDS_MAX)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311

    async def _connect(self) -> DeviceConnection:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            return await DeviceConnection.open(
                self.address.host,
                self.address.port,
                device_id=self.identity.device_id,
                token=self.identity.token,
                epoch=self.epoch,
                agent=AGENT,
            )

    def _tell(self, error: Exception, failures: int) -> None:
        """A refusal that stays is worth a line; that a core is away, drains, or has not heard of a new device yet is not."""
        is_refusal = isinstance(error, HelloRefused | CoreClosed) and error.error.code != "shutting_down"
        level = logging.WARNING if is_refusal and failures >= REFUSALS_TO_TELL else logging.DEBUG
        logger.log(level, "%s: %s", self.identity.name, error)

    async def _report(self, connection: DeviceConnection) -> None:
        # The core may know less than was acknowledged here, when another node took it, and more, when an ACK was lost.
        self.acknowledged_seq = max(connection.welcome.last_seq, self.acknowledged_seq)
        self.source.forget(self.acknowledged_seq)
        self._next_seq = self.acknowledged_seq + 1
        self._inflight.clear()
        self._resume_at = 0.0
        self.totals.connected += 1
        self.totals.first_connection.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(connection))
                tasks.create_task(self._hear(connection))
        except* (OSError, CoreClosed) as group:
            raise group.exceptions[0] from None
        finally:
            self.totals.connected -= 1
            await connection.close()

    async def _send(self, connection: DeviceConnection) -> None:
        clock = asyncio.get_running_loop().time
        sent_at = clock()
        while True:
            events: list[EventArray] = []
            if len(self._inflight) < connection.welcome.max_inflight_frames and clock() >= self._resume_at:
                events = self.source.due(self._next_seq, EVENTS_PER_FRAME_MAX)
            if events:
                first_seq, self._next_seq = self._next_seq, self._next_seq + len(events)
                self._inflight.append(self._next_seq - 1)
                self.totals.sent += len(events)
                await connection.send_events(first_seq, events)
                sent_at = clock()
                continue
            if clock() - sent_at >= connection.welcome.keepalive_s:
                await connection.ping(1)
                sent_at = clock()
            await asyncio.sleep(LOOK_SECONDS)

    async def _hear(self, connection: DeviceConnection) -> None:
        async for received in connection:
            match received:
                case Ack(seq=seq, rejected=rejected):
                    self._took(seq)
                    self.totals.rejected += len(rejected)
                case Busy(retry_after_ms=retry_after_ms):
                    # BUSY acknowledges nothing: all that was not acknowledged is sent again.
                    self.totals.busy += 1
                    self._next_seq = self.acknowledged_seq + 1
                    self._inflight.clear()
                    self._resume_at = asyncio.get_running_loop().time() + retry_after_ms / 1000
                case Command(request_id=request_id, command_type=command_type, params=params):
                    answer = self.does(command_type, params)
                    await connection.send_result(
                        request_id=request_id, status=answer.status, message=answer.message, data=answer.data
                    )
                case Error():
                    raise CoreClosed(received)
        raise ConnectionClosed("the core closed the connection")

    def _took(self, seq: int) -> None:
        if seq > self.acknowledged_seq:
            self.totals.acknowledged += seq - self.acknowledged_seq
            self.acknowledged_seq = seq
            self.source.forget(seq)
        self._inflight[:] = [last for last in self._inflight if last > seq]


async def run_devices(devices: Sequence[Device]) -> None:
    """Run all devices until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for device in devices:
            tasks.create_task(device.run(), name=device.identity.name)
