"""Commands to devices that ask for them over HTTP: the same states as for any other, and the same result."""

import asyncio

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.device_http import HttpDevice
from tests.faults.mqtt import MqttPeer
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller
from tests.grpc.test_commands import command, results_of

WAIT_MS = {"timeout": 20_000}


async def test_a_command_reaches_who_asks_for_it_and_the_result_its_caller(
    shared_core: Core, caller: Caller, device: Credentials, database: Database
) -> None:
    http_device = HttpDevice.of(shared_core.device_http_port, device)
    assert (await http_device.api("GET", "rpc", params={"timeout": 50})).status_code == 408
    # Between two questions it counts as connected: its command waits.
    asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r-1", params={"pin": "4"})))
    told = await http_device.api("GET", "rpc", params=WAIT_MS)
    heard = told.json()
    number = heard.pop("id")
    assert heard == {"method": "open", "params": {"pin": "4"}}
    # As a command of before may have had, when this device was not connected as it is now.
    assert (await http_device.api("POST", f"rpc/{number - 1}", json={})).status_code == 404
    assert (await http_device.api("POST", f"rpc/{number}", json={"ok": True})).status_code == 200
    answer = await asked
    assert (answer.state, dict(answer.data)) == (pb.SUCCEEDED, {"ok": True})
    expected = {"request_id": "r-1", "status": 0, "message": "", "data": {"ok": True}}
    assert await results_of(database, device, 1) == [expected]


async def test_who_waits_is_told_at_once(shared_core: Core, caller: Caller, device: Credentials) -> None:
    http_device = HttpDevice.of(shared_core.device_http_port, device)
    await http_device.api("GET", "rpc", params={"timeout": 1})
    waiting = asyncio.create_task(http_device.api("GET", "rpc", params=WAIT_MS))
    asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r-1")))
    told = (await waiting).json()
    assert told["method"] == "open"
    await http_device.api("POST", f"rpc/{told['id']}", data=b"done")
    assert dict((await asked).data) == {"value": "done"}


async def test_a_device_that_loses_its_token_waits_no_longer(
    shared_core: Core, device: Credentials, database: Database
) -> None:
    http_device = HttpDevice.of(shared_core.device_http_port, device)
    await http_device.api("GET", "rpc", params={"timeout": 1})
    waiting = asyncio.create_task(http_device.api("GET", "rpc", params=WAIT_MS))
    await asyncio.to_thread(database.execute, "update devices set token_hash = null where id = %s", [device.device_id])
    assert (await waiting).status_code in (401, 408)
    assert (await http_device.api("GET", "rpc", params={"timeout": 1})).status_code == 401


async def test_a_connection_over_mqtt_takes_the_device_over_and_is_taken_over(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    http_device = HttpDevice.of(shared_core.device_http_port, device)
    await http_device.api("GET", "rpc", params={"timeout": 1})
    waiting = asyncio.create_task(http_device.api("GET", "rpc", params=WAIT_MS))
    async with MqttPeer(shared_core.mqtt_port) as peer:
        await peer.joined(device)
        assert (await waiting).status_code == 408
        assert (await http_device.api("GET", "rpc", params={"timeout": 1})).status_code == 408
        asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r-1")))
        number = (await http_device.api("GET", "rpc", params=WAIT_MS)).json()["id"]
        await http_device.api("POST", f"rpc/{number}", json={})
        assert (await asked).state == pb.SUCCEEDED
