"""Devices that speak MQTT, with paho on their side: who gets in, what is made of what they say, and what they hear."""

import asyncio
import socket
import ssl
from typing import cast

import msgpack
import pytest

from tests.faults.conditions import until, until_in_thread
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mqtt import (
    EVENTS,
    VERSIONS,
    MqttPeer,
    RawClient,
    connect_packet,
    event,
    packet,
    raw_client,
    stored,
    text,
)
from tests.faults.wire import Credentials, Peer

both_versions = pytest.mark.parametrize("version", VERSIONS)


async def dead_letters(database: Database, device: Credentials, count: int) -> list[tuple[object, ...]]:
    """Wait until so many dead letters of a device are kept; return code, reason and event of each, in order."""
    select = "select code, reason, event from dead_letters where device_id = %s order by id"
    return await database.rows(select, [device.device_id], count, f"{count} dead letters are kept")


@both_versions
async def test_what_was_acknowledged_is_stored(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.joined(device)
        for payload in (
            event(1, unit="C", time_us=1_767_225_600_000_000),
            [event(2, time_us=1_767_225_600_000_001), event(3, time_us=1_767_225_600_000_002)],
            {"events": [event(4, time_us=1_767_225_600_000_003)]},
        ):
            assert await peer.puback(peer.publish(payload)) == 0
        peer.publish(event(5, time_us=1_767_225_600_000_004), qos=0)
        rows = await stored(database, device, 5)
    assert [row[1] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0] == ("temperature", 1.0, "C", "mqtt")


@both_versions
async def test_a_token_alone_says_who_it_is(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        assert await peer.connect(device.token) == 0
        assert await peer.puback(peer.publish(event(7))) == 0
        assert [row[1] for row in await stored(database, device, 1)] == [7]


@both_versions
@pytest.mark.parametrize("wrong", ["token", "device", "both", "nothing"])
async def test_who_is_not_known_is_not_let_in(shared_core: Core, device: Credentials, version: str, wrong: str) -> None:
    said = {
        "token": (str(device.device_id), "no"),
        "device": ("7f0f6ffe-45e2-4ce5-a3b5-a9a7a1a1a1a1", device.token),
        "both": ("no", None),
        "nothing": (None, None),
    }
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        code = await peer.connect(*said[wrong])
    assert code.getName() == "Bad user name or password"


async def test_version_5_is_told_what_is_served(shared_core: Core, device: Credentials) -> None:
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.joined(device)
        told = peer.connack_properties
    assert told is not None
    names = ("MaximumQoS", "ReceiveMaximum", "MaximumPacketSize", "TopicAliasMaximum", "SessionExpiryInterval")
    assert [getattr(told, name) for name in names] == [1, 64, 256 << 10, 8, 0]


async def test_mqtt_is_served_over_tls(shared_core: Core, database: Database, device: Credentials) -> None:
    async with MqttPeer(shared_core.mqtt_tls_port) as peer:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        peer.client.tls_set_context(context)
        await peer.joined(device)
        assert await peer.puback(peer.publish(event(1))) == 0
        assert len(await stored(database, device, 1)) == 1


@both_versions
async def test_a_newer_connection_takes_the_device_over(shared_core: Core, device: Credentials, version: str) -> None:
    async with MqttPeer(shared_core.mqtt_port, version) as older, MqttPeer(shared_core.mqtt_port, version) as newer:
        await older.joined(device)
        await newer.joined(device)
        await until(lambda: older.ends, "the older connection ends")
        if version == "5":
            assert older.ends[0].getName() == "Session taken over"
        assert await newer.puback(newer.publish(event(1))) == 0
        hdp = await Peer.dial(shared_core.port)
        assert (await hdp.ask("hello", **device.hello())).name == "welcome"
        await until(lambda: newer.ends, "HDP takes it over too")
        await hdp.close()


@both_versions
async def test_numbered_events_are_stored_once_however_often_they_are_sent(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    def numbered(epoch: int, first: int, *values: int) -> dict[str, object]:
        return {"epoch": epoch, "first_seq": first, "events": [event(value) for value in values]}

    first = [numbered(1, 1, 1, 2), numbered(1, 1, 1, 2), numbered(1, 2, 2, 3)]
    second = [numbered(2, 1, 4), numbered(1, 3, 3, 5), numbered(1, 1, 1, 2), numbered(2, 1, 4, 6)]
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.joined(device)
        for payload in [*first, *second]:
            assert await peer.puback(peer.publish(payload)) == 0
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.joined(device)
        for payload in [*second, *first, numbered(2, 3, 7)]:
            peer.publish(payload)
        await until(lambda: len(peer.pubacks) == 8, "all are acknowledged")
    await stored(database, device, 7)
    await until_in_thread(lambda: shared_core.metric("journal_bytes") == 0, "all is drained")
    assert sorted(str(row[1]) for row in await stored(database, device, 7)) == [f"{n}.0" for n in range(1, 8)]


UNREADABLE = {
    "no JSON": (EVENTS, b"21.5 C", "Payload format invalid"),
    "not UTF-8": (EVENTS, b'{"type": "\xff"}', "Payload format invalid"),
    "no event": (EVENTS, b'{"value": 1}', "Payload format invalid"),
    "a secret alone": (EVENTS, b'"4711"', "Payload format invalid"),
    "half numbered": (EVENTS, b'{"epoch": 1, "events": [{"type": "t"}]}', "Payload format invalid"),
    "another topic": ("some/topic", b"{}", "Topic name invalid"),
    "no result": ("hse/v1/results/r", b"done", "Payload format invalid"),
    "no request": ("hse/v1/results/", b'{"status": 0}', "Payload format invalid"),
}


@both_versions
@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_understood_is_kept_and_acknowledged(
    shared_core: Core, database: Database, device: Credentials, version: str, case: str
) -> None:
    topic, payload, reason = UNREADABLE[case]
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.joined(device)
        code = await peer.puback(peer.publish(payload, topic))
        assert code.getName() == (reason if version == "5" else "Success")
        assert await peer.puback(peer.publish(event(1))) == 0
    letter, *more = await dead_letters(database, device, 1)
    assert not more
    # More people may read the reason than what was sent.
    assert (letter[0], "4711" in str(letter[1])) == ("bad_payload", False)
    kept = msgpack.unpackb(letter[2])[4]
    assert (kept["topic"], kept["payload"], kept["reason"]) == (topic, payload, letter[1])
    assert len(await stored(database, device, 1)) == 1


@both_versions
async def test_of_several_events_those_with_bad_content_are_dead_letters(
    shared_core: Core, database: Database, fleet: list[Credentials], version: str
) -> None:
    device, stranger = fleet[:2]
    payload = [event(1), event(2, type=""), event(3, device_id=str(stranger.device_id)), event(4)]
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await until_let_in(shared_core, device)
        await peer.joined(device)
        code = await peer.puback(peer.publish(payload))
    assert code.getName() == ("Payload format invalid" if version == "5" else "Success")
    assert {row[1] for row in await stored(database, device, 2)} == {1, 4}
    assert [letter[0] for letter in await dead_letters(database, device, 2)] == ["bad_type", "forbidden_device"]


async def until_let_in(core: Core, device: Credentials) -> None:
    """Wait until the core's registry has the device."""
    for _ in range(100):
        async with MqttPeer(core.mqtt_port) as peer:
            if await peer.connect(str(device.device_id), device.token) == 0:
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the device is never let in")


@both_versions
@pytest.mark.parametrize("topic", ["v1/devices/me/telemetry", "v2/t"])
async def test_firmware_for_thingsboard_has_its_telemetry_stored(
    shared_core: Core, database: Database, device: Credentials, version: str, topic: str
) -> None:
    payloads = [
        {"temperature": 21.5},
        [{"humidity": 40}, {"is_open": True}],
        {"ts": 1_767_225_600_000, "values": {"state": "on"}},
    ]
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        assert await peer.connect(device.token) == 0
        for payload in payloads:
            assert await peer.puback(peer.publish(payload, topic)) == 0
        assert (await peer.puback(peer.publish(b"21.5", topic)) == 0) is (version == "3.1.1")
    rows = await stored(database, device, 4)
    assert rows[0] == ("state", None, None, "mqtt")
    assert sorted(str(row[:2]) for row in rows[1:]) == [
        "('humidity', 40.0)",
        "('is_open', 1.0)",
        "('temperature', 21.5)",
    ]
    select = "select metadata, extract(epoch from time)::int from device_events where device_id = %s and value is null"
    assert database.execute(select, [device.device_id]) == [({"value": "on"}, 1_767_225_600)]
    assert [letter[0] for letter in await dead_letters(database, device, 1)] == ["bad_payload"]


@both_versions
@pytest.mark.parametrize("topic", [EVENTS, "meter/gone"])
async def test_a_will_is_an_event_of_who_is_gone_without_a_word(
    shared_core: Core, database: Database, device: Credentials, version: str, topic: str
) -> None:
    will = '{"type": "offline"}'
    polite, rude = MqttPeer(shared_core.mqtt_port, version), MqttPeer(shared_core.mqtt_port, version)
    for peer in (polite, rude):
        peer.client.will_set(topic, will, qos=1, retain=version == "3.1.1")
    async with polite:
        await polite.joined(device)
    async with rude:
        await rude.joined(device)
        connection = cast("socket.socket", rude.client.socket())
        await rude.puback(rude.publish(event(1)))
        connection.shutdown(socket.SHUT_RDWR)
        await until(lambda: rude.ends, "the connection ends")
    rows = await stored(database, device, 2)
    assert sorted(str(row[0]) for row in rows) == sorted(["temperature", "offline" if topic == EVENTS else "last_will"])


@both_versions
async def test_a_device_subscribes_to_its_commands_alone(shared_core: Core, device: Credentials, version: str) -> None:
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.joined(device)
        answers = [await peer.subscribed(topic, qos) for topic, qos in (("#", 0), ("hse/v1/commands/+", 2))]
    refusal = "Not authorized" if version == "5" else "Unspecified error"
    assert [answer.getName() for answer in answers] == [refusal, "Granted QoS 1"]


async def test_who_is_silent_for_one_and_a_half_keep_alives_is_closed(shared_core: Core, device: Credentials) -> None:
    async with raw_client(shared_core.mqtt_port) as client:
        await client.send(connect_packet(device, keepalive=1))
        assert await client.receive() == b"\x20\x02\x00\x00"
        for _ in range(3):
            await asyncio.sleep(1)
            await client.send(packet(0xC0))
            assert await client.receive() == b"\xd0\x00"
        assert await client.rest() == b""


async def publish_raw(client: RawClient, packet_id: int, payload: bytes, *, is_dup: bool = False) -> None:
    first = 0x3A if is_dup else 0x32
    await client.send(packet(first, text(EVENTS), packet_id.to_bytes(2, "big"), payload))


async def test_a_duplicate_of_what_is_under_way_is_taken_once(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    payload = b'{"type": "temperature", "value": 1}'
    once, again = (packet(first, text(EVENTS), b"\0\x09", payload) for first in (0x32, 0x3A))
    async with raw_client(shared_core.mqtt_port) as client:
        await client.send(connect_packet(device))
        await client.receive()
        # In one segment, so that the second is read before the disk can answer for the first.
        await client.send(once + again + packet(0xC0))
        answers = {await client.receive(), await client.receive()}
        assert answers == {b"\x40\x02\x00\x09", b"\xd0\x00"}
        await publish_raw(client, 9, b'{"type": "temperature", "value": 2}')
        assert await client.receive() == b"\x40\x02\x00\x09"
    assert [row[1] for row in await stored(database, device, 2)] == [1, 2]


async def test_pubacks_leave_in_order(shared_core: Core, database: Database, device: Credentials) -> None:
    async with raw_client(shared_core.mqtt_port) as client:
        await client.send(connect_packet(device))
        await client.receive()
        payloads = [b'{"type": "t", "value": 1}', b"no", b'{"type": "", "value": 1}'] * 100
        sent = [packet(0x32, text(EVENTS), n.to_bytes(2, "big"), p) for n, p in enumerate(payloads, start=1)]
        await client.send(b"".join(sent))
        acknowledged = [int.from_bytes((await client.receive())[2:], "big") for _ in sent]
    assert acknowledged == list(range(1, 301))
    assert len(await stored(database, device, 100)) == 100
    assert len(await dead_letters(database, device, 200)) == 200
