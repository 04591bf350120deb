"""Slow, silent, greedy and broken clients: each costs only itself."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.recorder import Recorder
from tests.faults.wire import HEADER, Credentials, Peer, frame

MEBIBYTE = 1 << 20
NUM_IDLE = 10_000
NUM_HOSTILE = 50
STEADY = Plan(pause_seconds=0.002)
FOUR_GIB_FRAME = HEADER.pack(0xFFFFFFFF, 0x02)


@pytest.fixture
async def core(new_core: NewCore, device: Credentials, fleet: list[Credentials]) -> Core:
    assert device not in fleet  # all are registered before the core starts
    made = new_core()
    await made.started()
    return made


@contextlib.asynccontextmanager
async def others_go_on(
    core: Core, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> AsyncIterator[Load]:
    """Well-behaved devices that lose no connection, are acknowledged during and after the block, and find all stored."""
    async with Load(core.port, fleet, recorder, STEADY) as load:
        await load.progress(200)
        yield load
        await load.progress(500)
        assert [device.sessions for device in load.devices] == [1] * len(fleet), "a good device was disconnected"
        await load.settle()
        await checker.until_stored()
    checker.check(acked_min=700)


def resident_bytes(core: Core) -> int:
    """Return the core's resident memory."""
    fields = Path(f"/proc/{core.process.pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * resource.getpagesize()


async def test_a_device_that_never_reads_its_answers_is_not_read_any_more(
    core: Core, device: Credentials, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with others_go_on(core, fleet, recorder, checker):
        before = resident_bytes(core)
        peer = await Peer.join(core.port, device)
        chunk = peer.encode("ping", nonce=1) * 10_000
        limit = 256 * MEBIBYTE
        assert await peer.pour(chunk, limit) < limit, "the core reads on, whatever its answers do"
        assert resident_bytes(core) - before < 64 * MEBIBYTE
        peer.abort()


HOSTILE_BEFORE_HELLO = {
    "bytes of no protocol": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", {"malformed", "too_large"}),
    "zeros": (bytes(64), {"malformed"}),
    "a frame of 4 GiB": (FOUR_GIB_FRAME, {"too_large"}),
    "a frame of 4097 bytes": (HEADER.pack(4097, 0x01), {"too_large"}),
    "events before hello": (frame(0x02, b"\x92\x01\x91\x92\xc0\xa1t"), {"malformed"}),
    "an unknown kind": (frame(0x7F, b"\x90"), {"malformed"}),
    "a line of 64 KiB without an end": (b"{" + b" " * 70_000, {"too_large"}),
}


@pytest.mark.parametrize(("sent", "codes"), HOSTILE_BEFORE_HELLO.values(), ids=HOSTILE_BEFORE_HELLO)
async def test_bytes_that_are_no_hello_are_answered_with_an_error_and_the_end(
    sent: bytes, codes: set[str], core: Core, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with others_go_on(core, fleet, recorder, checker):
        for _ in range(NUM_HOSTILE):
            peer = await Peer.dial(core.port, "json" if sent.startswith(b"{") else "frames")
            await peer.send_bytes(sent)
            assert await peer.refused() in codes


async def test_a_length_of_four_gib_after_hello_reserves_nothing(
    core: Core, device: Credentials, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with others_go_on(core, fleet, recorder, checker):
        before = resident_bytes(core)
        for _ in range(NUM_HOSTILE):
            peer = await Peer.join(core.port, device)
            await peer.send_bytes(FOUR_GIB_FRAME + bytes(1000))
            assert await peer.refused() == "too_large"
        assert resident_bytes(core) - before < 32 * MEBIBYTE


async def test_half_frames_take_nothing_and_leave_nothing_behind(
    core: Core, database: Database, device: Credentials, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with others_go_on(core, fleet, recorder, checker):
        whole = Peer.encode(await Peer.join(core.port, device), "events", first_seq=1, events=[{"type": "t"}])
        for size in range(1, len(whole)):
            peer = await Peer.join(core.port, device)
            await peer.send_bytes(whole[:size])
            peer.writer.write_eof()
            assert [message.name for message in await peer.everything()] in ([], ["error"])
            await peer.close()
        for size in range(1, len(whole)):
            peer = await Peer.join(core.port, device)
            assert peer.last_seq == (0 if size == 1 else 1)
            await peer.send_bytes(whole[:size])
            await asyncio.sleep(0)
            await peer.send_bytes(whole[size:])
            assert (await peer.receive()).name == "ack"
            await peer.close()
    assert await core.stop() == 0
    assert len(database.events_of(device.device_id)) == 1


async def test_a_connection_without_hello_is_closed_in_time(new_core: NewCore, fleet: list[Credentials]) -> None:
    assert fleet
    core = new_core(hello_timeout_s=1)
    await core.started()
    silent, slow = await Peer.dial(core.port), await Peer.dial(core.port)
    await slow.send_bytes(b"\0\0")
    assert await silent.refused() == "hello_timeout"
    assert await slow.refused() == "hello_timeout"
    drip = await Peer.dial(core.port)
    hello = drip.encode("hello", **fleet[0].hello())
    dripping = asyncio.create_task(drip_feed(drip, hello))
    assert (await drip.receive())["code"] == "hello_timeout"
    dripping.cancel()


async def drip_feed(peer: Peer, data: bytes) -> None:
    """A byte at a time, so slowly that the whole takes longer than a HELLO may."""
    for place in range(len(data)):
        await peer.send_bytes(data[place : place + 1])
        await asyncio.sleep(0.1)


async def test_a_device_that_says_nothing_is_closed_and_one_that_pings_is_not(
    new_core: NewCore, fleet: list[Credentials]
) -> None:
    core = new_core(keepalive_s=1)
    await core.started()
    silent, alive = await Peer.join(core.port, fleet[0]), await Peer.join(core.port, fleet[1])
    ending = asyncio.create_task(silent.refused())
    nonce = 0
    while not ending.done():
        nonce += 1
        assert (await alive.ask("ping", nonce=nonce))["nonce"] == nonce
        await asyncio.sleep(0.5)
    assert await ending == "idle_timeout"
    assert nonce in range(4, 9), "2.5 x keepalive, and not much less or more"
    assert (await alive.ask("ping", nonce=0)).name == "pong"


async def test_half_a_frame_does_not_keep_a_connection_alive_for_ever(
    new_core: NewCore, fleet: list[Credentials]
) -> None:
    core = new_core(keepalive_s=1)
    await core.started()
    peer = await Peer.join(core.port, fleet[0])
    await peer.send_bytes(HEADER.pack(1000, 0x02) + b"\x92")
    assert await peer.refused() == "idle_timeout"


async def test_connections_beyond_the_limits_are_refused_and_the_others_go_on(
    new_core: NewCore, fleet: list[Credentials]
) -> None:
    for limit in ("connections_max", "connections_per_address_max"):
        core = new_core(**{limit: 3})
        await core.started()
        peers = [await Peer.join(core.port, device) for device in fleet[:3]]
        for _ in range(5):
            extra = await Peer.dial(core.port)
            with contextlib.suppress(ConnectionError):
                await extra.send("hello", **fleet[3].hello())
            assert [message.name for message in await extra.everything()] in ([], ["error"])
            await extra.close()
        for peer in peers:
            assert (await peer.ask("ping", nonce=1)).name == "pong"
        assert core.metric("connections_refused_total") == 5
        await peers[0].close()
        await until_in_thread(lambda core=core: core.metric("connections") == 2, "the place is free")  # type: ignore[misc]
        await (await Peer.join(core.port, fleet[4])).acked(1, {"type": "t"})
        await core.kill()


async def test_ten_thousand_idle_connections_do_not_slow_the_others_down(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = NUM_IDLE + 1000
    if hard < wanted:
        pytest.skip(f"only {hard} open files are allowed here, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    idle_devices = database.add_devices(NUM_IDLE)
    core = new_core()
    await core.started()
    idle: list[Peer] = []
    try:
        async with others_go_on(core, fleet, recorder, checker):
            before = resident_bytes(core)
            for start in range(0, NUM_IDLE, 250):
                joining = [Peer.join(core.port, device) for device in idle_devices[start : start + 250]]
                idle += await asyncio.gather(*joining)
            assert core.metric("connections") == NUM_IDLE + len(fleet)
            per_connection = (resident_bytes(core) - before) / NUM_IDLE
            assert per_connection < 16 * 1024, f"{per_connection:.0f} bytes an idle connection"
        for peer in (idle[0], idle[-1]):
            assert (await peer.ask("ping", nonce=1)).name == "pong"
    finally:
        for peer in idle:
            peer.abort()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
