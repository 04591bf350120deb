"""The device's side of HDP/1 against the golden vectors that the core reads too, and against a core that is a script."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.simulation import hdp

VECTORS = Path(__file__).parents[1] / "vectors"
DEVICE = UUID("8c1f2a34-5b6c-4d7e-8f90-a1b2c3d4e5f6")
WELCOME = {
    "version": 1,
    "last_seq": 41,
    "max_inflight_frames": 64,
    "frame_bytes_max": 1 << 20,
    "server_time_us": 1767225600000000,
    "keepalive_s": 60,
}
SECONDS_MAX = 10.0

RECEIVED: dict[str, type[hdp.Received]] = {
    "welcome": hdp.Welcome,
    "ack": hdp.Ack,
    "busy": hdp.Busy,
    "command": hdp.Command,
    "pong": hdp.Pong,
    "error": hdp.Error,
}


class FrameVector(msgspec.Struct):
    """A frame and its value in the JSON form; `is_as_encoded` says that an encoder gives the very bytes."""

    name: str
    kind: str
    hex: str
    is_as_encoded: bool
    value: dict[str, object]


class MalformedVector(msgspec.Struct):
    """A frame that the other side refuses."""

    name: str
    sender: str
    hex: str
    error: str


class Hello(msgspec.Struct):
    """The value of a HELLO."""

    version: int
    device_id: UUID
    token: str
    epoch: int
    agent: str | None = None


class LineVector(msgspec.Struct):
    """A line of the JSON form with its frame or its error."""

    name: str
    line: str
    hex: str | None = None
    error: str | None = None


FRAMES = msgspec.json.decode((VECTORS / "frames.json").read_bytes(), type=list[FrameVector])
MALFORMED = msgspec.json.decode((VECTORS / "malformed.json").read_bytes(), type=list[MalformedVector])
LINES = msgspec.json.decode((VECTORS / "json_lines.json").read_bytes(), type=list[LineVector])


def event_from_json(value: dict[str, object]) -> hdp.Event:
    """Return the event that the JSON form names."""
    return msgspec.convert({"event_type" if key == "type" else key: field for key, field in value.items()}, hdp.Event)


def encoded(kind: str, value: dict[str, object]) -> bytes:
    """Return the frame that the device sends for a value in the JSON form."""
    match kind:
        case "hello":
            fields = msgspec.convert(value, Hello)
            return hdp.encode_hello(
                device_id=fields.device_id, token=fields.token, epoch=fields.epoch, agent=fields.agent
            )
        case "events":
            events = msgspec.convert(value["events"], list[dict[str, object]])
            return hdp.encode_events(
                msgspec.convert(value["first_seq"], int), [event_from_json(event) for event in events]
            )
        case "result":
            return hdp.encode_result(**value)  # type: ignore[arg-type]
        case "ping":
            return hdp.encode_ping(msgspec.convert(value["nonce"], int))
        case "bye":
            return hdp.encode_bye()
        case _:
            pytest.fail(f"a device sends no {kind}")


def decoded(frame: bytes) -> hdp.Received:
    """Decode one whole frame."""
    cut = hdp.split_frame(frame)
    assert cut is not None
    kind, body, frame_bytes = cut
    assert frame_bytes == len(frame)
    return hdp.decode_frame(kind, body)


@pytest.mark.parametrize(
    "vector", [frame for frame in FRAMES if frame.kind not in RECEIVED], ids=lambda frame: frame.name
)
def test_what_the_device_sends_is_as_in_the_vectors(vector: FrameVector) -> None:
    assert (encoded(vector.kind, vector.value).hex() == vector.hex) == vector.is_as_encoded


@pytest.mark.parametrize("vector", [frame for frame in FRAMES if frame.kind in RECEIVED], ids=lambda frame: frame.name)
def test_what_the_device_hears_is_as_in_the_vectors(vector: FrameVector) -> None:
    assert decoded(bytes.fromhex(vector.hex)) == msgspec.convert(vector.value, RECEIVED[vector.kind])


@pytest.mark.parametrize(
    "vector",
    [frame for frame in MALFORMED if frame.sender == "core" or frame.error == "too_large"],
    ids=lambda frame: frame.name,
)
def test_what_no_core_says_is_refused(vector: MalformedVector) -> None:
    with pytest.raises(hdp.FrameInvalid):
        decoded(bytes.fromhex(vector.hex))


@pytest.mark.parametrize("vector", [line for line in LINES if line.hex is not None], ids=lambda line: line.name)
def test_a_line_holds_what_its_frame_holds(vector: LineVector) -> None:
    ((kind, value),) = json.loads(vector.line).items()
    cut = hdp.split_frame(bytes.fromhex(vector.hex or ""))
    assert cut is not None
    assert cut[0] == hdp.Kind[kind.upper()]
    theirs = msgspec.msgpack.decode(cut[1])
    known = {field: value[field] for field in ("first_seq", "events") if field in value} if kind == "events" else value
    for event in known.get("events", []):
        event.pop("note", None)
    ours = msgspec.msgpack.decode(encoded(kind, known)[5:])
    assert ours == theirs


def test_elements_that_are_left_out_are_none_and_those_beyond_are_dropped() -> None:
    body = msgspec.msgpack.encode([7, None, {"new": b"x"}])
    assert hdp.decode_frame(hdp.Kind.ACK, body) == hdp.Ack(seq=7)
    assert hdp.decode_frame(hdp.Kind.ACK, msgspec.msgpack.encode([7])) == hdp.Ack(seq=7)


def test_positional_events_are_sent_as_they_are() -> None:
    event = hdp.Event(time_us=5, event_type="t", value=1.5, unit="C")
    assert hdp.encode_events(1, [[5, "t", 1.5, "C"]]) == hdp.encode_events(1, [event])


@given(nonce=st.integers(0, 2**64 - 1))
def test_every_nonce_comes_back(nonce: int) -> None:
    ping = hdp.encode_ping(nonce)
    assert decoded(hdp.encode_frame(hdp.Kind.PONG, ping[5:])) == hdp.Pong(nonce=nonce)


@given(kind=st.sampled_from(list(hdp.Kind)) | st.integers(0, 255), body=st.binary(max_size=60))
def test_arbitrary_bytes_are_refused_or_understood(kind: int, body: bytes) -> None:
    frame = hdp.encode_frame(kind, body)
    assert all(hdp.split_frame(frame[:length]) is None for length in range(len(frame)))
    try:
        heard = decoded(frame)
    except hdp.FrameInvalid:
        return
    assert isinstance(heard, hdp.Received)


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 1_000_000 + b"\xc0",
        b"\x92\x01\x81\x80\x01",
        b"\x91\xd6\xff\xff\xff\xff\xff",
        b"\x91\xa1\xff",
    ],
    ids=["deep nesting", "a map for a key", "a timestamp", "text that is not UTF-8"],
)
def test_hostile_bytes_are_refused(body: bytes) -> None:
    for kind in hdp.Kind:
        with pytest.raises(hdp.FrameInvalid):
            hdp.decode_frame(kind, body)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted_core(script: Script) -> AsyncIterator[int]:
    """Listen, run the script for the one connection that comes, and fail with what it fails with."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)
        finally:
            writer.close()

    async with asyncio.timeout(SECONDS_MAX), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await done


def said(kind: hdp.Kind, *elements: object) -> bytes:
    """Return a frame of the core."""
    return hdp.encode_frame(kind, msgspec.msgpack.encode(elements))


async def welcomed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the HELLO of the device and answer it."""
    hello = hdp.encode_hello(device_id=DEVICE, token="secret", epoch=7)
    assert await reader.readexactly(len(hello)) == hello
    writer.write(said(hdp.Kind.WELCOME, *WELCOME.values()))


def connection(port: int) -> Awaitable[hdp.DeviceConnection]:
    """Open a connection to the scripted core."""
    return hdp.DeviceConnection.open("127.0.0.1", port, device_id=DEVICE, token="secret", epoch=7)


async def test_a_connection_says_hello_sends_events_hears_and_says_bye() -> None:
    event = hdp.Event(event_type="t", value=1.5)
    expected = [
        hdp.encode_events(42, [event]),
        hdp.encode_ping(3),
        hdp.encode_result(request_id="r", status=0),
        hdp.encode_bye(),
    ]
    spoken = [
        said(hdp.Kind.ACK, 42, [[42, "bad_type"]]),
        said(hdp.Kind.BUSY, 42, 250, "journal full"),
        said(hdp.Kind.COMMAND, "r", "dim", {"level": 3}, 5),
        said(hdp.Kind.PONG, 3),
        said(hdp.Kind.ERROR, "shutting_down", "soon back"),
    ]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcomed(reader, writer)
        for frame in expected[:-1]:
            assert await reader.readexactly(len(frame)) == frame
        for byte in b"".join(spoken):
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write_eof()
        assert await reader.read() == expected[-1]

    async with scripted_core(script) as port:
        device = await connection(port)
        assert device.welcome == hdp.Welcome(**WELCOME)
        await device.send_events(42, [event])
        await device.ping(3)
        await device.send_result(request_id="r", status=0)
        assert [heard async for heard in device] == [
            hdp.Ack(seq=42, rejected=((42, "bad_type"),)),
            hdp.Busy(seq=42, retry_after_ms=250, reason="journal full"),
            hdp.Command(request_id="r", command_type="dim", params={"level": 3}, deadline_us=5),
            hdp.Pong(nonce=3),
            hdp.Error(code="shutting_down", message="soon back"),
        ]
        await device.close()


async def test_a_hello_that_is_refused_tells_the_code() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said(hdp.Kind.ERROR, "auth_failed", "no"))

    async with scripted_core(script) as port:
        with pytest.raises(hdp.HelloRefused, match="auth_failed") as refused:
            await connection(port)
        assert refused.value.error == hdp.Error(code="auth_failed", message="no")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", hdp.ConnectionClosed),
        (b"\0\0\0\3\x85", hdp.ConnectionClosed),
        (said(hdp.Kind.PONG, 1), hdp.FrameInvalid),
        (b"\xff\xff\xff\xff", hdp.FrameInvalid),
    ],
)
async def test_anything_else_than_a_welcome_is_an_error(answer: bytes, error: type[Exception]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = hdp.encode_hello(device_id=DEVICE, token="secret", epoch=7)
        await reader.readexactly(len(hello))
        writer.write(answer)

    async with scripted_core(script) as port:
        with pytest.raises(error):
            await connection(port)


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    is_cancelled = asyncio.Event()
    ack = said(hdp.Kind.ACK, 1000)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcomed(reader, writer)
        writer.write(ack[:6])
        await is_cancelled.wait()
        writer.write(ack[6:])
        await reader.read()

    async with scripted_core(script) as port:
        device = await connection(port)
        receiving = asyncio.create_task(device.receive())
        while not device._buffer:  # noqa: ASYNC110 - nothing is told when half a frame came
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        assert receiving.cancelled()
        is_cancelled.set()
        assert await device.receive() == hdp.Ack(seq=1000)
        await device.close()
