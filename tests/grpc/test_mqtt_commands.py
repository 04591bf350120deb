"""Commands to devices that speak MQTT: the same states as for any other, and the same result."""

import asyncio
import json

import pytest
from google.protobuf.struct_pb2 import Struct

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conditions import until
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mosquitto import mosquitto, with_mosquitto
from tests.faults.mqtt import VERSIONS, MqttPeer
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller
from tests.grpc.test_commands import command, commands, results_of, states

both_versions = pytest.mark.parametrize("version", VERSIONS)


@both_versions
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_command_reaches_who_subscribed_and_the_result_its_caller(
    shared_core: Core, caller: Caller, device: Credentials, database: Database, version: str, qos: int
) -> None:
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        await peer.joined(device)
        assert await peer.subscribed(qos=qos) == qos
        params = Struct()
        params.update({"floor": 3, "names": ["a"]})
        asked = asyncio.create_task(
            caller.ask("SendDeviceCommand", command(device, "r/1", typed_params=params, deadline_us=4 * 10**15))
        )
        await until(lambda: peer.messages, "the command comes")
        topic, heard = peer.messages[0]
        assert topic == "hse/v1/commands/r%2F1"
        heard.pop("deadline_us")
        assert heard == {"request_id": "r/1", "command_type": "open", "params": {"floor": 3, "names": ["a"]}}
        result = {"status": 0, "message": "opened", "data": {"seconds": 2}}
        sent = peer.publish(result, topic.replace("commands", "results"))
        answer = await asked
        assert (answer.state, answer.message, dict(answer.data)) == (pb.SUCCEEDED, "opened", {"seconds": 2})
        assert await peer.puback(sent) == 0
        assert await results_of(database, device, 1) == [{"request_id": "r/1", **result}]


@both_versions
@pytest.mark.parametrize("requests", ["v1/devices/me/rpc/request/", "v2/r/req/"])
async def test_firmware_for_thingsboard_is_sent_commands_as_rpc(
    shared_core: Core, caller: Caller, device: Credentials, version: str, requests: str
) -> None:
    async with MqttPeer(shared_core.mqtt_port, version) as peer:
        assert await peer.connect(device.token) == 0
        await peer.subscribed(f"{requests}+")
        asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r-1", params={"key": "text"})))
        await until(lambda: peer.messages, "the request comes")
        topic, heard = peer.messages[0]
        assert (topic.startswith(requests), heard) == (True, {"method": "open", "params": {"key": "text"}})
        peer.publish({"seconds": 2}, topic.replace("request", "response").replace("req", "res"))
        answer = await asked
        assert (answer.state, answer.request_id, dict(answer.data)) == (pb.SUCCEEDED, "r-1", {"seconds": 2})


async def test_commands_come_in_order_and_wait_for_a_subscription(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    ids = [f"r-{number}" for number in range(40)]
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.joined(device)
        with caller.listening("SendDeviceCommands", commands(device, ids)) as heard:
            await heard.until(lambda messages: len(messages) == len(ids), "all are taken")
            await peer.subscribed()
            await until(lambda: len(peer.messages) == len(ids), "all come")
            assert [message["request_id"] for _, message in peer.messages] == ids
            peer.publish({"status": 0}, "hse/v1/results/r-1")
            peer.publish({"status": 5}, "hse/v1/results/r-2")
            await heard.until(lambda messages: states(messages, "r-2")[-1] == "FAILED", "the results are told")
            assert states(heard.messages, "r-1") == ["SENT", "DELIVERED", "SUCCEEDED"]


async def test_a_command_that_is_larger_than_the_device_takes_is_rejected_and_others_are_not(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.joined(device, packet_bytes_max=300)
        await peer.subscribed()
        answer = await caller.ask("SendDeviceCommand", command(device, "large", params={"a": "x" * 400}))
        assert (answer.state, answer.success) == (pb.REJECTED, False)
        assert answer.message.startswith("too_large: the command is larger than the device takes")
        asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "small")))
        await until(lambda: peer.messages, "the command comes")
        peer.publish({"status": 0}, "hse/v1/results/small")
        assert (await asked).state == pb.SUCCEEDED


async def test_no_more_commands_come_once_the_device_has_unsubscribed(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.joined(device)
        await peer.subscribed()
        unsubscribed: list[object] = []
        peer.client.on_unsubscribe = lambda _client, _data, _mid, codes, _told: unsubscribed.extend(codes)
        peer.client.unsubscribe(["hse/v1/commands/+", "hse/v1/events"])
        await until(lambda: len(unsubscribed) == 2, "UNSUBACK comes")
        assert [str(code) for code in unsubscribed] == ["Success", "No subscription found"]
        with caller.listening("SendDeviceCommands", commands(device, ["r"])) as heard:
            await heard.until(lambda messages: messages, "it is taken")
            await peer.leave()
            await heard.ended()
        assert states(heard.messages, "r") == ["SENT", "OFFLINE"]
        assert not peer.messages


@both_versions
@with_mosquitto
async def test_mosquitto_sub_hears_a_command_and_mosquitto_pub_tells_its_result(
    shared_core: Core, caller: Caller, device: Credentials, database: Database, version: str
) -> None:
    hearing = asyncio.create_task(
        mosquitto(
            *("sub", shared_core, device, version, "-t", "hse/v1/commands/+", "-F", "%t %p", "-C", "1", "-W", "20")
        )
    )
    async with asyncio.timeout(20):
        answer = await caller.ask("SendDeviceCommand", command(device, "r-1"))
        while answer.state == pb.OFFLINE:
            await asyncio.sleep(0.05)
            answer = await caller.ask("SendDeviceCommand", command(device, "r-1"))
    # It left as soon as it had heard it: that was delivered, and nobody knows what came of it.
    assert answer.state == pb.FAILED
    heard = await hearing
    assert heard.returncode == 0, heard.said
    topic, _, payload = heard.said.decode().partition(" ")
    assert (topic, json.loads(payload)["request_id"]) == ("hse/v1/commands/r-1", "r-1")
    result = ("-t", "hse/v1/results/r-1", "-m", '{"status": 0, "message": "opened"}')
    done = await mosquitto("pub", shared_core, device, version, *result)
    assert (done.returncode, done.said) == (0, b"")
    assert [kept["message"] for kept in await results_of(database, device, 1)] == ["opened"]


async def test_a_gateway_is_sent_commands_for_its_children_under_their_names(
    shared_core: Core, caller: Caller, device: Credentials, gateway_child: Credentials
) -> None:
    async with MqttPeer(shared_core.mqtt_port) as peer:
        assert await peer.connect(device.token) == 0
        await peer.subscribed("v1/gateway/rpc")
        params = Struct()
        params.update({"device_id": str(gateway_child.device_id), "seconds": 3})
        asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r-1", typed_params=params)))
        await until(lambda: peer.messages, "the request comes")
        ((topic, heard),) = peer.messages
        number = heard["data"].pop("id")
        data = {"method": "open", "params": {"seconds": 3}}
        assert (topic, heard) == ("v1/gateway/rpc", {"device": "0", "data": data})
        peer.publish({"device": "0", "id": number, "data": {"success": True}}, "v1/gateway/rpc")
        answer = await asked
        assert (answer.state, dict(answer.data)) == (pb.SUCCEEDED, {"success": True})
        refused = await caller.ask("SendDeviceCommand", command(device, "r-2"))
        assert (refused.state, "children alone" in refused.message) == (pb.FAILED, True)
