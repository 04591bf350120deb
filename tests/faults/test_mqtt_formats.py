"""Devices that speak MQTT in forms that are not ours, and those whose profile says how to read them."""

import asyncio
import json
from collections.abc import Mapping, Sequence

import pytest
from psycopg.types.json import Jsonb

from hse.adapters.postgres.dead_letters import content_of
from tests.faults.conftest import knows
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mqtt import MqttPeer
from tests.faults.test_mqtt import dead_letters
from tests.faults.wire import Credentials

Row = tuple[object, ...]

AT = 1_767_225_600
SENML = [{"bn": "m:", "bt": AT, "bu": "Cel", "n": "temp", "v": 21.5}, {"n": "hum", "u": "%RH", "v": 40}]
TASMOTA = {"Time": "2026-01-01T00:00:00Z", "ENERGY": {"Power": 12, "Total": 3.5}}
SHELLY = {"src": "a", "method": "NotifyStatus", "params": {"ts": AT, "em:0": {"id": 0, "total_act_power": 5}}}

SAID: dict[str, tuple[str, object, list[Row]]] = {
    "SenML": ("hse/v1/senml", SENML, [("m:hum", 40, "%RH", AT), ("m:temp", 21.5, "Cel", AT)]),
    "Tasmota": ("tele/plug/SENSOR", TASMOTA, [("ENERGY.Power", 12, "W", AT), ("ENERGY.Total", 3.5, "kWh", AT)]),
    "Shelly": ("shellypro3em-1/events/rpc", SHELLY, [("em:0.total_act_power", 5, "W", AT)]),
}


async def stored(database: Database, device: Credentials, count: int) -> list[Row]:
    """Wait until so many events of a device are stored; return type, value, unit and time of each."""
    select = (
        "select event_type, value, unit, extract(epoch from time)::int from device_events where device_id = %s"
        " order by event_type"
    )
    return await database.rows(select, [device.device_id], count, f"{count} events are stored")


@pytest.mark.parametrize("case", SAID)
async def test_firmware_speaks_as_it_does_elsewhere(
    shared_core: Core, database: Database, device: Credentials, case: str
) -> None:
    topic, payload, expected = SAID[case]
    async with MqttPeer(shared_core.mqtt_port, "3.1.1") as peer:
        await peer.joined(device)
        assert await peer.puback(peer.publish(payload, topic)) == 0
        peer.publish(b"{", topic)
        assert await stored(database, device, len(expected)) == expected
    assert [letter[0] for letter in await dead_letters(database, device, 1)] == ["bad_payload"]


async def test_a_will_of_such_firmware_is_an_event_that_says_that_it_is_gone(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    peer = MqttPeer(shared_core.mqtt_port, "3.1.1")
    peer.client.will_set("tele/plug/LWT", "Offline", qos=1, retain=True)
    async with peer:
        await peer.joined(device)
        assert await peer.puback(peer.publish(b"Online", "tele/plug/LWT")) == 0
        # A newer connection ends it without its DISCONNECT.
        async with MqttPeer(shared_core.mqtt_port) as newer:
            await newer.joined(device)
            rows = await stored(database, device, 2)
    assert {row[:2] for row in rows} == {("online", 0), ("online", 1)}


async def test_zigbee2mqtt_is_a_gateway_with_children(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    (lamp,) = database.add_devices(1, gateway=device)
    database.execute("update devices set name = 'hall/lamp' where id = %s", [lamp.device_id])
    (later,) = database.add_devices(1)
    await asyncio.to_thread(asyncio.run, knows(shared_core, later))
    async with MqttPeer(shared_core.mqtt_port, "3.1.1") as peer:
        await peer.joined(device)
        assert await peer.puback(peer.publish({"state": "ON", "power": 7}, "zigbee2mqtt/hall/lamp")) == 0
        peer.publish({"state": "online"}, "zigbee2mqtt/bridge/state")
        peer.publish({"contact": True}, "zigbee2mqtt/door")
        assert {row[:2] for row in await stored(database, lamp, 2)} == {("power", 7), ("state", 1)}
        assert [row[:2] for row in await stored(database, device, 1)] == [("online", 1)]
    ((code, reason, _),) = await dead_letters(database, device, 1)
    assert (code, "door" in str(reason)) == ("bad_payload", True)


def point(key: str, unit: str | None, **more: object) -> dict[str, object]:
    """A point as the table has it."""
    given = {"key": key, "name": key, "unit": unit, "type": "number", "min": None, "max": None}
    return {**given, "counter": {"kind": "none"}, **more}


def mapping(path: str, of: str, scale: float = 1) -> dict[str, object]:
    """A mapping as the table has it."""
    return {"path": path, "point": of, "scale": scale, "offset": 0, "unit": None}


def give_profile(database: Database, device: Credentials, points: Sequence[object], form: Mapping[str, object]) -> None:
    """Give a device a profile of its own, as the control plane does."""
    ((profile,),) = database.execute(
        "insert into device_profiles (organization_id, name, points, format)"
        " select organization_id, %s, %s, %s from devices where id = %s returning id",
        [str(device.device_id), Jsonb(points), Jsonb(form), device.device_id],
    )
    database.execute("update devices set profile_id = %s where id = %s", [profile, device.device_id])


async def test_plain_json_is_read_as_the_profile_says(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    points = [point("power", "W", max=100), point("energy", "kWh")]
    mappings = [mapping("$.params['em:0'].w", "power"), mapping("$.params['em:0'].wh", "energy", 0.001)]
    time = {"path": "$.params.ts", "form": "s"}
    give_profile(database, device, points, {"kind": "json", "items": None, "time": time, "mappings": mappings})
    (later,) = await asyncio.to_thread(database.add_devices, 1)
    await asyncio.to_thread(asyncio.run, knows(shared_core, later))
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.joined(device)
        payload = {"params": {"ts": AT, "em:0": {"w": 500, "wh": 1500}}}
        assert await peer.puback(peer.publish(payload, "meters/1")) == 0
        code = await peer.puback(peer.publish({"params": {}}, "meters/1"))
        assert code.getName() == "Payload format invalid"
        assert await stored(database, device, 2) == [("energy", 1.5, "kWh", AT), ("power", 500, "W", AT)]
        # What is not mapped is read as its topic says.
        assert await peer.puback(peer.publish(TASMOTA, "tele/plug/SENSOR")) == 0
        assert len(await stored(database, device, 4)) == 4
    marked = database.execute(
        "select event_type from device_events where device_id = %s and metadata ->> 'quality' = 'implausible'",
        [device.device_id],
    )
    assert marked == [("power",)]
    ((kind, reason, kept),) = await dead_letters(database, device, 1)
    assert (kind, reason) == ("bad_payload", "nothing that the profile maps")
    assert isinstance(kept, bytes)
    topic, content = content_of(kept)
    assert (topic, json.loads(content)) == ("meters/1", {"params": {}})
    # It is not tried again: it can never become an event.
    ((*_, status, attempts),) = await asyncio.to_thread(database.dead_letters_of, device.device_id)
    assert (status, attempts) == ("permanent", 0)


async def test_a_changed_profile_counts_from_the_next_message_on(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    points, form = [point("power", "W")], {"kind": "json", "items": None, "time": None}
    give_profile(database, device, points, {**form, "mappings": [mapping("$.a", "power")]})
    for path, value in (("$.a", 1), ("$.b", 2)):
        change = "update device_profiles set format = %s where name = %s"
        changed = Jsonb({**form, "mappings": [mapping(path, "power")]})
        await asyncio.to_thread(database.execute, change, [changed, str(device.device_id)])
        (later,) = await asyncio.to_thread(database.add_devices, 1)
        await asyncio.to_thread(asyncio.run, knows(shared_core, later))
        async with MqttPeer(shared_core.mqtt_port) as peer:
            await peer.joined(device)
            payload = {"a": 1, "b": 2, "other": 3}
            assert await peer.puback(peer.publish(payload, "meters/1")) == 0
            await stored(database, device, value)
    assert {row[1] for row in await stored(database, device, 2)} == {1, 2}
