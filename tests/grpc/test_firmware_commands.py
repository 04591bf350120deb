"""Commands to firmware that hears them in words of its own: Tasmota, Shelly, and Zigbee2MQTT for its children and itself."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from paho.mqtt.client import Client, MQTTMessage

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conditions import until
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mqtt import MqttPeer, stored
from tests.faults.test_mqtt import dead_letters
from tests.faults.test_mqtt_thingsboard import until_known
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller
from tests.grpc.test_commands import results_of, states, until_delivered


class Firmware(MqttPeer):
    """A device whose messages are no JSON of ours, over 3.1.1 and with QoS 0, as such firmware is."""

    def __init__(self, core: Core) -> None:
        super().__init__(core.mqtt_port, "3.1.1")
        self.heard: list[tuple[str, str]] = []

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.heard.append((message.topic, message.payload.decode()))

    async def hears(self, count: int = 1) -> tuple[str, str]:
        """Wait until so many commands came; return the last of them."""
        await until(lambda: len(self.heard) >= count, "the command comes")
        return self.heard[count - 1]

    def says(self, topic: str, payload: object) -> None:
        """Publish with QoS 0."""
        self.publish(payload, topic, 0)


def command(device: Credentials, kind: str, params: Mapping[str, Any], request_id: str = "r-1") -> pb.DeviceCommand:
    """A command that is waited for a short while where its answer does not come."""
    typed = Struct()
    typed.update(params)
    return pb.DeviceCommand(
        device_id=str(device.device_id), command_type=kind, request_id=request_id, typed_params=typed
    )


def asked(caller: Caller, told: pb.DeviceCommand) -> "asyncio.Task[Any]":
    """Send a command, and wait for its end beside."""
    return asyncio.create_task(caller.ask("SendDeviceCommand", told))


async def test_a_tasmota_is_switched_and_says_so(
    shared_core: Core, caller: Caller, device: Credentials, database: Database
) -> None:
    async with Firmware(shared_core) as plug:
        await plug.joined(device)
        # In the order in which it does it.
        for filter_ in ("cmnd/plug/#", "cmnd/tasmotas/#", "cmnd/DVES_123456_fb/#"):
            assert await plug.subscribed(filter_, 0) == 0
        answer = asked(caller, command(device, "Power1", {"value": "ON"}))
        assert await plug.hears() == ("cmnd/plug/Power1", "ON")
        plug.says("tele/plug/STATE", {"POWER": "OFF"})
        plug.says("stat/plug/RESULT", {"POWER": "ON"})
        plug.says("stat/plug/POWER", b"ON")
        told = await answer
        assert (told.state, dict(told.data)) == (pb.SUCCEEDED, {"POWER": "ON"})
        # What it said is what it is, too.
        rows = await stored(database, device, 4)
        assert [row[:2] for row in rows if row[3] == "mqtt"] == [("POWER", 0), ("POWER", 1), ("POWER", 1)]
        assert await results_of(database, device, 1) == [
            {"request_id": "r-1", "status": 0, "message": "", "data": {"POWER": "ON"}}
        ]
        answer = asked(caller, command(device, "Foo", {}, "r-2"))
        assert await plug.hears(2) == ("cmnd/plug/Foo", "")
        plug.says("stat/plug/RESULT", {"Command": "Unknown"})
        told = await answer
        assert (told.state, told.message) == (
            pb.FAILED,
            "the device does not know the command, or not these parameters",
        )


async def test_a_tasmota_whose_topics_are_the_other_way_round_answers_with_its_status(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    async with Firmware(shared_core) as plug:
        await plug.joined(device)
        assert await plug.subscribed("plug/cmnd/#", 0) == 0
        answer = asked(caller, command(device, "Status", {"value": 5}))
        assert await plug.hears() == ("plug/cmnd/Status", "5")
        plug.says("plug/stat/STATUS5", {"StatusNET": {"Hostname": "plug"}})
        assert (await answer).state == pb.SUCCEEDED


async def test_a_shelly_is_asked_by_rpc_and_answers_under_its_number(
    shared_core: Core, caller: Caller, device: Credentials, database: Database
) -> None:
    async with Firmware(shared_core) as shelly:
        await shelly.joined(device)
        assert await shelly.subscribed("shellyplus1-a/rpc", 1) == 1
        answer = asked(caller, command(device, "Switch.Set", {"id": 0, "on": True}))
        topic, payload = await shelly.hears()
        heard = json.loads(payload)
        number = heard.pop("id")
        request = {"src": "hse", "method": "Switch.Set", "params": {"id": 0, "on": True}}
        assert (topic, heard) == ("shellyplus1-a/rpc", request)
        sent = shelly.publish({"id": number, "src": "a", "dst": "hse", "result": {"was_on": False}}, "hse/rpc")
        assert await shelly.puback(sent) == 0
        told = await answer
        assert (told.state, dict(told.data)) == (pb.SUCCEEDED, {"was_on": False})
        answer = asked(caller, command(device, "Switch.Toggle", {"id": 9}, "r-2"))
        await shelly.hears(2)
        error = {"code": -105, "message": "Argument 'id', value 9 not found!"}
        shelly.says("hse/rpc", {"id": number + 1, "src": "a", "dst": "hse", "error": error})
        told = await answer
        assert (told.state, told.message, dict(told.data)) == (pb.FAILED, error["message"], error)
        shelly.says("hse/rpc", {"id": 77, "result": None})
        ((code, reason, _),) = await dead_letters(database, device, 1)
        assert (code, reason) == ("bad_payload", "no command was sent under this number")


@pytest.fixture
async def lamp(shared_core: Core, database: Database, device: Credentials) -> Credentials:
    """A child of the test's device, called `hall/lamp`."""
    (made,) = await asyncio.to_thread(lambda: database.add_devices(1, gateway=device))
    name = "update devices set name = 'hall/lamp', token_hash = null where id = %s"
    await asyncio.to_thread(database.execute, name, [made.device_id])
    await until_known(shared_core, database)
    return made


async def test_zigbee2mqtt_sets_a_child_which_then_says_that_it_is_so(
    shared_core: Core, caller: Caller, device: Credentials, database: Database, lamp: Credentials
) -> None:
    async with Firmware(shared_core) as zigbee:
        await zigbee.joined(device)
        assert await zigbee.subscribed("zigbee2mqtt/#", 0) == 0
        params = {"device_id": str(lamp.device_id), "state": "ON", "brightness": 120}
        answer = asked(caller, command(device, "set", params))
        topic, payload = await zigbee.hears()
        assert (topic, json.loads(payload)) == ("zigbee2mqtt/hall/lamp/set", {"state": "ON", "brightness": 120})
        zigbee.says("zigbee2mqtt/hall/lamp", {"state": "ON", "brightness": 7})
        zigbee.says("zigbee2mqtt/hall/lamp", {"state": "ON", "brightness": 120, "linkquality": 9})
        told = await answer
        assert (told.state, told.data["brightness"]) == (pb.SUCCEEDED, 120)
        assert len(await stored(database, lamp, 5)) == 5
        # What it is not told of a child it is told for itself.
        answer = asked(caller, command(device, "permit_join", {"time": 60}, "r-2"))
        topic, payload = await zigbee.hears(2)
        heard = json.loads(payload)
        transaction = heard.pop("transaction")
        assert (topic, heard) == ("zigbee2mqtt/bridge/request/permit_join", {"time": 60})
        busy = {"status": "error", "error": "busy", "transaction": transaction}
        zigbee.says("zigbee2mqtt/bridge/response/permit_join", busy)
        told = await answer
        assert (told.state, told.message) == (pb.FAILED, "busy")


async def test_what_cannot_be_said_to_it_fails_and_what_it_does_not_answer_is_delivered(
    shared_core: Core, caller: Caller, device: Credentials, database: Database, lamp: Credentials
) -> None:
    async with Firmware(shared_core) as zigbee:
        await zigbee.joined(device)
        assert await zigbee.subscribed("zigbee2mqtt/#", 0) == 0
        told = await caller.ask("SendDeviceCommand", command(device, "a/+", {}))
        assert (told.state, told.message.partition(":")[0]) == (pb.REJECTED, "invalid_command")
        stranger = {"device_id": str(device.device_id), "state": "ON"}
        told = await caller.ask("SendDeviceCommand", command(device, "set", stranger, "r-2"))
        assert (told.state, "no child of this gateway" in told.message) == (pb.FAILED, True)
        toggled = command(device, "set", {"device_id": str(lamp.device_id), "state": "TOGGLE"}, "r-3")
        with caller.listening("SendDeviceCommands", pb.DeviceCommands(commands=[toggled])) as heard:
            await zigbee.hears()
            await until_delivered(heard, 1)
            zigbee.says("zigbee2mqtt/hall/lamp", {"state": "OFF"})
            await stored(database, lamp, 1)
            # A result would be stored before the state that it came with.
            select = "select metadata from event_outbox where device_id = %s"
            assert database.execute(select, [device.device_id]) == []
            assert states(heard.messages, "r-3") == ["SENT", "DELIVERED"]
