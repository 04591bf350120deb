"""A device's side of HDP/1, the protocol of PROTOCOL.md: pure functions between values and frames, and a connection.

The core's side is Rust (`ingest-core/src/frame`); both read the golden vectors in `tests/vectors`. What is absent: keeping
events until they are acknowledged and sending them again, which is the business of who holds the connection.
"""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Self
from uuid import UUID

import msgspec

PROTOCOL_VERSION = 1
# What the core's frames are held to; its WELCOME says what it holds a device's to.
FRAME_BYTES_MAX = 1 << 20
READ_BYTES = 1 << 16

_HEADER = struct.Struct(">IB")
_LENGTH_BYTES = 4
_Uint = Annotated[int, msgspec.Meta(ge=0)]
_ENCODER = msgspec.msgpack.Encoder(uuid_format="bytes")


class FrameInvalid(ValueError):
    """The bytes are not a frame that a core of this protocol sends."""


class ConnectionClosed(ConnectionError):
    """The core closed the connection where something was still to come."""


class HelloRefused(Exception):
    """The core answered HELLO with an ERROR."""

    def __init__(self, error: "Error") -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error


class Kind(IntEnum):
    """The kind byte of a frame; the high bit is set in those that the core sends."""

    HELLO = 0x01
    EVENTS = 0x02
    RESULT = 0x03
    PING = 0x04
    BYE = 0x05
    WELCOME = 0x81
    ACK = 0x82
    BUSY = 0x83
    COMMAND = 0x84
    PONG = 0x85
    ERROR = 0x86


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that a device reports; `time_us` in microseconds since 1970-01-01 UTC, `device_id` of a gateway's child."""

    time_us: int | None = None
    event_type: str
    value: float | bool | None = None
    unit: str | None = None
    metadata: Mapping[str, object] | None = None
    device_id: UUID | None = None

    def positional(self) -> list[object]:
        """Return the event as the array that stands in a frame."""
        return _trimmed([self.time_us, self.event_type, self.value, self.unit, self.metadata, self.device_id], 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The device is authenticated; `last_seq` of its epoch is durable."""

    version: int
    last_seq: int
    max_inflight_frames: int
    frame_bytes_max: int
    server_time_us: int
    keepalive_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Everything up to `seq` is durable; `rejected` of it are dead letters, each with its code."""

    seq: int
    rejected: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """Events after `seq` were not taken; the same ones may come again after `retry_after_ms`."""

    seq: int
    retry_after_ms: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something to do, to be answered with a result of the same `request_id` before `deadline_us`."""

    request_id: str
    command_type: str
    params: Mapping[str, object]
    deadline_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """The answer to a ping."""

    nonce: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Why the core closes the connection after this."""

    code: str
    message: str


Received = Welcome | Ack | Busy | Command | Pong | Error
# Who makes many events may hold them as the positional arrays that they become.
EventLike = Event | Sequence[object]


def encode_frame(kind: int, body: bytes) -> bytes:
    """Put the header before a body; whether the two make sense together is not looked at."""
    return _HEADER.pack(1 + len(body), kind) + body


def encode_hello(*, device_id: UUID, token: str, epoch: int, agent: str | None = None) -> bytes:
    """Return a HELLO frame."""
    return _encode(Kind.HELLO, _trimmed([PROTOCOL_VERSION, device_id, token, epoch, agent], 4))


def encode_events(first_seq: int, events: Sequence[EventLike]) -> bytes:
    """Return an EVENTS frame; the i-th event, from 0, has the sequence number `first_seq + i`."""
    return _encode(
        Kind.EVENTS, [first_seq, [event.positional() if isinstance(event, Event) else event for event in events]]
    )


def encode_result(
    *, request_id: str, status: int, message: str | None = None, data: Mapping[str, object] | None = None
) -> bytes:
    """Return a RESULT frame; status 0 says that the command was done."""
    return _encode(Kind.RESULT, _trimmed([request_id, status, message, data], 2))


def encode_ping(nonce: int) -> bytes:
    """Return a PING frame."""
    return _encode(Kind.PING, [nonce])


def encode_bye() -> bytes:
    """Return a BYE frame."""
    return _encode(Kind.BYE, [])


def split_frame(buffer: bytes | bytearray, frame_bytes_max: int = FRAME_BYTES_MAX) -> tuple[int, bytes, int] | None:
    """Cut the first frame off a buffer: its kind, its body and the bytes it took; None when it is not there as a whole.

    Raises FrameInvalid for a length of 0 or above `frame_bytes_max`, as soon as the length is there.
    """
    if len(buffer) < _LENGTH_BYTES:
        return None
    length = int.from_bytes(buffer[:_LENGTH_BYTES], "big")
    if not 1 <= length <= frame_bytes_max:
        raise FrameInvalid(f"a frame of length {length}, 1 to {frame_bytes_max} are taken")
    end = _LENGTH_BYTES + length
    if len(buffer) < end:
        return None
    return buffer[_LENGTH_BYTES], bytes(buffer[_LENGTH_BYTES + 1 : end]), end


def decode_frame(kind: int, body: bytes) -> Received:
    """Return what the core said. Raises FrameInvalid for what no core of this protocol says."""
    try:
        return _decode(kind, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameInvalid(f"a frame of kind 0x{kind:02x}: {error}") from error


def _decode(kind: int, body: bytes) -> Received:
    match kind:
        case Kind.WELCOME:
            version, last_seq, inflight, frame_bytes, time_us, keepalive_s = msgspec.convert(
                _elements(body, 6), tuple[_Uint, _Uint, _Uint, _Uint, int, _Uint]
            )
            return Welcome(
                version=version,
                last_seq=last_seq,
                max_inflight_frames=inflight,
                frame_bytes_max=frame_bytes,
                server_time_us=time_us,
                keepalive_s=keepalive_s,
            )
        case Kind.ACK:
            seq, rejected = msgspec.convert(_elements(body, 2), tuple[_Uint, tuple[tuple[_Uint, str], ...] | None])
            return Ack(seq=seq, rejected=rejected or ())
        case Kind.BUSY:
            seq, retry_after_ms, reason = msgspec.convert(_elements(body, 3), tuple[_Uint, _Uint, str])
            return Busy(seq=seq, retry_after_ms=retry_after_ms, reason=reason)
        case Kind.COMMAND:
            request_id, command_type, params, deadline_us = msgspec.convert(
                _elements(body, 4), tuple[str, str, dict[str, object], int]
            )
            return Command(request_id=request_id, command_type=command_type, params=params, deadline_us=deadline_us)
        case Kind.PONG:
            (nonce,) = msgspec.convert(_elements(body, 1), tuple[_Uint])
            return Pong(nonce=nonce)
        case Kind.ERROR:
            code, message = msgspec.convert(_elements(body, 2), tuple[str, str])
            return Error(code=code, message=message)
        case _:
            raise FrameInvalid(f"a core sends no frame of kind 0x{kind:02x}")


def _elements(body: bytes, num_elements: int) -> list[object]:
    """Return the elements that are known: those left out are None, those beyond are dropped."""
    elements: list[object] = msgspec.msgpack.decode(body, type=list)
    return (elements + [None] * num_elements)[:num_elements]


def _encode(kind: Kind, elements: list[object]) -> bytes:
    return encode_frame(kind, _ENCODER.encode(elements))


def _trimmed(elements: list[object], num_required: int) -> list[object]:
    """Leave out trailing elements that are None."""
    while len(elements) > num_required and elements[-1] is None:
        elements.pop()
    return elements


class DeviceConnection:
    """A connection after its WELCOME. One task may send while another receives; two must not receive at once."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, welcome: Welcome, buffer: bytearray
    ) -> None:
        self.welcome = welcome
        self._reader = reader
        self._writer = writer
        self._buffer = buffer

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        *,
        device_id: UUID,
        token: str,
        epoch: int,
        agent: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect and say HELLO; return after WELCOME. Waits as long as the core does: deadlines are the caller's.

        Raises HelloRefused with the core's ERROR, ConnectionClosed, FrameInvalid, and OSError of the socket.
        """
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        buffer = bytearray()
        try:
            writer.write(encode_hello(device_id=device_id, token=token, epoch=epoch, agent=agent))
            await writer.drain()
            answer = await _receive(reader, buffer)
            match answer:
                case Welcome():
                    return cls(reader, writer, answer, buffer)
                case Error():
                    raise HelloRefused(answer)
                case None:
                    raise ConnectionClosed("the core closed the connection instead of answering HELLO")
                case _:
                    raise FrameInvalid(f"{type(answer).__name__} instead of WELCOME")
        except BaseException:
            # Also when the caller's deadline cancels this: nobody else holds the socket.
            writer.transport.abort()
            raise

    async def send_events(self, first_seq: int, events: Sequence[EventLike]) -> None:
        """Send one EVENTS frame and wait until the socket has room again; the ACK is received, not waited for."""
        await self._send(encode_events(first_seq, events))

    async def send_result(
        self, *, request_id: str, status: int, message: str | None = None, data: Mapping[str, object] | None = None
    ) -> None:
        """Answer a command."""
        await self._send(encode_result(request_id=request_id, status=status, message=message, data=data))

    async def ping(self, nonce: int) -> None:
        """Send a PING; it also keeps an idle connection open."""
        await self._send(encode_ping(nonce))

    async def receive(self) -> Received | None:
        """Return the next thing that the core says, None when it has closed the connection. May be cancelled at no loss.

        Raises FrameInvalid, ConnectionClosed in the middle of a frame, and OSError of the socket.
        """
        return await _receive(self._reader, self._buffer)

    async def __aiter__(self) -> AsyncIterator[Received]:
        """Yield what the core says until it closes the connection."""
        while (received := await self.receive()) is not None:
            yield received

    async def close(self) -> None:
        """Say BYE and close; a connection that is gone already is closed too."""
        with contextlib.suppress(OSError):
            await self._send(encode_bye())
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _send(self, frame: bytes) -> None:
        self._writer.write(frame)
        await self._writer.drain()


async def _receive(reader: asyncio.StreamReader, buffer: bytearray) -> Received | None:
    """Bytes are kept in `buffer` until they are a frame, so that a cancelled read loses none."""
    while (frame := split_frame(buffer)) is None:
        chunk = await reader.read(READ_BYTES)
        if not chunk:
            if buffer:
                raise ConnectionClosed("the core closed the connection in the middle of a frame")
            return None
        buffer += chunk
    kind, body, frame_bytes = frame
    del buffer[:frame_bytes]
    return decode_frame(kind, body)
