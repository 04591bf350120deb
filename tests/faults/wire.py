"""HDP/1 as PROTOCOL.md says it: frames and JSON lines, and one end of a connection that speaks either.

Both forms carry the same messages, so a message is a name and its fields, and a test is written once for both.
Deliberately independent of the product's codecs.
"""

import asyncio
import json
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self
from uuid import UUID

import msgpack

Form = Literal["frames", "json"]

MESSAGES: dict[str, tuple[int, tuple[str, ...]]] = {
    "hello": (0x01, ("version", "device_id", "token", "epoch", "agent")),
    "events": (0x02, ("first_seq", "events")),
    "result": (0x03, ("request_id", "status", "message", "data")),
    "ping": (0x04, ("nonce",)),
    "bye": (0x05, ()),
    "welcome": (
        0x81,
        ("version", "last_seq", "max_inflight_frames", "frame_bytes_max", "server_time_us", "keepalive_s"),
    ),
    "ack": (0x82, ("seq", "rejected")),
    "busy": (0x83, ("seq", "retry_after_ms", "reason")),
    "command": (0x84, ("request_id", "command_type", "params", "deadline_us")),
    "pong": (0x85, ("nonce",)),
    "error": (0x86, ("code", "message")),
}
NAMES = {kind: name for name, (kind, _) in MESSAGES.items()}
EVENT_FIELDS = ("time_us", "type", "value", "unit", "metadata", "device_id")
HEADER = struct.Struct(">IB")
LINE_BYTES_MAX = 1 << 22

Event = Mapping[str, object]


class ConnectionEnded(Exception):
    """The core closed the connection without another frame."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a device needs to connect."""

    device_id: UUID
    token: str

    def hello(self, epoch: int = 1) -> dict[str, object]:
        """Return the fields of this device's HELLO."""
        return {"version": 1, "device_id": self.device_id, "token": self.token, "epoch": epoch}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of either side."""

    name: str
    fields: dict[str, object] = field(default_factory=dict)

    def __getitem__(self, key: str) -> object:
        return self.fields.get(key)

    def number(self, key: str) -> int:
        """Return a field that the protocol says is a whole number."""
        value = self.fields[key]
        assert isinstance(value, int), (self, key)
        return value

    def rejected(self) -> list[tuple[int, str]]:
        """Return what an ACK names as rejected."""
        pairs = self.fields.get("rejected") or []
        assert isinstance(pairs, list)
        return [(int(seq), str(code)) for seq, code in pairs]


def frame(kind: int, body: bytes) -> bytes:
    """Return one frame around a body, whatever the body is."""
    return HEADER.pack(1 + len(body), kind) + body


def positional(values: Sequence[object]) -> list[object]:
    """Leave out trailing elements that are nil, as the protocol allows."""
    kept = list(values)
    while kept and kept[-1] is None:
        kept.pop()
    return kept


def event_array(event: Event) -> list[object]:
    """Return an event in its positional form."""
    assert not event.keys() - set(EVENT_FIELDS), event
    values = [event.get(name) for name in EVENT_FIELDS]
    child = values[-1]
    values[-1] = child.bytes if isinstance(child, UUID) else child
    return positional(values)


def encode_frame(name: str, fields: Mapping[str, object]) -> bytes:
    """Return the frame of a message."""
    kind, names = MESSAGES[name]
    values = dict(fields)
    if isinstance(device := values.get("device_id"), UUID):
        values["device_id"] = device.bytes
    if isinstance(events := values.get("events"), list):
        values["events"] = [event_array(event) for event in events]
    return frame(kind, msgpack.packb(positional([values.get(key) for key in names])))


def encode_line(name: str, fields: Mapping[str, object]) -> bytes:
    """Return the JSON line of a message."""
    return json.dumps({name: dict(fields)}, default=str).encode() + b"\n"


def decode_frame(kind: int, body: bytes) -> Message:
    """Read a frame of the core; what the protocol forbids the core to send fails here."""
    name = NAMES[kind]
    values = msgpack.unpackb(body, strict_map_key=False)
    names = MESSAGES[name][1]
    assert isinstance(values, list), (name, values)
    assert len(values) <= len(names), (name, values)
    return Message(name, dict(zip(names, values, strict=False)))


def decode_line(line: bytes) -> Message:
    """Read a JSON line of the core."""
    outer = json.loads(line)
    assert len(outer) == 1, outer
    ((name, fields),) = outer.items()
    assert set(fields) <= set(MESSAGES[name][1]), outer
    return Message(name, fields)


class Peer:
    """The device's end of one connection."""

    still_open: ClassVar[set["Peer"]] = set()  # for the fixture that leaves none behind a test

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, form: Form) -> None:
        self.reader = reader
        self.writer = writer
        self.form = form
        self.last_seq = 0  # as WELCOME said
        self.still_open.add(self)

    @classmethod
    async def join(
        cls,
        port: int,
        device: Credentials,
        *,
        epoch: int = 1,
        form: Form = "frames",
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect and be welcomed."""
        peer = await cls.dial(port, form, tls)
        answer = await peer.ask("hello", **device.hello(epoch))
        assert answer.name == "welcome", answer
        peer.last_seq = answer.number("last_seq")
        return peer

    @classmethod
    async def dial(cls, port: int, form: Form = "frames", tls: ssl.SSLContext | None = None) -> Self:
        """Connect to the core on this machine."""
        name = "localhost" if tls is not None else None
        connecting = asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name, limit=LINE_BYTES_MAX)
        return cls(*await asyncio.wait_for(connecting, 10), form)

    def encode(self, name: str, **fields: object) -> bytes:
        """Return a message in this connection's form."""
        return encode_frame(name, fields) if self.form == "frames" else encode_line(name, fields)

    async def send(self, name: str, **fields: object) -> None:
        """Send one message."""
        await self.send_bytes(self.encode(name, **fields))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def send_in_pieces(self, data: bytes) -> None:
        """Send bytes one by one."""
        for place in range(len(data)):
            await self.send_bytes(data[place : place + 1])

    async def pour(self, chunk: bytes, num_bytes_max: int) -> int:
        """Write without ever reading, until the core takes no more for a second; return how much went out."""
        poured = 0
        while poured < num_bytes_max:
            self.writer.write(chunk)
            try:
                await asyncio.wait_for(self.writer.drain(), 1.0)
            except (TimeoutError, ConnectionError):
                break
            poured += len(chunk)
        return poured

    async def receive(self, *, seconds: float = 10.0) -> Message:
        """Return the core's next message; raise `ConnectionEnded` when there is none any more."""
        try:
            async with asyncio.timeout(seconds):
                return await self._next()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError) as error:
            raise ConnectionEnded from error

    async def _next(self) -> Message:
        if self.form == "json":
            return decode_line(await self.reader.readuntil(b"\n"))
        length, kind = HEADER.unpack(await self.reader.readexactly(HEADER.size))
        return decode_frame(kind, await self.reader.readexactly(length - 1))

    async def ask(self, name: str, **fields: object) -> Message:
        """Send one message and return the next answer."""
        await self.send(name, **fields)
        return await self.receive()

    async def send_events(self, first_seq: int, *events: Event) -> None:
        """Send one EVENTS frame."""
        await self.send("events", first_seq=first_seq, events=list(events))

    async def acked(self, first_seq: int, *events: Event) -> Message:
        """Send one EVENTS frame and return its ACK, which must be for its last event."""
        await self.send_events(first_seq, *events)
        answer = await self.receive()
        assert (answer.name, answer["seq"]) == ("ack", first_seq + len(events) - 1), answer
        return answer

    async def refused(self) -> str:
        """Return the code of the ERROR that comes next, after which the connection must end."""
        answer = await self.receive()
        assert answer.name == "error", answer
        assert isinstance(answer["message"], str), answer
        await self.ended()
        await self.close()
        return str(answer["code"])

    async def everything(self, *, seconds: float = 20.0) -> list[Message]:
        """Return all messages until the connection ends."""
        heard = []
        try:
            while True:
                heard.append(await self.receive(seconds=seconds))
        except ConnectionEnded:
            return heard

    async def ended(self, *, seconds: float = 10.0) -> None:
        """Wait for the core's close; a further message is an error, since ERROR is always the last frame."""
        try:
            message = await self.receive(seconds=seconds)
        except ConnectionEnded:
            return
        raise AssertionError(f"the connection goes on with {message}")

    async def close(self) -> None:
        """Close this end."""
        self.still_open.discard(self)
        self.writer.close()
        try:
            await asyncio.wait_for(self.writer.wait_closed(), 5)
        except (OSError, TimeoutError):
            self.writer.transport.abort()

    def abort(self) -> None:
        """Drop the connection without a goodbye."""
        self.still_open.discard(self)
        self.writer.transport.abort()
