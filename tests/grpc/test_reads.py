"""GetDeviceStatus, GetDeviceEvents and GetNode."""

import time
from uuid import uuid4

import grpc
import pytest

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.wire import Credentials, Peer
from tests.grpc.caller import Caller, event

BASE = int(time.time()) - 3600


@pytest.fixture
async def stored(caller: Caller, database: Database, device: Credentials) -> str:
    """Five events of the test's device, a second apart, the odd ones of another type."""
    events = [
        event(device.device_id, "odd" if number % 2 else "even", number, unit="C", timestamp=BASE + number)
        for number in range(5)
    ]
    await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=events))
    await until_in_thread(lambda: len(database.events_of(device.device_id)) == 5, "they are stored", seconds=60)
    return str(device.device_id)


async def test_events_are_read_newest_first_as_asked(caller: Caller, stored: str) -> None:
    async def values(**asked: object) -> list[float]:
        request = pb.DeviceEventsRequest(device_id=stored, **asked)  # type: ignore[arg-type]
        answer = await caller.ask("GetDeviceEvents", request)
        assert answer.total_count == len(answer.events)
        return [read.value for read in answer.events]

    assert await values() == [4, 3, 2, 1, 0]
    assert await values(limit=2) == [4, 3]
    assert await values(event_types=["odd"]) == [3, 1]
    assert await values(start_time=BASE + 1, end_time=BASE + 3) == [2, 1]
    assert await values(start_time=2**62) == []
    assert await values(end_time=-(2**62)) == []
    answer = await caller.ask("GetDeviceEvents", pb.DeviceEventsRequest(device_id=stored, limit=1))
    (newest,) = answer.events
    assert newest == event(
        stored, "even", 4, exact_value=4, unit="C", timestamp=BASE + 4, time_us=(BASE + 4) * 1_000_000
    )


async def test_what_cannot_be_asked_is_refused(caller: Caller, stored: str) -> None:
    cases = {
        grpc.StatusCode.NOT_FOUND: pb.DeviceEventsRequest(device_id=str(uuid4())),
        grpc.StatusCode.INVALID_ARGUMENT: pb.DeviceEventsRequest(device_id=stored, limit=-1),
    }
    for code, request in cases.items():
        assert await caller.refused("GetDeviceEvents", request) == code
    many = pb.DeviceEventsRequest(device_id=stored, event_types=[str(number) for number in range(101)])
    assert await caller.refused("GetDeviceEvents", many) == grpc.StatusCode.INVALID_ARGUMENT
    for text in ("", "no uuid"):
        status = pb.DeviceStatusRequest(device_id=text)
        assert await caller.refused("GetDeviceStatus", status) == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_status_tells_of_the_connection_and_the_newest_event(
    shared_core: Core, caller: Caller, device: Credentials, stored: str, database: Database
) -> None:
    request = pb.DeviceStatusRequest(device_id=stored)
    offline = await caller.ask("GetDeviceStatus", request)
    assert (offline.status, offline.node, offline.protocol, offline.remote_address) == ("offline", "", "", "")
    assert (offline.last_event.event_type, offline.last_event.value, offline.last_seen) == ("even", 4, BASE + 4)
    peer = await Peer.join(shared_core.port, device)
    online = await caller.ask("GetDeviceStatus", request)
    assert (online.status, online.protocol) == ("online", "hdp")
    assert online.node == (await caller.ask("GetNode", pb.NodeRequest())).name
    assert online.remote_address.startswith("127.0.0.1:")
    await peer.send("result", request_id="r", status=0)
    await peer.acked(1, {"type": "error", "value": 1.0})
    await until_in_thread(lambda: len(database.events_of(device.device_id)) == 7, "they are stored", seconds=60)
    failed = await caller.ask("GetDeviceStatus", request)
    assert (failed.status, failed.last_event.event_type) == ("error", "error")


async def test_without_the_database_what_is_asked_of_it_is_unavailable_and_the_rest_works(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    core = new_core()
    await core.started()
    peer = await Peer.join(core.port, device)
    with Caller(core) as caller:
        await database.kill()
        request = pb.DeviceEventsRequest(device_id=str(device.device_id))
        assert await caller.refused("GetDeviceEvents", request) == grpc.StatusCode.UNAVAILABLE
        node = await caller.ask("GetNode", pb.NodeRequest())
        assert (node.num_connected, bool(node.name), bool(node.run)) == (1, True, True)
        database.thaw()
        await database.ensure_running()
        assert list((await caller.ask("GetDeviceEvents", request)).events) == []
    await peer.close()
