"""Commands to polled devices: a value is written, read back, and the states say what is known of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from pymodbus.constants import ExcCodes

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import lasting
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.slaves import LOCAL, Slaves, definition, give_profile, newest_value, register
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller
from tests.grpc.test_commands import results_of, states

REGISTERS = [
    register("setpoint", 0, "i16", scale=0.1, writable=True),
    register("limit", 2, "u32", word_order="little", writable=True),
    register("relay", 100 * 16 + 3, "bool", function=1, writable=True),
    register("power", 9),
]
POINTS = [{"key": "setpoint", "unit": "C", "min": 5, "max": 30}]


@pytest.fixture(scope="module")
def polling_core(cluster: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """A core that may connect to this machine."""
    core = Core(tmp_path_factory.mktemp("polling-core") / "core", cluster.url, modbus_lease_s=4, **LOCAL)
    with lasting(core, cluster):
        yield core


@pytest.fixture
def caller(polling_core: Core) -> Iterator[Caller]:
    """A caller of that core."""
    with Caller(polling_core) as made:
        yield made


@pytest.fixture(params=["tcp", "rtu_over_tcp"])
async def slaves(
    request: pytest.FixtureRequest, polling_core: Core, database: Database, device: Credentials
) -> AsyncIterator[Slaves]:
    """A slave that is polled as the test's device, and has answered."""
    assert polling_core.is_running
    async with Slaves(framing=request.param) as made:
        give_profile(database, device, definition(REGISTERS, POINTS), made.address())
        await newest_value(database, device, "power", 0)
        yield made
        database.execute("update devices set modbus = null where modbus is not null")


def write(device: Credentials, point: str, value: float | str, request_id: str = "r") -> pb.DeviceCommand:
    params = Struct()
    params.update({"point": point, "value": value})
    return pb.DeviceCommand(
        device_id=str(device.device_id), command_type="write", request_id=request_id, typed_params=params
    )


async def asked(caller: Caller, command: pb.DeviceCommand) -> tuple[str, int, str, dict[str, Any]]:
    """Return state, status, message and data of a command's end."""
    answer = await caller.ask("SendDeviceCommand", command)
    return pb.CommandState.Name(answer.state), answer.status, answer.message, dict(answer.data)


async def test_a_value_is_written_and_read_back(
    slaves: Slaves, caller: Caller, database: Database, device: Credentials
) -> None:
    commands = pb.DeviceCommands(
        commands=[
            write(device, "setpoint", 21.5, "r-1"),
            write(device, "limit", 65_538, "r-2"),
            write(device, "relay", True, "r-3"),
        ]
    )
    with caller.listening("SendDeviceCommands", commands) as heard:
        await heard.ended()
    for request_id in ("r-1", "r-2", "r-3"):
        assert states(heard.messages, request_id) == ["SENT", "DELIVERED", "SUCCEEDED"]
    assert (slaves[1].words[0], slaves[1].words[2:4], slaves[1].words[100]) == (215, [2, 1], 0b1000)
    assert await results_of(database, device, 3) == [
        {"request_id": "r-1", "status": 0, "data": {"point": "setpoint", "value": 21.5, "raw": 215}},
        {"request_id": "r-2", "status": 0, "data": {"point": "limit", "value": 65_538.0, "raw": 65_538}},
        {"request_id": "r-3", "status": 0, "data": {"point": "relay", "value": True, "raw": True}},
    ]
    writes = [request for request in slaves[1].requests if request[0] in (5, 6, 16)]
    assert [function for function, _, _ in writes] == [6, 16, 5]
    await newest_value(database, device, "setpoint", 21.5)


async def test_what_the_device_did_instead_is_told(slaves: Slaves, caller: Caller, device: Credentials) -> None:
    slaves[1].is_deaf = True
    state, status, message, data = await asked(caller, write(device, "setpoint", 20, "r-1"))
    assert (state, status, data) == ("FAILED", 256, {"point": "setpoint", "value": 0, "raw": 0})
    assert "another value" in message
    slaves[1].refused_functions = {6: ExcCodes.DEVICE_FAILURE}
    state, status, message, _ = await asked(caller, write(device, "setpoint", 20, "r-2"))
    assert (state, status, message) == ("FAILED", 4, "exception 4: server device failure")
    slaves[1].is_deaf = False
    slaves[1].refused_functions = {6: ExcCodes.ILLEGAL_FUNCTION}
    assert (await asked(caller, write(device, "setpoint", 20, "r-3")))[:2] == ("SUCCEEDED", 0)
    assert slaves[1].words[0] == 200


@pytest.mark.parametrize(
    ("point", "value", "why"),
    [
        ("power", 1, "not writable"),
        ("heat", 1, "no registers"),
        ("setpoint", 31, "limits"),
        ("limit", -1, "does not fit"),
        ("relay", "on", "no value"),
    ],
)
async def test_what_cannot_be_written_is_not(
    slaves: Slaves, caller: Caller, device: Credentials, point: str, value: float | str, why: str
) -> None:
    state, status, message, _ = await asked(caller, write(device, point, value))
    assert (state, status) == ("FAILED", 258)
    assert why in message
    assert "nothing was written" in message
    assert not [request for request in slaves[1].requests if request[0] in (5, 6, 16)]


async def test_who_does_not_answer_may_have_done_it(
    slaves: Slaves, caller: Caller, database: Database, device: Credentials
) -> None:
    slaves[1].is_silent = True
    state, status, message, _ = await asked(caller, write(device, "setpoint", 20))
    assert (state, status) in [("FAILED", 0), ("OFFLINE", 0)]
    if state == "FAILED":
        assert "may have done it" in message

    def is_offline() -> bool:
        command = write(device, "setpoint", 20, "later")
        answer = caller.stub.SendDeviceCommand(command, timeout=30, metadata=caller.metadata)
        return bool(answer.state == pb.OFFLINE)

    def num_writes() -> int:
        return len([request for request in slaves[1].requests if request[0] == 6])

    await until_in_thread(is_offline, "it counts as gone after some polls", seconds=30)
    written = num_writes()
    assert await asyncio.to_thread(is_offline)
    assert num_writes() == written
    slaves[1].is_silent = False
    slaves[1].words[9] = 5
    await newest_value(database, device, "power", 5)
    assert (await asked(caller, write(device, "setpoint", 20, "at last")))[0] == "SUCCEEDED"


async def test_a_polled_device_is_connected_while_it_answers(
    slaves: Slaves, caller: Caller, device: Credentials
) -> None:
    def is_online() -> bool:
        request = pb.DeviceStatusRequest(device_id=str(device.device_id))
        answer = caller.stub.GetDeviceStatus(request, timeout=10, metadata=caller.metadata)
        return bool(answer.protocol)

    await until_in_thread(is_online, "it is connected")
    await slaves.stop()
    await until_in_thread(lambda: not is_online(), "it is not any more")
    await slaves.start()
    await until_in_thread(is_online, "it is again", seconds=30)
    await until(lambda: slaves.num_connections == 1, "over one connection")
