"""Firmware for ThingsBoard over MQTT: attributes, questions, claiming, provisioning, and gateways with children."""

import asyncio
import hashlib
from uuid import UUID, uuid4

import msgpack
import pytest
from psycopg.types.json import Jsonb

from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import knows
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mqtt import VERSIONS, MqttPeer
from tests.faults.test_mqtt import dead_letters
from tests.faults.wire import Credentials

both_versions = pytest.mark.parametrize("version", VERSIONS)

ATTRIBUTES = "v1/devices/me/attributes"
RESPONSES = "v1/devices/me/attributes/response/+"


def desire(database: Database, device: Credentials, desired: dict[str, object], version: int = 1) -> None:
    """Have something be desired of a device, as the control plane does."""
    database.execute(
        "insert into device_attributes (device_id, desired, desired_version, reported)"
        " values (%s, %s, %s, %s) on conflict (device_id) do update"
        " set desired = excluded.desired, desired_version = excluded.desired_version",
        [device.device_id, Jsonb(desired), version, Jsonb({"firmware": "1.2", "rssi": -70})],
    )
    database.execute("select pg_notify('hse_device_attributes', %s)", [f"{device.device_id} {version}"])


async def heard(peer: MqttPeer, count: int) -> list[tuple[str, object]]:
    """Wait until so many messages came, and return them."""
    await until(lambda: len(peer.messages) >= count, f"{count} messages come")
    return peer.messages


@both_versions
@pytest.mark.parametrize("topic", [ATTRIBUTES, "v2/a"])
async def test_what_a_device_reports_waits_for_the_control_plane(
    shared_core: Core, database: Database, device: Credentials, version: str, topic: str
) -> None:
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        assert await peer.connect(device.token) == 0
        assert await peer.puback(peer.publish({"firmware": "1.2", "net": {"rssi": -70}}, topic)) == 0
        assert (await peer.puback(peer.publish(b"[1]", topic)) == 0) is (version == "3.1.1")
    select = "select event_type, metadata, source from event_outbox where device_id = %s"
    await until_in_thread(lambda: database.execute(select, [device.device_id]), "the report is in the outbox")
    ((kind, metadata, source),) = database.execute(select, [device.device_id])
    assert (kind, metadata, source) == ("attributes_reported", {"firmware": "1.2", "net": {"rssi": -70}}, "mqtt")
    assert [letter[0] for letter in await dead_letters(database, device, 1)] == ["bad_payload"]


@both_versions
async def test_a_device_asks_for_attributes_and_is_answered(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    desire(database, device, {"interval": 60, "mode": "eco"})
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.connect(device.token)
        assert await peer.subscribed(RESPONSES) == 1
        asked = {"clientKeys": "firmware", "sharedKeys": "interval,none"}
        assert await peer.puback(peer.publish(asked, f"{ATTRIBUTES}/request/7")) == 0
        answer = {"client": {"firmware": "1.2"}, "shared": {"interval": 60}}
        assert await heard(peer, 1) == [("v1/devices/me/attributes/response/7", answer)]


@both_versions
async def test_a_device_is_told_what_is_desired_when_it_subscribes_and_whenever_it_changes(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    desire(database, device, {"interval": 60, "mode": "eco"})
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.connect(device.token)
        await peer.subscribed(ATTRIBUTES)
        assert (await heard(peer, 1))[0] == (ATTRIBUTES, {"interval": 60, "mode": "eco"})
        desire(database, device, {"interval": 30}, 2)
        assert (await heard(peer, 2))[1] == (ATTRIBUTES, {"interval": 30, "deleted": ["mode"]})
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.connect(device.token)
        await peer.subscribed("v2/a", 0)
        assert await heard(peer, 1) == [("v2/a", {"interval": 30})]


async def test_a_device_that_asks_by_rpc_is_answered_or_refused(shared_core: Core, device: Credentials) -> None:
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.connect(device.token)
        await peer.subscribed("v1/devices/me/rpc/response/+")
        for number, method in enumerate(["getSessionLimits", "getWeather"]):
            sent = peer.publish({"method": method, "params": {}}, f"v1/devices/me/rpc/request/{number}")
            assert await peer.puback(sent) == 0
        answers = dict(await heard(peer, 2))
    limits = {"maxPayloadSize": 256 << 10, "maxInflightMessages": 64, "rateLimits": {}}
    refusal = {"error": "no method of this name is served here"}
    assert answers == {"v1/devices/me/rpc/response/0": limits, "v1/devices/me/rpc/response/1": refusal}


async def test_questions_that_are_not_heard_leave_the_connection_as_it_is(
    shared_core: Core, device: Credentials
) -> None:
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.connect(device.token)
        sent = [peer.publish({}, f"{ATTRIBUTES}/request/{number}") for number in range(100)]
        answers = {(await peer.puback(one)).getName() for one in sent}
        assert answers <= {"Success", "Quota exceeded"}
        assert await peer.puback(peer.publish({"a": 1}, "v2/t")) == 0
        assert not peer.messages


@both_versions
async def test_a_device_lets_itself_be_claimed(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    topic, code = "v1/devices/me/claim", uuid4().hex
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.connect(device.token)
        answers = [
            (await peer.puback(peer.publish(payload, topic))).getName()
            for payload in (
                {"secretKey": code, "durationMs": 60_000},
                {"secretKey": "short"},
                {"secretKey": f"{code}-later", "durationMs": 60_000},
            )
        ]
        assert answers == ["Success", "Payload format invalid" if version == "5" else "Success", "Success"]
    ((code_hash, created_by),) = database.execute(
        "select code_hash, created_by from device_claims where device_id = %s", [device.device_id]
    )
    assert (code_hash, created_by) == (hashlib.sha256(f"{code}later".upper().encode()).digest(), None)
    assert code not in shared_core.log_path.read_text()
    # What holds a secret is no dead letter.
    assert database.execute("select id from dead_letters where device_id = %s", [device.device_id]) == []


def add_key(database: Database, device: Credentials) -> tuple[str, str]:
    """Make a provisioning key of the device's organisation, as the control plane does."""
    key, secret = uuid4().hex, uuid4().hex
    database.execute(
        "insert into provisioning_keys (organization_id, name, key, secret_hash, devices_max)"
        " select organization_id, 'series', %s, %s, 2 from devices where id = %s",
        [key, hashlib.sha256(secret.encode()).digest(), device.device_id],
    )
    return key, secret


@both_versions
async def test_a_device_without_a_token_is_given_one_and_connects(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    key, secret = add_key(database, device)
    serial = uuid4().hex
    request = {"deviceName": serial, "provisionDeviceKey": key, "provisionDeviceSecret": secret}
    async with MqttPeer(shared_core.mqtt_port, version) as newcomer:
        assert await newcomer.connect("provision") == 0
        await newcomer.subscribed("/provision/response")
        newcomer.publish(request | {"provisionDeviceSecret": "wrong"}, "/provision/request")
        assert (await heard(newcomer, 1))[0][1] == {"status": "FAILURE", "errorMsg": "not provisioned"}
        newcomer.publish(request, "/provision/request")
        topic, answer = (await heard(newcomer, 2))[1]
        assert topic == "/provision/response"
        assert isinstance(answer, dict)
        assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
        # It has a token now, and the key gives no other one.
        newcomer.publish(request, "/provision/request")
        assert (await heard(newcomer, 3))[2][1] == {"status": "FAILURE", "errorMsg": "not provisioned"}
    token = answer["credentialsValue"]
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        assert await peer.connect(token) == 0
        assert await peer.puback(peer.publish({"a": 1}, "v2/t")) == 0
    select = "select count(*) from device_events e join devices d on d.id = e.device_id where d.serial_number = %s"
    await until_in_thread(lambda: database.execute(select, [serial]) == [(1,)], "its event is stored")
    log = shared_core.log_path.read_text()
    assert not [word for word in (token, secret) if word in log]


async def test_who_comes_for_a_token_may_do_nothing_else(shared_core: Core) -> None:
    for topic in ("hse/v1/events", "v1/devices/me/telemetry"):
        async with MqttPeer(shared_core.mqtt_port) as stranger:
            assert await stranger.connect("provision") == 0
            assert (await stranger.subscribed("hse/v1/commands/+")).getName() == "Not authorized"
            stranger.publish({"a": 1}, topic)
            await until(lambda: stranger.ends, "the connection ends")
            assert stranger.ends[0].getName() == "Not authorized"


@pytest.fixture
def children(database: Database, shared_core: Core, device: Credentials) -> list[Credentials]:
    """Two children of the test's device, called `0` and `1`."""
    made = database.add_devices(2, gateway=device)
    # A device that is registered after them is known when they are: the registry reads what was notified in order.
    (later,) = database.add_devices(1)
    asyncio.run(knows(shared_core, later))
    return made


async def events_of(database: Database, device: Credentials) -> list[tuple[object, ...]]:
    select = "select event_type, value, metadata from device_events where device_id = %s order by value"
    return await database.rows(select, [device.device_id], 1, "its events are stored")


@both_versions
async def test_a_gateway_speaks_for_its_children_by_name(
    shared_core: Core, database: Database, device: Credentials, children: list[Credentials], version: str
) -> None:
    number = uuid4().hex
    database.execute("update devices set serial_number = %s where id = %s", [number, children[1].device_id])
    await until_known(shared_core, database)
    values = [{"ts": 1_767_225_600_000, "values": {"power": 1}}, {"ts": 1_767_225_601_000, "values": {"power": 2}}]
    payload = {"0": values, number: [{"power": 3}], "stranger": [{"power": 4}]}
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.connect(device.token)
        for name in ("0", number):
            assert await peer.puback(peer.publish({"device": name, "type": "meter"}, "v1/gateway/connect")) == 0
        code = await peer.puback(peer.publish(payload, "v1/gateway/telemetry"))
        assert code.getName() == ("Payload format invalid" if version == "5" else "Success")
        assert await peer.puback(peer.publish({"0": {"firmware": "2"}}, "v1/gateway/attributes")) == 0
        assert await peer.puback(peer.publish({"device": number}, "v1/gateway/disconnect")) == 0
    assert [row[:2] for row in await events_of(database, children[1])] == [("power", 3)]
    rows = await events_of(database, children[0])
    assert {(row[0], row[1]) for row in rows} >= {("power", 1), ("power", 2)}
    outbox = "select metadata from event_outbox where device_id = %s and event_type = 'attributes_reported'"
    await until_in_thread(lambda: database.execute(outbox, [children[0].device_id]), "the report is in the outbox")
    assert database.execute(outbox, [children[0].device_id]) == [({"firmware": "2"},)]
    ((kind, reason, event),) = await dead_letters(database, device, 1)
    assert kind == "bad_payload"
    assert "stranger" in str(reason)
    kept = msgpack.unpackb(event)
    assert kept[4]["payload"] == b'{"stranger":[{"power":4}]}'


async def until_known(core: Core, database: Database) -> None:
    """Wait until the core has heard of all changes up to now."""
    (later,) = await asyncio.to_thread(database.add_devices, 1)
    await asyncio.to_thread(asyncio.run, knows(core, later))


@both_versions
async def test_a_gateway_asks_and_is_told_for_its_children(
    shared_core: Core, database: Database, device: Credentials, children: list[Credentials], version: str
) -> None:
    desire(database, children[0], {"interval": 60})
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.connect(device.token)
        await peer.subscribed("v1/gateway/attributes/response")
        request = {"id": 3, "device": "0", "client": True, "key": "rssi"}
        assert await peer.puback(peer.publish(request, "v1/gateway/attributes/request")) == 0
        answer = {"id": 3, "device": "0", "value": -70}
        assert await heard(peer, 1) == [("v1/gateway/attributes/response", answer)]
        await peer.subscribed("v1/gateway/attributes")
        await peer.puback(peer.publish({"device": "0"}, "v1/gateway/connect"))
        told = ("v1/gateway/attributes", {"device": "0", "data": {"interval": 60}})
        assert (await heard(peer, 2))[1] == told
        # Of a child that is not there it hears nothing.
        desire(database, children[1], {"interval": 1})
        desire(database, children[0], {"interval": 30}, 2)
        told = ("v1/gateway/attributes", {"device": "0", "data": {"interval": 30}})
        assert (await heard(peer, 3))[2:] == [told]


async def test_children_of_others_are_nobody(
    shared_core: Core, database: Database, children: list[Credentials]
) -> None:
    (other,) = database.add_devices(1)
    await until_known(shared_core, database)
    assert isinstance(children[0].device_id, UUID)
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.connect(other.token)
        for topic, payload in (
            ("v1/gateway/connect", {"device": "0"}),
            ("v1/gateway/telemetry", {"0": [{"power": 1}]}),
            ("v1/gateway/attributes", {"0": {"a": 1}}),
            ("v1/gateway/attributes/request", {"id": 1, "device": "0", "client": True, "key": "a"}),
            ("v1/gateway/claim", {"0": {"secretKey": "12345678"}}),
        ):
            code = await peer.puback(peer.publish(payload, topic))
            assert code.getName() == "Payload format invalid", topic
    assert len(await dead_letters(database, other, 4)) == 4
