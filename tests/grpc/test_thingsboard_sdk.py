"""ThingsBoard's own client SDK from PyPI against our endpoint, in its own process, since it brings a copy of paho along."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.struct_pb2 import Struct

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conditions import until, until_in_thread
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.test_mqtt_thingsboard import add_key, desire, events_of
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller
from tests.grpc.test_commands import command

# Where `make dev` puts it.
SDK = Path(sys.prefix) / "thingsboard-sdk"
SCRIPT = Path(__file__).with_name("thingsboard_sdk.py")

pytestmark = [
    pytest.mark.skipif(not SDK.is_dir(), reason="the client SDK of ThingsBoard is not installed: make dev"),
    pytest.mark.timeout(120),
]


class SdkPeer:
    """The other process: what it says is kept in a list."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(json.loads(line))

    async def do(self, *asked: object) -> Any:
        """Have it do something, and return what came of it."""
        assert self._process.stdin is not None
        before = len(self._done())
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        await self._process.stdin.drain()
        await until(lambda: len(self._done()) > before, f"{asked[0]} is done", seconds=30)
        return self._done()[-1]["result"]

    def _done(self) -> list[dict[str, Any]]:
        return [one for one in self.said if "did" in one]

    async def heard(self, kind: str, count: int = 1) -> list[Any]:
        """Wait until it has heard so much of a kind, and return it."""
        await until(lambda: len(self.all_of(kind)) >= count, f"{count} of {kind} are heard", seconds=20)
        return self.all_of(kind)

    def all_of(self, kind: str) -> list[Any]:
        """What it has heard of a kind."""
        return [one[kind] for one in self.said if kind in one]

    async def end(self) -> None:
        """End it, and read what it still says."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


@contextlib.asynccontextmanager
async def sdk_peer(core: Core, token: str, kind: str = "device") -> AsyncIterator[SdkPeer]:
    """Start the SDK as a device or a gateway."""
    environment = {"PYTHONPATH": str(SDK), "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SCRIPT), str(core.mqtt_port), token, kind),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    peer = SdkPeer(process)
    try:
        yield peer
    finally:
        await peer.end()


async def test_a_device_with_the_sdk_does_all_that_it_does_with_thingsboard(
    shared_core: Core, caller: Caller, database: Database, device: Credentials
) -> None:
    desire(database, device, {"interval": 60, "mode": "eco"})
    async with sdk_peer(shared_core, device.token) as peer:
        await peer.do("connect")
        assert (await peer.heard("attributes"))[0] == {"interval": 60, "mode": "eco"}
        assert await peer.do("send", "send_telemetry", {"temperature": 41.9, "enabled": False}) == 0
        timed = [{"ts": 1_767_225_600_000, "values": {"temperature": 42.1}}]
        assert await peer.do("send", "send_telemetry", timed) == 0
        assert await peer.do("send", "send_attributes", {"serial": "SN-1"}) == 0
        await peer.do("ask", "request_attributes", ["firmware"], ["interval"])
        assert await peer.heard("answer") == [{"client": {"firmware": "1.2"}, "shared": {"interval": 60}}]
        desire(database, device, {"interval": 30, "mode": "eco"}, 2)
        assert (await peer.heard("attributes", 2))[1] == {"interval": 30}
        asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r-1", params={"pin": "4"})))
        assert await peer.heard("rpc") == [{"method": "open", "params": {"pin": "4"}}]
        (number,) = await peer.heard("number")
        await peer.do("reply", "send_rpc_reply", number, {"ok": True})
        answer = await asked
        assert (answer.state, dict(answer.data)) == (pb.SUCCEEDED, {"ok": True})
        await peer.do("ask", "send_rpc_call", "getWeather", {})
        assert (await peer.heard("answer", 2))[1] == {"error": "no method of this name is served here"}
        assert await peer.do("send", "claim", uuid4().hex, 60_000) == 0
        await peer.do("stop")
    rows = await events_of(database, device)
    assert {row[0] for row in rows} >= {"temperature", "enabled"}
    select = "select metadata from event_outbox where device_id = %s and event_type = 'attributes_reported'"
    await until_in_thread(lambda: database.execute(select, [device.device_id]), "the report is in the outbox")
    assert database.execute(select, [device.device_id]) == [({"serial": "SN-1"},)]
    claims = database.execute("select created_by from device_claims where device_id = %s", [device.device_id])
    assert claims == [(None,)]
    assert database.execute("select reason from dead_letters where device_id = %s", [device.device_id]) == []


async def test_the_sdk_is_given_a_token_and_connects_with_it(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    key, secret = add_key(database, device)
    serial = uuid4().hex
    async with sdk_peer(shared_core, device.token) as stranger:
        given = await stranger.do("provision", key, secret, serial)
        assert (given["status"], given["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    async with sdk_peer(shared_core, given["credentialsValue"]) as peer:
        await peer.do("connect")
        assert await peer.do("send", "send_telemetry", {"a": 1}) == 0
    select = "select count(*) from device_events e join devices d on d.id = e.device_id where d.serial_number = %s"
    await until_in_thread(lambda: database.execute(select, [serial]) == [(1,)], "its event is stored")


async def test_a_gateway_with_the_sdk_speaks_for_its_children(
    shared_core: Core, caller: Caller, database: Database, device: Credentials, gateway_child: Credentials
) -> None:
    desire(database, gateway_child, {"interval": 60})
    async with sdk_peer(shared_core, device.token, "gateway") as peer:
        await peer.do("connect")
        assert await peer.do("send", "gw_connect_device", "0") == 0
        assert (await peer.heard("gateway_attributes"))[0] == {"device": "0", "data": {"interval": 60}}
        assert await peer.do("send", "gw_send_telemetry", "0", {"ts": 1_767_225_600_000, "values": {"power": 3}}) == 0
        assert await peer.do("send", "gw_send_attributes", "0", {"firmware": "2"}) == 0
        await peer.do("ask", "gw_request_shared_attributes", "0", ["interval"])
        (answer,) = await peer.heard("answer")
        assert (answer["device"], answer["values"]) == ("0", {"interval": 60})
        params = Struct()
        params.update({"device_id": str(gateway_child.device_id), "seconds": 3})
        asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r-1", typed_params=params)))
        (told,) = await peer.heard("gateway_rpc")
        number = told["data"].pop("id")
        assert told == {"device": "0", "data": {"method": "open", "params": {"seconds": 3}}}
        await peer.do("reply", "gw_send_rpc_reply", "0", number, {"success": True})
        assert (await asked).state == pb.SUCCEEDED
        assert await peer.do("send", "gw_disconnect_device", "0") == 0
    rows = await events_of(database, gateway_child)
    assert ("power", 3.0, None) in rows
    assert database.execute("select reason from dead_letters where device_id = %s", [device.device_id]) == []
