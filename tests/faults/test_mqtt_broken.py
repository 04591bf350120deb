"""MQTT clients that break the specification: each is closed, and told why where its version has words. Each costs only itself."""

import asyncio

import pytest

from tests.faults.conftest import NewCore, knows
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mqtt import (
    EVENTS,
    MqttPeer,
    connect_packet,
    event,
    packet,
    publish_packet,
    raw_client,
    stored,
    text,
)
from tests.faults.wire import Credentials

MALFORMED, PROTOCOL_ERROR, BAD_TOPIC, BAD_ALIAS, TOO_LARGE, NO_QOS_2 = 0x81, 0x82, 0x90, 0x94, 0x95, 0x9B
NO_SUBSCRIPTION_IDENTIFIERS = 0xA1
both_levels = pytest.mark.parametrize("level", [4, 5])
PAYLOAD = b'{"type": "temperature", "value": 1}'


def publish(
    level: int, first: int, topic: bytes = text(EVENTS), packet_id: bytes = b"", properties: bytes = b""
) -> bytes:
    """Return a PUBLISH; the properties are those of level 5."""
    length = bytes([len(properties)]) if level == 5 else b""
    return packet(first, topic, packet_id, length, properties, PAYLOAD)


def asked(level: int, first: int, packet_id: bytes, *filters: bytes, properties: bytes = b"") -> bytes:
    """Return a SUBSCRIBE or an UNSUBSCRIBE."""
    length = bytes([len(properties)]) if level == 5 else b""
    return packet(first, packet_id, length, properties, *filters)


def broken(level: int) -> dict[str, tuple[bytes, int]]:
    """Return what a client of either version may not say once it is let in, with the reason that level 5 hears."""
    one, filtered = b"\0\1", text("hse/v1/commands/+")
    return {
        "QoS 3": (publish(level, 0x36, packet_id=one), MALFORMED),
        "QoS 2": (publish(level, 0x34, packet_id=one), NO_QOS_2),
        "DUP with QoS 0": (publish(level, 0x38), MALFORMED),
        "packet identifier 0": (publish(level, 0x32, packet_id=b"\0\0"), MALFORMED),
        "+ in a topic": (publish(level, 0x30, text("hse/+/events")), BAD_TOPIC),
        "# in a topic": (publish(level, 0x32, text("hse/#"), one), BAD_TOPIC),
        "an empty topic": (publish(level, 0x30, text("")), PROTOCOL_ERROR),
        "a topic that is no UTF-8": (publish(level, 0x30, b"\0\2\xc3\x28"), MALFORMED),
        "half a surrogate pair": (publish(level, 0x30, b"\0\3\xed\xa0\x80"), MALFORMED),
        "NUL in a topic": (publish(level, 0x30, text("a\0b")), MALFORMED),
        "a topic longer than its packet": (packet(0x30, b"\xff\xff", b"a"), MALFORMED),
        "half a packet identifier": (packet(0x32, text(EVENTS), b"\0"), MALFORMED),
        "larger than a packet may be": (b"\x30\xff\xff\xff\x7f", TOO_LARGE),
        "a length of five bytes": (b"\x30\xff\xff\xff\xff\x01", MALFORMED),
        "packet type 0": (packet(0x00), PROTOCOL_ERROR),
        "CONNACK": (packet(0x20, b"\0\0"), PROTOCOL_ERROR),
        "PUBREC": (packet(0x50, one), PROTOCOL_ERROR),
        "PUBREL": (packet(0x62, one), PROTOCOL_ERROR),
        "PUBCOMP": (packet(0x70, one), PROTOCOL_ERROR),
        "SUBACK": (packet(0x90, one, b"\0"), PROTOCOL_ERROR),
        "UNSUBACK": (packet(0xB0, one), PROTOCOL_ERROR),
        "PINGRESP": (packet(0xD0), PROTOCOL_ERROR),
        "packet type 15": (packet(0xF0), PROTOCOL_ERROR),
        "flags of a PINGREQ": (packet(0xC1), MALFORMED),
        "a PINGREQ with a body": (packet(0xC0, b"x"), MALFORMED),
        "flags of a PUBACK": (packet(0x42, one), MALFORMED),
        "a PUBACK of packet identifier 0": (packet(0x40, b"\0\0"), MALFORMED),
        "flags of a DISCONNECT": (packet(0xE1), MALFORMED),
        "flags of a SUBSCRIBE": (asked(level, 0x80, one, filtered, b"\1"), MALFORMED),
        "a SUBSCRIBE without filters": (asked(level, 0x82, one), PROTOCOL_ERROR),
        "a SUBSCRIBE of packet identifier 0": (asked(level, 0x82, b"\0\0", filtered, b"\1"), MALFORMED),
        "a SUBSCRIBE with QoS 3": (asked(level, 0x82, one, filtered, b"\3"), MALFORMED),
        "reserved bits of a SUBSCRIBE": (asked(level, 0x82, one, filtered, b"\xc1"), MALFORMED),
        "an empty filter": (asked(level, 0x82, one, text(""), b"\1"), MALFORMED),
        "a filter without options": (asked(level, 0x82, one, filtered), MALFORMED),
        "flags of an UNSUBSCRIBE": (asked(level, 0xA0, one, filtered), MALFORMED),
        "an UNSUBSCRIBE without filters": (asked(level, 0xA2, one), PROTOCOL_ERROR),
    }


def broken_properties() -> dict[str, tuple[bytes, int]]:
    """Return what only a client of level 5 can say wrong."""
    filtered = (text("hse/v1/commands/+"), b"\1")
    return {
        "alias 0": (publish(5, 0x30, properties=b"\x23\0\0"), BAD_ALIAS),
        "an alias that is too large": (publish(5, 0x30, properties=b"\x23\0\x09"), BAD_ALIAS),
        "an alias that stands for nothing": (publish(5, 0x30, text(""), properties=b"\x23\0\1"), BAD_ALIAS),
        "a property twice": (publish(5, 0x30, properties=b"\x01\0\x01\0"), PROTOCOL_ERROR),
        "a property of CONNACK": (publish(5, 0x30, properties=b"\x24\1"), MALFORMED),
        "an unknown property": (publish(5, 0x30, properties=b"\x7f\1"), MALFORMED),
        "a flag that is 2": (publish(5, 0x30, properties=b"\x01\x02"), PROTOCOL_ERROR),
        "a property that is cut": (publish(5, 0x30, properties=b"\x02\0\0"), MALFORMED),
        "properties longer than their packet": (packet(0x30, text(EVENTS), b"\x7f"), MALFORMED),
        "a subscription identifier of a client": (publish(5, 0x30, properties=b"\x0b\1"), MALFORMED),
        "a subscription identifier": (
            asked(5, 0x82, b"\0\1", *filtered, properties=b"\x0b\1"),
            NO_SUBSCRIPTION_IDENTIFIERS,
        ),
        "subscription identifier 0": (asked(5, 0x82, b"\0\1", *filtered, properties=b"\x0b\0"), PROTOCOL_ERROR),
        "retain handling 3": (asked(5, 0x82, b"\0\1", filtered[0], b"\x31"), PROTOCOL_ERROR),
        "AUTH": (packet(0xF0, b"\x18\0"), PROTOCOL_ERROR),
    }


def reason_of(told: bytes) -> int | None:
    """Return the reason code of a DISCONNECT, the only packet that was told; None where nothing was."""
    if not told:
        return None
    assert told[0] == 0xE0, told
    assert told[1] == len(told) - 2, told
    return told[2]


@both_levels
async def test_a_client_that_breaks_the_protocol_is_closed_and_others_are_not(
    shared_core: Core, database: Database, device: Credentials, fleet: list[Credentials], level: int
) -> None:
    other = fleet[0]
    await knows(shared_core, other)
    cases = broken(level) | {"a second CONNECT": (connect_packet(device, level=level), PROTOCOL_ERROR)}
    if level == 5:
        cases |= broken_properties()
    heard: dict[str, int | None] = {}
    async with MqttPeer(shared_core.mqtt_port) as bystander:
        await bystander.joined(other)
        for name, (said, _) in cases.items():
            async with raw_client(shared_core.mqtt_port) as client:
                await client.joined(device, level=level)
                await client.send(said)
                heard[name] = reason_of(await client.rest())
            # What comes before a mistake is taken.
            async with raw_client(shared_core.mqtt_port) as client:
                await client.joined(device, level=level)
                await client.send(publish_packet(7, PAYLOAD, level=level) + said)
                assert (await client.rest())[:4] == b"\x40\x02\0\x07", name
        assert await bystander.puback(bystander.publish(event(1))) == 0
        assert not bystander.ends
    assert heard == {name: reason if level == 5 else None for name, (_, reason) in cases.items()}
    assert len(await stored(database, device, len(cases))) == len(cases)
    assert len(await stored(database, other, 1)) == 1


async def test_a_client_that_takes_little_is_told_why_without_words(shared_core: Core, device: Credentials) -> None:
    async with raw_client(shared_core.mqtt_port) as client:
        await client.send(connect_packet(device, level=5, packet_bytes_max=40))
        assert (await client.receive())[:4] == b"\x20\x19\0\0"
        await client.send(publish_packet(1, b"{no JSON", level=5))
        assert await client.receive() == b"\x40\4\0\1\x99\0"
        await client.send(packet(0x34, text(EVENTS), b"\0\2\0", PAYLOAD))
        assert await client.rest() == bytes([0xE0, 2, NO_QOS_2, 0])


@both_levels
async def test_a_packet_identifier_that_is_under_way_is_not_used_for_something_else(
    shared_core: Core, database: Database, device: Credentials, level: int
) -> None:
    async with raw_client(shared_core.mqtt_port) as client:
        await client.joined(device, level=level)
        # In one segment, so that the second is read before the disk can answer for the first.
        await client.send(publish_packet(9, PAYLOAD, level=level) * 2)
        assert await client.receive() == b"\x40\x02\0\x09"
        assert reason_of(await client.rest()) == (PROTOCOL_ERROR if level == 5 else None)
    assert len(await stored(database, device, 1)) == 1


def greeting(
    name: str = "MQTT", level: int = 4, flags: int = 0xC2, properties: bytes = b"", fields: tuple[bytes, ...] = ()
) -> bytes:
    """Return a CONNECT; the properties are those of level 5."""
    length = bytes([len(properties)]) if level == 5 else b""
    given = fields or (text("c"), text("u"), text("p"))
    return packet(0x10, text(name), bytes([level, flags]), b"\0\x3c", length, properties, *given)


def refused_5(reason: int) -> bytes:
    """Return how a refusal of level 5 begins: no session, and why."""
    return bytes([0, reason])


# What is said first, and what is told of it behind the length of CONNACK; nothing where the version is not known to be one of ours.
STRANGERS: dict[str, tuple[bytes, bytes | None]] = {
    "a PUBLISH": (publish(4, 0x30), None),
    "a PINGREQ": (packet(0xC0), None),
    "packet type 0": (packet(0x00), None),
    "a length of five bytes": (b"\x10\xff\xff\xff\xff\x01", None),
    "a CONNECT that is too large": (b"\x10\xff\x7f", None),
    "flags of the fixed header": (b"\x11" + greeting()[1:], None),
    "the reserved flag": (greeting(flags=0xC3), None),
    "a password without a user name": (greeting(flags=0x42, fields=(text("c"), text("p"))), None),
    "a will of QoS 3": (greeting(flags=0x1E, fields=(text("c"), text("t"), text("m"))), None),
    "QoS of no will": (greeting(flags=0x0A, fields=(text("c"),)), None),
    "RETAIN of no will": (greeting(flags=0x22, fields=(text("c"),)), None),
    "a wildcard in a will's topic": (greeting(flags=0x06, fields=(text("c"), text("#"), text("m"))), None),
    "a user name that is no UTF-8": (greeting(flags=0x82, fields=(text("c"), b"\0\1\xff")), None),
    "fields that are missing": (greeting(fields=(text("c"),)), None),
    "bytes left over": (greeting(flags=0x02, fields=(text("c"), b"x")), None),
    "no password, but a token that is none": (greeting(flags=0x82, fields=(text("c"), text("u"))), b"\0\4"),
    "another protocol's name": (greeting("MQIsdp", 3), b"\0\1"),
    "another protocol": (greeting("HTTP"), b"\0\1"),
    "level 3": (greeting(level=3), b"\0\1"),
    "level 6": (greeting(level=6), refused_5(0x84)),
    "a session without a name": (greeting(flags=0xC0, fields=(text(""), text("u"), text("p"))), b"\0\2"),
    "Receive Maximum 0": (greeting(level=5, properties=b"\x21\0\0"), None),
    "Maximum Packet Size 0": (greeting(level=5, properties=b"\x27\0\0\0\0"), None),
    "a property of PUBLISH": (greeting(level=5, properties=b"\x23\0\1"), None),
    "another authentication": (greeting(level=5, properties=b"\x15" + text("SCRAM")), refused_5(0x8C)),
    "a will of QoS 2": (
        greeting(level=5, flags=0x16, fields=(text("c"), b"\0", text("t"), text("m"))),
        refused_5(NO_QOS_2),
    ),
    "a stranger of level 5": (greeting(level=5), refused_5(0x86)),
}


async def test_what_is_no_connect_of_ours_is_closed_and_told_so_where_there_are_words(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    heard: dict[str, bytes | None] = {}
    async with MqttPeer(shared_core.mqtt_port) as bystander:
        await bystander.joined(device)
        for name, (said, _) in STRANGERS.items():
            async with raw_client(shared_core.mqtt_port) as client:
                await client.send(said)
                told = await client.rest()
                assert told[:1] in {b"", b"\x20"}, (name, told)
                heard[name] = told[2:4] or None
        assert await bystander.puback(bystander.publish(event(1))) == 0
        assert not bystander.ends
    assert heard == {name: told for name, (_, told) in STRANGERS.items()}
    assert len(await stored(database, device, 1)) == 1


async def test_a_stranger_is_bounded_and_waited_for_no_longer_than_a_hello(
    new_core: NewCore, device: Credentials
) -> None:
    core = new_core(hello_timeout_s=1)
    await core.started()
    connect = connect_packet(device)
    async with raw_client(core.mqtt_port) as silent, raw_client(core.mqtt_port) as half:
        await half.send(connect[:-1])
        assert await silent.rest() == b""
        assert await half.rest() == b""


@both_levels
async def test_half_packets_take_nothing_and_leave_nothing_behind(
    shared_core: Core, database: Database, device: Credentials, level: int
) -> None:
    connect, whole = connect_packet(device, level=level), publish_packet(1, PAYLOAD, level=level)
    for num_bytes in range(len(connect)):
        async with raw_client(shared_core.mqtt_port) as client:
            await client.send(connect[:num_bytes])
            client.write_eof()
            assert await client.rest() == b"", num_bytes
    for num_bytes in range(len(whole)):
        async with raw_client(shared_core.mqtt_port) as client:
            await client.joined(device, level=level)
            await client.send(whole[:num_bytes])
            client.write_eof()
            assert await client.rest() == b"", num_bytes
    # The same bytes one by one are a whole conversation.
    async with raw_client(shared_core.mqtt_port) as client:
        for byte in connect:
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.receive())[2:4] == b"\0\0"
        for byte in whole:
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await client.receive() == b"\x40\x02\0\x01"
    assert len(await stored(database, device, 1)) == 1
