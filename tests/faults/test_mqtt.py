"""Devices that speak MQTT, with paho on their side: who gets in, what a PUBACK promises, and what they hear."""

import asyncio
import random
import socket
import ssl
from typing import cast

import msgpack
import pytest

from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mqtt import EVENTS, VERSIONS, MqttPeer, RawClient, connect_packet, event, packet, raw_client, text
from tests.faults.wire import Credentials, Peer

both_versions = pytest.mark.parametrize("version", VERSIONS)
NUM_KILLS = 12


async def stored(database: Database, device: Credentials, count: int) -> list[tuple[object, ...]]:
    """Wait until so many events of a device are stored; return type, value, unit and source of each, by time."""
    select = "select event_type, value, unit, source from device_events where device_id = %s order by time, value"
    what = f"{count} events are stored"
    await until_in_thread(lambda: len(database.execute(select, [device.device_id])) >= count, what)
    return database.execute(select, [device.device_id])


async def dead_letters(database: Database, device: Credentials, count: int) -> list[tuple[object, ...]]:
    """Wait until so many dead letters of a device are kept; return code, reason and event of each, in order."""
    select = "select code, reason, event from dead_letters where device_id = %s order by id"
    what = f"{count} dead letters are kept"
    await until_in_thread(lambda: len(database.execute(select, [device.device_id])) >= count, what)
    return database.execute(select, [device.device_id])


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
    "half numbered": (EVENTS, b'{"epoch": 1, "events": [{"type": "t"}]}', "Payload format invalid"),
    "another topic": ("tele/meter/SENSOR", b"{}", "Topic name invalid"),
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
    assert letter[0] == "bad_payload"
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
@pytest.mark.parametrize("topic", [EVENTS, "tele/meter/LWT"])
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


BROKEN = {
    "second CONNECT": None,
    "QoS 3": packet(0x36, text(EVENTS), b"\0\x01{}"),
    "QoS 2": packet(0x34, text(EVENTS), b"\0\x01{}"),
    "DUP with QoS 0": packet(0x38, text(EVENTS), b"{}"),
    "packet identifier 0": packet(0x32, text(EVENTS), b"\0\0{}"),
    "wildcard in a topic": packet(0x30, text("hse/v1/+"), b"{}"),
    "empty topic": packet(0x30, text(""), b"{}"),
    "bad UTF-8": packet(0x30, b"\0\x02\xc3\x28", b"{}"),
    "PUBREL": packet(0x62, b"\0\x01"),
    "SUBSCRIBE without filters": packet(0x82, b"\0\x01"),
    "larger than a packet may be": b"\x30\xff\xff\xff\x7f",
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_client_that_breaks_the_protocol_is_closed_and_others_are_not(
    shared_core: Core, database: Database, device: Credentials, case: str
) -> None:
    async with raw_client(shared_core.mqtt_port) as client:
        await client.send(connect_packet(device))
        assert await client.receive() == b"\x20\x02\x00\x00"
        await client.send(BROKEN[case] or connect_packet(device))
        assert await client.rest() == b""
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.joined(device)
        assert await peer.puback(peer.publish(event(1))) == 0
    assert len(await stored(database, device, 1)) == 1


async def test_a_client_of_version_5_hears_why_it_is_closed(shared_core: Core, device: Credentials) -> None:
    reasons = {b"\x30\xff\xff\xff\x7f": 0x95, packet(0x34, text(EVENTS), b"\0\x01\0{}"): 0x9B}
    alias_0 = packet(0x30, text(EVENTS), b"\x03\x23\0\0{}")
    for said, reason in (reasons | {alias_0: 0x94}).items():
        async with raw_client(shared_core.mqtt_port) as client:
            await client.send(connect_packet(device, level=5))
            assert (await client.receive())[:4] == b"\x20" + b"\x19\x00\x00"
            await client.send(said)
            assert (await client.receive())[:3:2] == bytes([0xE0, reason])


async def test_a_stranger_is_bounded_and_waited_for_no_longer_than_a_hello(
    new_core: NewCore, device: Credentials
) -> None:
    core = new_core(hello_timeout_s=1)
    await core.started()
    async with raw_client(core.mqtt_port) as silent, raw_client(core.mqtt_port) as large:
        await large.send(b"\x10\xff\xff\x7f" + text("MQTT"))
        assert await large.rest() == b""
        assert await silent.rest() == b""
    async with raw_client(core.mqtt_port) as other:
        await other.send(packet(0x10, text("MQIsdp"), b"\x03\x02\0\x3c", text("c")))
        assert await other.rest() == b"\x20\x02\x00\x01"
    assert device is not None


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


@both_versions
@pytest.mark.timeout(300)
async def test_a_core_killed_between_publish_and_puback_stores_what_it_acknowledged(
    new_core: NewCore, database: Database, device: Credentials, version: str
) -> None:
    """Numbered events once, whatever is sent again; others at least once, and once where they were not sent again."""
    chance = random.Random(version)
    core = new_core(batch_age_ms_max=200)
    acknowledged: dict[bool, set[int]] = {True: set(), False: set()}
    sent_again: set[int] = set()
    next_value, next_seq, unsure = 1, 1, dict[int, dict[str, object]]()
    for _ in range(NUM_KILLS):
        await core.started()
        async with MqttPeer(core.mqtt_port, version) as peer:
            await peer.joined(device)
            batch = dict(sorted(unsure.items()))
            sent_again |= set(batch)
            for _ in range(chance.randint(20, 200)):
                if chance.random() < 0.5:
                    batch[next_value] = {"epoch": 1, "first_seq": next_seq, "events": [event(next_value)]}
                    next_seq += 1
                else:
                    batch[next_value] = event(next_value)
                next_value += 1
            sent = {value: peer.publish(payload).mid for value, payload in batch.items()}
            wanted = chance.randint(1, len(sent))
            await until(lambda: len(peer.pubacks) >= wanted, "publications are acknowledged")  # noqa: B023
            await core.kill()
            await until(lambda: peer.ends, "the connection ends")
            told = dict(peer.pubacks)
        unsure = {value: batch[value] for value, mid in sent.items() if mid not in told}
        for value, mid in sent.items():
            if mid in told:
                acknowledged["epoch" in batch[value]].add(value)
    await core.started()
    await until_in_thread(lambda: core.metric("journal_bytes") == 0, "all is drained", seconds=60)
    assert await core.stop() == 0
    select = "select value::int, count(*) from device_events where device_id = %s group by value"
    counts = {int(str(value)): int(str(count)) for value, count in database.execute(select, [device.device_id])}
    assert acknowledged[True]
    assert acknowledged[False]
    assert sent_again
    assert {counts.get(value) for value in acknowledged[True]} == {1}
    assert {counts.get(value) for value in acknowledged[False] - sent_again} == {1}
    assert acknowledged[False] <= set(counts)
