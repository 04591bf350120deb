"""A device that speaks MQTT through paho, and the packets of one that says what no library would."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, MQTTMessageInfo, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.faults.conditions import until
from tests.faults.database import Database
from tests.faults.wire import Credentials

EVENTS = "hse/v1/events"
COMMANDS = "hse/v1/commands/+"
VERSIONS = {"3.1.1": MQTTv311, "5": MQTTv5}


async def stored(database: Database, device: Credentials, count: int) -> list[tuple[object, ...]]:
    """Wait until so many events of a device are stored; return type, value, unit and source of each, by time."""
    select = "select event_type, value, unit, source from device_events where device_id = %s order by time, value"
    return await database.rows(select, [device.device_id], count, f"{count} events are stored")


def event(value: float, **fields: object) -> dict[str, object]:
    """Return an event in the JSON form."""
    return {"type": "temperature", "value": value, **fields}


class MqttPeer:
    """One client of paho: what it is told is kept in lists, in order. It does not connect again by itself."""

    def __init__(self, port: int, version: str = "5", **options: Any) -> None:
        self.port = port
        self.client = Client(
            CallbackAPIVersion.VERSION2, protocol=VERSIONS[version], reconnect_on_failure=False, **options
        )
        self.connacks: list[ReasonCode] = []
        self.connack_properties: Properties | None = None
        self.pubacks: dict[int, ReasonCode] = {}
        self.subacks: list[list[ReasonCode]] = []
        self.messages: list[tuple[str, Any]] = []
        self.ends: list[ReasonCode] = []
        self.client.on_connect = self._on_connect
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.client.on_disconnect = self._on_disconnect

    def _on_connect(
        self, _client: Client, _data: object, _flags: object, code: ReasonCode, told: Properties | None
    ) -> None:
        self.connack_properties = told
        self.connacks.append(code)

    def _on_publish(self, _client: Client, _data: object, mid: int, code: ReasonCode, _told: Properties) -> None:
        self.pubacks[mid] = code

    def _on_subscribe(self, _client: Client, _data: object, _mid: int, codes: list[ReasonCode], _told: object) -> None:
        self.subacks.append(codes)

    def _on_message(self, _client: Client, _data: object, message: Any) -> None:
        self.messages.append((message.topic, json.loads(message.payload)))

    def _on_disconnect(self, _client: Client, _data: object, _flags: object, code: ReasonCode, _told: object) -> None:
        self.ends.append(code)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave()

    async def connect(
        self,
        username: str | None,
        password: str | None = None,
        keepalive: int = 60,
        packet_bytes_max: int | None = None,
    ) -> ReasonCode:
        """Connect, in version 5 also as one that takes no larger packets, and return what CONNACK says."""
        self.client.username_pw_set(username, password)
        limits = None
        if packet_bytes_max is not None:
            limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            limits.MaximumPacketSize = packet_bytes_max
        await asyncio.to_thread(self.client.connect, "127.0.0.1", self.port, keepalive, properties=limits)
        self.client.loop_start()
        await until(lambda: self.connacks, "CONNACK comes")
        return self.connacks[-1]

    async def joined(self, device: Credentials, packet_bytes_max: int | None = None) -> Self:
        """Connect as a device, and be let in."""
        code = await self.connect(str(device.device_id), device.token, packet_bytes_max=packet_bytes_max)
        assert code == 0, code
        return self

    async def leave(self) -> None:
        """Say DISCONNECT, where there is still somebody to say it to, and see it off: a loop that stops may keep it."""
        if self.client.is_connected():
            self.client.disconnect()
            await until(lambda: self.ends, "the connection ends")
        await asyncio.to_thread(self.client.loop_stop)

    def publish(self, payload: object, topic: str = EVENTS, qos: int = 1) -> MQTTMessageInfo:
        """Publish an object as JSON, or bytes as they are."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.client.publish(topic, data, qos)

    async def puback(self, sent: MQTTMessageInfo) -> ReasonCode:
        """Wait for the PUBACK of what was published."""
        await until(lambda: sent.mid in self.pubacks, "PUBACK comes")
        return self.pubacks[sent.mid]

    async def subscribed(self, topic: str = COMMANDS, qos: int = 1) -> ReasonCode:
        """Subscribe and return the answer."""
        before = len(self.subacks)
        self.client.subscribe(topic, qos)
        await until(lambda: len(self.subacks) > before, "SUBACK comes")
        return self.subacks[-1][0]


def text(value: str) -> bytes:
    """Return a string as a packet holds it."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


def packet(first: int, *parts: bytes) -> bytes:
    """Return a packet of this type and these flags."""
    body, length = b"".join(parts), bytearray()
    left = len(body)
    while True:
        left, low = left >> 7, left & 0x7F
        length.append(low | 0x80 if left else low)
        if not left:
            return bytes([first]) + bytes(length) + body


def connect_packet(
    device: Credentials, *, level: int = 4, keepalive: int = 60, packet_bytes_max: int | None = None
) -> bytes:
    """Return the CONNECT of a device, in version 5 also of one that takes no larger packets."""
    properties = b"\0" if level == 5 else b""
    if packet_bytes_max is not None:
        properties = b"\x05\x27" + packet_bytes_max.to_bytes(4, "big")
    head = text("MQTT") + bytes([level, 0xC2]) + keepalive.to_bytes(2, "big") + properties
    return packet(0x10, head, text("c"), text(str(device.device_id)), text(device.token))


def publish_packet(packet_id: int, payload: bytes, *, level: int = 4) -> bytes:
    """Return a PUBLISH of QoS 1 to the topic of events."""
    return packet(0x32, text(EVENTS), packet_id.to_bytes(2, "big"), b"\0" if level == 5 else b"", payload)


class RawClient:
    """A socket, and the bytes that come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def write_eof(self) -> None:
        """End this side of the socket without a word."""
        self._writer.write_eof()

    async def receive(self) -> bytes:
        """Return the next packet, which is short."""
        async with asyncio.timeout(10):
            return await self.next_packet()

    async def next_packet(self) -> bytes:
        """Return the next packet, which is short, however long it takes."""
        head = await self._reader.readexactly(2)
        assert head[1] < 0x80
        return head + await self._reader.readexactly(head[1])

    async def joined(self, device: Credentials, *, level: int = 4) -> None:
        """Connect as a device, and be let in."""
        await self.send(connect_packet(device, level=level))
        told = await self.receive()
        assert told[0] == 0x20, told
        assert told[2:4] == b"\0\0", told

    async def rest(self) -> bytes:
        """Return what comes until the other side closes."""
        async with asyncio.timeout(10):
            return await self._reader.read()


@contextlib.asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    """Open a socket, and drop it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
