"""What only a WebSocket can do right and wrong; the rules of the protocol itself are tested for all ways alike."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus

from tests.faults.certificates import trusting
from tests.faults.checker import Checker
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.load import Load
from tests.faults.recorder import Recorder
from tests.faults.test_hostile import resident_bytes
from tests.faults.websocket import WebSocketPeer
from tests.faults.wire import ConnectionEnded, Credentials, Form, Message, Peer, decode_frame, decode_line, encode_frame

UPGRADE = (
    b"GET /v1/device HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PING = encode_frame("ping", {"nonce": 1})
MASK = bytes([0x11, 0x82, 0xF3, 0x04])
FIN, TEXT, BINARY, CLOSE, PING_FRAME, PONG_FRAME = 0x80, 1, 2, 8, 9, 10
MEBIBYTE = 1 << 20
NUM_IDLE = 500


def masked(first: int, payload: bytes, declared: int | None = None) -> bytes:
    """Return a client's frame; `declared` is a length that it only claims."""
    length = len(payload) if declared is None else declared
    if length < 126:
        head = bytes([first, 0x80 | length])
    elif length < 1 << 16:
        head = bytes([first, 0x80 | 126]) + struct.pack(">H", length)
    else:
        head = bytes([first, 0x80 | 127]) + struct.pack(">Q", length)
    return head + MASK + bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))


class RawPeer:
    """A socket behind the upgrade, to say what a library would not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """Return the opcode and the payload of the core's next frame."""
        try:
            async with asyncio.timeout(10):
                first, length = await self.reader.readexactly(2)
                assert first & 0x70 == 0
                assert length < 127, "the core's frames are not masked, and these are short"
                if length == 126:
                    (length,) = struct.unpack(">H", await self.reader.readexactly(2))
                return first & 0x0F, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ConnectionEnded from error

    async def message(self) -> Message:
        """Return the one frame or line of the protocol that the next message holds."""
        opcode, payload = await self.receive()
        assert opcode in {TEXT, BINARY}
        return decode_line(payload) if opcode == TEXT else decode_frame(payload[4], payload[5:])

    async def joined(self, device: Credentials) -> None:
        """Be welcomed."""
        await self.send(masked(FIN | BINARY, encode_frame("hello", device.hello())))
        assert (await self.message()).name == "welcome"

    async def refused(self) -> str:
        """Return the code of the ERROR that comes next, after which the WebSocket and the socket are closed."""
        error = await self.message()
        assert error.name == "error", error
        assert (await self.receive())[0] == CLOSE
        with pytest.raises(ConnectionEnded):
            await self.receive()
        return str(error["code"])


@contextlib.asynccontextmanager
async def raw_peer(core: Core, upgrade: bytes = UPGRADE) -> AsyncIterator[RawPeer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", core.ws_port)
    try:
        peer = RawPeer(reader, writer)
        await peer.send(upgrade)
        yield peer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def upgraded(core: Core) -> AsyncIterator[RawPeer]:
    async with raw_peer(core) as peer:
        answer = await asyncio.wait_for(peer.reader.readuntil(b"\r\n\r\n"), 10)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
        yield peer


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [
        ("/v1/device", "https://elsewhere.example.com", 403),
        ("/v1/device", "null", 403),
        ("/", None, 404),
        ("/v1/devices", None, 404),
    ],
)
async def test_an_upgrade_from_a_foreign_page_or_elsewhere_is_refused(
    path: str, origin: str | None, status: int, shared_core: Core
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{shared_core.ws_port}{path}", additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == status


async def test_a_configured_origin_may_connect(new_core: NewCore) -> None:
    core = new_core(ws_origins="https://lab.example.com")
    await core.started()
    url, headers = f"ws://127.0.0.1:{core.ws_port}/v1/device", {"Origin": "https://lab.example.com"}
    async with connect(url, additional_headers=headers, proxy=None) as connection:
        await connection.send(PING)
        assert isinstance(await connection.recv(), bytes)


async def test_a_plain_request_is_told_what_is_spoken_here(shared_core: Core) -> None:
    async with raw_peer(shared_core, b"GET /v1/device HTTP/1.1\r\nHost: x\r\n\r\n") as peer:
        answer = await asyncio.wait_for(peer.reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert b"sec-websocket-version: 13" in answer.lower()
    async with raw_peer(shared_core, b"\0\0\0\x03\x04\x91\x01") as peer:
        assert not (await asyncio.wait_for(peer.reader.read(), 10)).startswith(b"HTTP/1.1 101")


async def test_what_comes_with_the_request_is_heard(shared_core: Core, device: Credentials) -> None:
    hello = masked(FIN | BINARY, encode_frame("hello", device.hello()))
    async with raw_peer(shared_core, UPGRADE + hello) as peer:
        await asyncio.wait_for(peer.reader.readuntil(b"\r\n\r\n"), 10)
        assert (await peer.message()).name == "welcome"


BROKEN: dict[str, bytes] = {
    "not masked": bytes([FIN | BINARY, len(PING)]) + PING,
    "a reserved bit": masked(FIN | 0x40 | BINARY, PING),
    "an unknown opcode": masked(FIN | 3, PING),
    "nothing is continued": masked(FIN, PING),
    "a message within a message": masked(BINARY, PING[:3]) + masked(FIN | BINARY, PING),
    "a long ping": masked(FIN | PING_FRAME, bytes(126)),
    "text after binary": masked(FIN | TEXT, b'{"ping": {"nonce": 1}}'),
    "half a frame": masked(FIN | BINARY, PING[:6]),
    "a frame in two messages": masked(FIN | BINARY, PING[:6]) + masked(FIN | BINARY, PING[6:]),
    "an empty message": masked(FIN | BINARY, b""),
    "a close without a code": masked(FIN | CLOSE, b"\x03"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_message_that_breaks_a_rule_is_malformed_and_the_end(
    broken: bytes, shared_core: Core, device: Credentials
) -> None:
    async with upgraded(shared_core) as peer:
        await peer.joined(device)
        await peer.send(broken)
        assert await peer.refused() == "malformed"


async def test_a_ping_between_the_fragments_of_a_message_is_answered_at_once(
    shared_core: Core, device: Credentials
) -> None:
    async with upgraded(shared_core) as peer:
        await peer.joined(device)
        await peer.send(masked(BINARY, PING[:3]) + masked(FIN | PING_FRAME, b"there?"))
        assert await peer.receive() == (PONG_FRAME, b"there?")
        await peer.send(masked(FIN | PONG_FRAME, b"unasked") + masked(FIN, PING[3:]))
        assert await peer.message() == Message("pong", {"nonce": 1})


async def test_a_close_is_answered_with_a_close(shared_core: Core, device: Credentials) -> None:
    async with upgraded(shared_core) as peer:
        await peer.joined(device)
        events = encode_frame("events", {"first_seq": 1, "events": [{"type": "t"}]})
        await peer.send(masked(FIN | BINARY, events) + masked(FIN | CLOSE, struct.pack(">H", 1000)))
        assert (await peer.message()).name == "ack"
        assert (await peer.receive())[0] == CLOSE
        with pytest.raises(ConnectionEnded):
            await peer.receive()


async def test_the_limit_before_hello_holds_whatever_the_message_declares(shared_core: Core) -> None:
    before = resident_bytes(shared_core)
    for declared in (5000, 1 << 30, 1 << 60):
        async with upgraded(shared_core) as peer:
            await peer.send(masked(FIN | BINARY, struct.pack(">IB", 4097, 1), declared))
            assert await peer.refused() == "too_large"
        async with upgraded(shared_core) as peer:
            await peer.send(masked(FIN | TEXT, b"{" + b" " * 70_000, max(declared, 70_001)))
            assert await peer.refused() == "too_large"
    assert resident_bytes(shared_core) - before < 32 * MEBIBYTE


async def test_a_binary_message_that_looks_like_json_is_no_json(shared_core: Core) -> None:
    async with upgraded(shared_core) as peer:
        await peer.send(masked(FIN | BINARY, b'{"hello": {}}'))
        assert await peer.refused() == "too_large"


async def test_silence_ends_in_time_before_and_after_hello(new_core: NewCore, fleet: list[Credentials]) -> None:
    core = new_core(hello_timeout_s=1, keepalive_s=1)
    await core.started()
    async with raw_peer(core, b"GET /v1/de") as silent:
        assert await asyncio.wait_for(silent.reader.read(), 10) == b""
    async with upgraded(core) as silent:
        assert await silent.refused() == "hello_timeout"
    peer = await WebSocketPeer.join(core.ws_port, fleet[0])
    # A WebSocket's own pings are answered, and are no sign of a device's life, nor is half a message.
    await (await peer.connection.ping())
    assert await peer.refused() == "idle_timeout"


@pytest.mark.parametrize("form", ["frames", "json"])
async def test_a_device_speaks_within_tls_as_without(shared_core: Core, device: Credentials, form: Form) -> None:
    tls = trusting(shared_core.data_dir.parent)
    peer = await WebSocketPeer.join(shared_core.wss_port, device, form=form, tls=tls)
    # More than a record of TLS holds, in both directions.
    await peer.acked(1, *({"type": "t", "metadata": {"padding": "x" * 4000}} for _ in range(12)))
    for nonce in range(2000):
        await peer.send("ping", nonce=nonce)
    assert [(await peer.receive())["nonce"] for _ in range(2000)] == list(range(2000))
    await (await peer.connection.ping(b"there?"))
    await peer.close()
    with pytest.raises((InvalidMessage, OSError)):
        await connect(f"ws://127.0.0.1:{shared_core.wss_port}/v1/device", proxy=None)


async def test_a_device_that_moves_from_tcp_to_websocket_goes_on(shared_core: Core, device: Credentials) -> None:
    over_tcp = await Peer.join(shared_core.port, device)
    await over_tcp.acked(1, {"type": "t"})
    over_websocket = await WebSocketPeer.join(shared_core.ws_port, device)
    assert await over_tcp.refused() == "superseded"
    assert over_websocket.last_seq == 1
    await over_websocket.acked(2, {"type": "t"})
    await over_websocket.close()


async def test_a_killed_core_loses_nothing_of_what_it_acknowledged_over_websocket(
    new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    await core.started()
    async with Load(core.ws_port, fleet, recorder, transport=WebSocketPeer) as load:
        for _ in range(3):
            await load.progress(500)
            await core.kill()
            await core.started()
        await load.progress(500)
        await load.settle()
    await checker.until_stored()
    checker.check(acked_min=2000)


async def test_an_idle_websocket_costs_little(new_core: NewCore, fleet: list[Credentials]) -> None:
    assert fleet
    core = new_core(hello_timeout_s=60)
    await core.started()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            await stack.enter_async_context(upgraded(core))
        before = resident_bytes(core)
        for _ in range(NUM_IDLE):
            await stack.enter_async_context(upgraded(core))
        assert (resident_bytes(core) - before) / NUM_IDLE < 16 * 1024


async def test_a_peer_that_never_reads_makes_the_core_hold_nothing(new_core: NewCore, fleet: list[Credentials]) -> None:
    core = new_core()
    await core.started()
    before = resident_bytes(core)
    deaf = await WebSocketPeer.join(core.ws_port, fleet[0])
    limit = 256 * MEBIBYTE
    assert await deaf.pour(PING * 10_000, limit) < limit, "the core reads on, whatever its answers do"
    async with upgraded(core) as pinging:
        await pinging.joined(fleet[1])
        for _ in range(500):
            await pinging.send(masked(FIN | PING_FRAME, bytes(125)) * 500)
    assert resident_bytes(core) - before < 64 * MEBIBYTE
    deaf.abort()
    other = await WebSocketPeer.join(core.ws_port, fleet[2])
    await other.acked(1, {"type": "t"})
    await other.close()
