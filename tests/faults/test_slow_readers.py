"""Crowds that follow what happens and do not read: devices are answered as before, and neither node nor api grows with the crowd.

What ten thousand subscribers are here: a screen is a stream of an api process (5000 at most), an api process is one subscriber of
a node, and a node has 64 at most. So two processes of the api serve ten thousand, and cost a node two places. That ten thousand
places cost nothing is shown beside the ring itself (`pipeline/live/tests.rs`); here are as many subscribers as a node takes, and
some hundreds of streams.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.api.world import World
from tests.faults.cache import Cache
from tests.faults.checker import Checker
from tests.faults.commands import Commander
from tests.faults.conftest import NewCore
from tests.faults.control_plane import ControlPlane
from tests.faults.core import SERVICE_TOKEN, Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.recorder import Recorder, mark_of
from tests.faults.sse import Stream, following
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller

# A node has 64 subscribers; the api is one, and the worker another.
NUM_SUBSCRIBERS = 62
NUM_PEOPLE, STREAMS_EACH = 10, 20
# More than the window of a connection and a frame.
SIP_CHANGES = 60
# A crowd in which some begin to read at last.
NUM_ASKED = 3
# So that a socket's buffers are full after some hundred events.
WIDE = Plan(events_per_frame=(5, 20), padding=8000, pause_seconds=0.02, reboot_probability=0.0)
EVENTS_PER_ROUND = 1000
MEBIBYTE = 1 << 20
# With a crowd that holds what it may. And of the last two rounds: it holds no more later.
CROWD_BYTES_MAX, GROWTH_BYTES_MAX = 96 * MEBIBYTE, 32 * MEBIBYTE
LINE_BYTES_MAX = 1 << 15


class Idler:
    """A screen that has opened a stream and reads nothing of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.stream = Stream()

    @classmethod
    async def open(cls, control_plane: ControlPlane, headers: dict[str, str], device: UUID) -> "Idler":
        """Open a stream of one device's events."""
        reader, writer = await asyncio.open_connection(control_plane.host, control_plane.port, limit=LINE_BYTES_MAX)
        query = urlencode({"kind": "event", "device_id": str(device)})
        lines = [
            f"GET /api/v1/live?{query} HTTP/1.1",
            "Host: x",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        status = await reader.readline()
        assert b" 200 " in status, status
        return cls(reader, writer)

    async def read_until(self, value: float) -> None:
        """Read at last, up to the event with this value."""
        while not self.stream.values() or self.stream.values()[-1] < value:
            line = await asyncio.wait_for(self._reader.readline(), 60)
            assert line, "the stream has ended"
            self.stream.hear(line.decode().strip())


def resident(core: Core, control_plane: ControlPlane) -> list[int]:
    """How many bytes of memory the node and the api hold."""
    pages = [
        Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
        for pid in (core.process.pid, control_plane.api.pid)
    ]
    return [int(one) * os.sysconf("SC_PAGE_SIZE") for one in pages]


@pytest.fixture
async def core(new_core: NewCore, cache: Cache, fleet: list[Credentials]) -> Core:
    assert fleet  # registered before the node starts
    made = new_core(node_name="n1", redis_url=cache.url, live_ring_bytes_max=8 * MEBIBYTE)
    await made.started()
    return made


@pytest.fixture
async def control_plane(
    core: Core, cache: Cache, database: Database, people: World, tmp_path: Path
) -> AsyncIterator[ControlPlane]:
    assert core.is_running
    assert people.people
    made = ControlPlane(
        tmp_path,
        database,
        redis_url=cache.url,
        service_token=SERVICE_TOKEN,
        rate_limit_address_per_minute=100_000,
    )
    await made.start()
    yield made
    made.clean_up()
    print(f"--- the end of {made.api.log_path.name}\n{made.api.tail()}")


def missed_of(stream: Stream) -> int:
    """How many events a reader was told that he missed."""
    return sum(one["num_missed"] for one in stream.named("missed"))


async def idlers(stack: AsyncExitStack, control_plane: ControlPlane, people: World, device: UUID) -> list[Idler]:
    """Open many streams of many people."""
    opened = []
    for _ in range(NUM_PEOPLE):
        person = people.add_person_now(f"{uuid4().hex}@example.com", "root")
        headers = Commander(control_plane.url, person).headers()
        for _ in range(STREAMS_EACH):
            idler = await Idler.open(control_plane, headers, device)
            stack.callback(idler.writer.transport.abort)
            opened.append(idler)
    return opened


class Subscriber:
    """A program that follows a node, on a connection of its own, and reads when it is told to."""

    def __init__(self, caller: Caller, device: UUID) -> None:
        request = pb.SubscriptionRequest(device_ids=[str(device)])
        self.call = caller.stub.SubscribeToDeviceChanges(request, metadata=caller.metadata, wait_for_ready=True)
        assert self.call.initial_metadata() is not None
        self.num_heard = self.num_missed = 0

    def read(self) -> float:
        """Read one change; its value."""
        change = next(self.call)
        self.num_missed += change.num_missed
        self.num_heard += change.kind == pb.EVENT
        return float(change.value)

    def sip(self) -> None:
        """Read a little of what waits, and come back for more than it then takes."""
        for _ in range(SIP_CHANGES):
            self.read()

    def read_until(self, value: float) -> tuple[int, int]:
        """Read up to the event with this value; how many were heard in all, and how many missed."""
        while self.read() != value:
            pass
        return self.num_heard, self.num_missed


def subscribers(stack: AsyncExitStack, core: Core, device: UUID) -> list[Subscriber]:
    """Subscribe as often as a node allows."""
    made = []
    for _ in range(NUM_SUBSCRIBERS):
        made.append(Subscriber(stack.enter_context(Caller(core)), device))
        stack.callback(made[-1].call.cancel)
    return made


@pytest.mark.timeout(300)
async def test_hundreds_of_readers_that_do_not_read_hold_up_nobody_and_are_told_what_they_missed(
    core: Core,
    control_plane: ControlPlane,
    people: World,
    fleet: list[Credentials],
    recorder: Recorder,
    checker: Checker,
) -> None:
    device = fleet[0]
    headers = Commander(control_plane.url, people.root).headers()
    params = {"kind": "event", "device_id": str(device.device_id)}
    async with AsyncExitStack() as stack:
        swift = await stack.enter_async_context(following(control_plane.url, headers, params))
        await swift.until(lambda one: {"num_nodes": 1, "num_away": 0} in one.named("sources"), "the node is heard")
        alone = resident(core, control_plane)
        programs = await asyncio.to_thread(subscribers, stack, core, device.device_id)
        crowd = await idlers(stack, control_plane, people, device.device_id)
        load = await stack.enter_async_context(Load(core.port, [device], recorder, WIDE))
        await load.progress(EVENTS_PER_ROUND, seconds=60)
        for program in programs:
            await asyncio.to_thread(program.sip)
        before = resident(core, control_plane)
        for _ in range(2):
            await load.progress(EVENTS_PER_ROUND, seconds=60)
        await load.settle()
        after = resident(core, control_plane)
        assert all(now - then < CROWD_BYTES_MAX for then, now in zip(alone, after, strict=True)), (alone, after)
        assert all(now - then < GROWTH_BYTES_MAX for then, now in zip(before, after, strict=True)), (before, after)
        assert (load.devices[0].sessions, core.metric("live_readers")) == (1, NUM_SUBSCRIBERS + 2)
        num_events = load.devices[0].highest
        last = float(mark_of(load.devices[0].epoch, num_events))
        await swift.until(
            lambda one: one.values() and one.values()[-1] == last, "who reads hears the last one", seconds=60
        )
        assert len(swift.values()) + missed_of(swift) >= num_events
        for idler in crowd[:: len(crowd) // NUM_ASKED]:
            await idler.read_until(last)
            assert missed_of(idler.stream) > 0
            assert len(idler.stream.values()) + missed_of(idler.stream) >= num_events
        asked = programs[:: NUM_SUBSCRIBERS // NUM_ASKED]
        told = [await asyncio.to_thread(program.read_until, last) for program in asked]
        assert all(missed > 0 and heard + missed >= num_events for heard, missed in told), (told, num_events)
        print(f"{num_events} events; resident bytes: {alone} {before} {after}")
    await checker.until_stored()
    assert checker.check(acked_min=3 * EVENTS_PER_ROUND).busy == 0
