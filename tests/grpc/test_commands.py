"""Commands: from a caller to a device's connection and back, with states that are true."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.ways import Way
from tests.faults.wire import Credentials, Form, Message, Peer
from tests.grpc.caller import Caller, Heard


def command(device: Credentials, request_id: str = "", **fields: Any) -> pb.DeviceCommand:
    return pb.DeviceCommand(device_id=str(device.device_id), command_type="open", request_id=request_id, **fields)


def commands(device: Credentials, request_ids: Sequence[str]) -> pb.DeviceCommands:
    return pb.DeviceCommands(commands=[command(device, request_id) for request_id in request_ids])


def states(messages: list[Any], request_id: str) -> list[str]:
    """What was heard of one command, by the names of the states."""
    return [pb.CommandState.Name(heard.state) for heard in messages if heard.request_id == request_id]


async def until_delivered(heard: Heard, count: int) -> None:
    """Wait until so many commands were written to their devices."""
    await heard.until(
        lambda messages: [m.state for m in messages].count(pb.DELIVERED) >= count, "commands are delivered"
    )


async def results_of(database: Database, device: Credentials, count: int) -> list[Any]:
    """Wait until so many results of a device are in the outbox; return their metadata in order."""
    select = (
        "select metadata from event_outbox where device_id = %s and event_type = 'command_result' and source = 'core'"
        " order by id"
    )
    found = await database.rows(select, [device.device_id], count, "results are stored", seconds=60)
    return [metadata for (metadata,) in found]


async def received(peer: Peer) -> Message:
    message = await peer.receive()
    assert message.name == "command", message
    return message


@pytest.mark.parametrize("transport", ["tcp", "ws"])
@pytest.mark.parametrize("form", ["frames", "json"])
async def test_a_command_reaches_its_device_and_the_result_its_caller(
    shared_core: Core, caller: Caller, device: Credentials, database: Database, form: Form, transport: str
) -> None:
    peer = await Way(shared_core, form, transport).join(device)
    params = Struct()
    params.update({"floor": 3, "level": 0.5, "names": ["a"], "deep": {"b": True}})
    deadline_us = int(time.time() + 60) * 1_000_000
    asked = asyncio.create_task(
        caller.ask("SendDeviceCommand", command(device, "r-1", typed_params=params, deadline_us=deadline_us))
    )
    heard = await received(peer)
    assert heard.fields == {
        "request_id": "r-1",
        "command_type": "open",
        "params": {"floor": 3, "level": 0.5, "names": ["a"], "deep": {"b": True}},
        "deadline_us": deadline_us,
    }
    assert isinstance(heard.fields["params"]["floor"], int)  # type: ignore[index]
    await peer.send("result", request_id="r-1", status=0, message="opened", data={"seconds": 2})
    answer = await asked
    assert (answer.success, answer.state, answer.status) == (True, pb.SUCCEEDED, 0)
    assert (answer.request_id, answer.message, dict(answer.data)) == ("r-1", "opened", {"seconds": 2})
    assert await results_of(database, device, 1) == [
        {"request_id": "r-1", "status": 0, "message": "opened", "data": {"seconds": 2}}
    ]
    stored = database.execute("select source, value from device_events where device_id = %s", [device.device_id])
    assert stored == [("core", None)]


async def test_a_device_that_cannot_says_so(shared_core: Core, caller: Caller, device: Credentials) -> None:
    peer = await Peer.join(shared_core.port, device)
    asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, params={"key": "text"})))
    heard = await received(peer)
    assert heard["params"] == {"key": "text"}
    await peer.send("result", request_id=heard["request_id"], status=17, message="jammed")
    answer = await asked
    assert (answer.success, answer.state, answer.status) == (False, pb.FAILED, 17)
    assert (answer.request_id, answer.message) == (heard["request_id"], "jammed")


async def test_progress_is_told_state_by_state_and_in_order(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    peer = await Peer.join(shared_core.port, device)
    ids = ["first", "second", "third"]
    with caller.listening("SendDeviceCommands", commands(device, ids)) as heard:
        assert [(await received(peer))["request_id"] for _ in ids] == ids
        for request_id, status in zip(reversed(ids), (0, 5, 0), strict=True):
            await peer.send("result", request_id=request_id, status=status)
        assert await heard.ended() == grpc.StatusCode.OK
    assert states(heard.messages, "first") == ["SENT", "DELIVERED", "SUCCEEDED"]
    assert states(heard.messages, "second") == ["SENT", "DELIVERED", "FAILED"]
    assert states(heard.messages, "third") == ["SENT", "DELIVERED", "SUCCEEDED"]


async def test_what_cannot_be_sent_says_why(caller: Caller, device: Credentials, gateway_child: Credentials) -> None:
    deep = Struct()
    deep.update({"a": [[[[[[[[[[[[[[[["too deep"]]]]]]]]]]]]]]]]})
    cases = [
        (command(device), pb.OFFLINE, ""),
        (pb.DeviceCommand(device_id=str(uuid4()), command_type="open"), pb.REJECTED, "unknown_device"),
        (pb.DeviceCommand(device_id="no uuid", command_type="open"), pb.REJECTED, "invalid_command"),
        (pb.DeviceCommand(device_id=str(device.device_id)), pb.REJECTED, "invalid_command"),
        (command(device, "x" * 65), pb.REJECTED, "invalid_command"),
        (command(device, typed_params=deep), pb.REJECTED, "invalid_command"),
        (command(device, params={"a": "x" * 9000}), pb.REJECTED, "invalid_command"),
        (command(device, params={"a": "\0"}), pb.REJECTED, "invalid_command"),
        (command(device, deadline_us=1), pb.REJECTED, "deadline_passed"),
        (command(gateway_child), pb.REJECTED, "through_gateway"),
    ]
    for sent, state, code in cases:
        answer = await caller.ask("SendDeviceCommand", sent)
        assert (answer.success, answer.state) == (False, state), answer
        assert answer.message.startswith(code), answer


async def test_a_deadline_ends_the_wait_and_a_late_result_is_kept(
    shared_core: Core, caller: Caller, device: Credentials, database: Database
) -> None:
    peer = await Peer.join(shared_core.port, device)
    soon = command(device, "late", deadline_us=int((time.time() + 2) * 1_000_000))
    with caller.listening("SendDeviceCommands", pb.DeviceCommands(commands=[soon])) as heard:
        await until_delivered(heard, 1)
        await received(peer)
        assert await heard.ended() == grpc.StatusCode.OK
    assert states(heard.messages, "late") == ["SENT", "DELIVERED", "TIMED_OUT"]
    await peer.send("result", request_id="late", status=0)
    assert await results_of(database, device, 1) == [{"request_id": "late", "status": 0}]


async def test_results_that_nobody_waits_for_change_nothing_and_are_kept(
    fleet: list[Credentials], shared_core: Core, caller: Caller, database: Database
) -> None:
    ours, other = fleet[:2]
    peer, stranger = await Peer.join(shared_core.port, ours), await Peer.join(shared_core.port, other)
    with caller.listening("SendDeviceCommands", commands(ours, ["ours"])) as heard:
        await until_delivered(heard, 1)
        await received(peer)
        await stranger.send("result", request_id="ours", status=9)
        await peer.send("result", request_id="nobody's", status=9)
        assert len(await results_of(database, other, 1)) == 1
        assert states(heard.messages, "ours") == ["SENT", "DELIVERED"]
        await peer.send("result", request_id="ours", status=0, message="first")
        await peer.send("result", request_id="ours", status=1, message="second")
        assert await heard.ended() == grpc.StatusCode.OK
    assert states(heard.messages, "ours") == ["SENT", "DELIVERED", "SUCCEEDED"]
    kept = [(result["request_id"], result["status"]) for result in await results_of(database, ours, 3)]
    assert kept == [("nobody's", 9), ("ours", 0), ("ours", 1)]


async def test_results_are_not_acknowledged_and_events_beside_them_are(
    shared_core: Core, device: Credentials, database: Database
) -> None:
    peer = await Peer.join(shared_core.port, device)
    for number in range(1, 200):
        await peer.send("result", request_id=f"r-{number}", status=0)
        if number % 50 == 0:
            await peer.acked(number // 50, {"type": "t", "value": 1.0})
    assert len(await results_of(database, device, 199)) == 199
    assert (await peer.ask("ping", nonce=7)).name == "pong"


async def test_a_result_too_large_for_the_database_is_kept_without_its_data(
    shared_core: Core, caller: Caller, device: Credentials, database: Database
) -> None:
    peer = await Peer.join(shared_core.port, device)
    asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "r")))
    await received(peer)
    await peer.send("result", request_id="r", status=0, message="m" * 5000, data={"text": "x" * 20_000})
    answer = await asked
    assert (answer.state, len(answer.message), len(answer.data)) == (pb.SUCCEEDED, 1000, 0)
    (kept,) = await results_of(database, device, 1)
    assert kept == {"request_id": "r", "status": 0, "message": "m" * 1000, "is_data_left_out": True}


async def test_a_connection_that_ends_leaves_no_command_waiting(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    older = await Peer.join(shared_core.port, device)
    with caller.listening("SendDeviceCommands", commands(device, ["a"])) as heard:
        await until_delivered(heard, 1)
        newer = await Peer.join(shared_core.port, device)
        assert await heard.ended() == grpc.StatusCode.OK
    assert states(heard.messages, "a") == ["SENT", "DELIVERED", "FAILED"]
    assert heard.messages[-1].status == 0
    assert (await older.everything())[-1]["code"] == "superseded"
    asked = asyncio.create_task(caller.ask("SendDeviceCommand", command(device, "b")))
    assert (await received(newer))["request_id"] == "b"
    newer.abort()
    answer = await asked
    assert (answer.state, answer.status) == (pb.FAILED, 0)


async def test_a_command_asked_for_again_is_sent_once(shared_core: Core, caller: Caller, device: Credentials) -> None:
    peer = await Peer.join(shared_core.port, device)
    with caller.listening("SendDeviceCommands", commands(device, ["once"])) as first:
        await until_delivered(first, 1)
        with caller.listening("SendDeviceCommands", commands(device, ["once"])) as second:
            await until_delivered(second, 1)
            assert (await received(peer))["request_id"] == "once"
            assert (await peer.ask("ping", nonce=1)).name == "pong"
            await peer.send("result", request_id="once", status=0)
            assert (await first.ended(), await second.ended()) == (grpc.StatusCode.OK, grpc.StatusCode.OK)
    for heard in (first, second):
        assert states(heard.messages, "once") == ["SENT", "DELIVERED", "SUCCEEDED"]
    again = await caller.ask("SendDeviceCommand", command(device, "once"))
    assert again.state == pb.SUCCEEDED
    assert (await peer.ask("ping", nonce=2)).name == "pong"


async def test_what_waits_for_one_device_is_bounded(shared_core: Core, caller: Caller, device: Credentials) -> None:
    peer = await Peer.join(shared_core.port, device)
    ids = [f"r-{number}" for number in range(80)]
    with caller.listening("SendDeviceCommands", commands(device, ids)) as heard:
        await until_delivered(heard, 64)
        refused = [m for m in heard.messages if m.state == pb.REJECTED]
        assert [m.request_id for m in refused] == ids[64:]
        assert all(m.message.startswith("queue_full") for m in refused)
        for request_id in ids[:64]:
            await peer.send("result", request_id=request_id, status=0)
        assert await heard.ended() == grpc.StatusCode.OK
    too_many = commands(device, [str(number) for number in range(1001)])
    with caller.listening("SendDeviceCommands", too_many) as heard:
        assert await heard.ended() == grpc.StatusCode.INVALID_ARGUMENT
    with caller.listening("SendDeviceCommands", pb.DeviceCommands()) as heard:
        assert await heard.ended() == grpc.StatusCode.OK


async def test_a_node_that_stops_ends_what_waits_and_keeps_results(
    new_core: NewCore, fleet: list[Credentials], database: Database
) -> None:
    core = new_core()
    await core.started()
    peers = [await Peer.join(core.port, device) for device in fleet[:3]]
    with Caller(core) as caller:
        many = [command(device, f"r-{place}") for place, device in enumerate(fleet[:3])]
        with caller.listening("SendDeviceCommands", pb.DeviceCommands(commands=many)) as heard:
            await until_delivered(heard, 3)
            await received(peers[0])
            await peers[0].send("result", request_id="r-0", status=0)
            await heard.until(lambda messages: "SUCCEEDED" in states(messages, "r-0"), "the first is done")
            assert await core.stop() == 0
            assert await heard.ended() == grpc.StatusCode.OK
    assert states(heard.messages, "r-1") == ["SENT", "DELIVERED", "FAILED"]
    assert states(heard.messages, "r-2") == ["SENT", "DELIVERED", "FAILED"]
    assert await results_of(database, fleet[0], 1) == [{"request_id": "r-0", "status": 0}]


async def test_a_result_that_was_given_survives_a_kill(
    new_core: NewCore, device: Credentials, database: Database
) -> None:
    core = new_core()
    await core.started()
    peer = await Peer.join(core.port, device)
    await database.kill()
    await peer.send("result", request_id="kept", status=3)
    # An event that comes after it is acknowledged after it is durable.
    await peer.acked(1, {"type": "t", "value": 1.0})
    await core.kill()
    await database.ensure_running()
    await core.started()
    assert await results_of(database, device, 1) == [{"request_id": "kept", "status": 3}]
