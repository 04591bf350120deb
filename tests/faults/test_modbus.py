"""Devices that are polled: what is read becomes events, and neither the dead nor the killed cost anybody else anything."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import msgpack
import pytest
from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerRTU

from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import lasting
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.slaves import (
    LOCAL,
    Slaves,
    change_profile,
    definition,
    give_profile,
    newest_value,
    register,
    told,
)
from tests.faults.wire import Credentials, Peer

pytestmark = pytest.mark.usefixtures("polling_core")
both_framings = pytest.mark.parametrize("framing", ["tcp", "rtu_over_tcp"])
ORDERS = {"ABCD": ("big", "big"), "CDAB": ("big", "little"), "BADC": ("little", "big"), "DCBA": ("little", "little")}


@pytest.fixture(scope="module")
def polling_core_process(cluster: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """One core for the small tests, which may connect to this machine."""
    core = Core(tmp_path_factory.mktemp("polling-core") / "core", cluster.url, modbus_lease_s=3, **LOCAL)
    with lasting(core, cluster):
        yield core


@pytest.fixture
async def polling_core(polling_core_process: Core, database: Database) -> AsyncIterator[Core]:
    """The module's core; after the test it has nothing to poll."""
    yield polling_core_process
    await asyncio.to_thread(database.execute, "update devices set modbus = null where modbus is not null")


@both_framings
async def test_values_of_every_type_and_order_are_told(database: Database, device: Credentials, framing: str) -> None:
    kinds = {
        "u16": (">H", 65_535),
        "i16": (">h", -2),
        "u32": (">I", 4_000_000_000),
        "i32": (">i", -70_000),
        "f32": (">f", 21.5),
    }
    wide = {"u64": (">Q", 1 << 40), "i64": (">q", -(1 << 40)), "f64": (">d", -0.125)}
    async with Slaves(framing=framing) as slaves:
        registers: list[dict[str, object]] = []
        expected: dict[str, float] = {}
        for place, (kind, (form, value)) in enumerate((kinds | wide).items()):
            slaves[1].put(place * 5, form, value)
            registers.append(register(kind, place * 5, kind, function=4))
            expected[kind] = value
        for place, (letters, (byte_order, word_order)) in enumerate(ORDERS.items(), 20):
            raw = bytes("ABCD".index(letter) + 1 for letter in letters)
            slaves[1].put(place * 5, ">I", int.from_bytes(raw, "big"))
            registers.append(register(letters, place * 5, "u32", byte_order=byte_order, word_order=word_order))
            expected[letters] = 0x01020304
        slaves[1].words[150] = 0b100
        registers += [register("coil", 150 * 16 + 2, "bool", function=1), register("off", 150 * 16, "bool", function=2)]
        expected |= {"coil": 1, "off": 0}
        give_profile(database, device, definition(registers), slaves.address())
        rows = (await told(database, device, count=len(expected)))[: len(expected)]
    assert {row[0]: row[1] for row in rows} == expected
    assert {row[4] for row in rows} == {"modbus"}


async def test_a_value_is_scaled_and_a_counter_keeps_what_it_shows(database: Database, device: Credentials) -> None:
    async with Slaves() as slaves:
        slaves[1].put(7, ">I", 123_456)
        slaves[1].put(20, ">h", -40)
        points: list[dict[str, object]] = [
            {"key": "energy", "unit": "kWh", "counter": {"kind": "modulus", "modulus": 1_000_000}},
            {"key": "outside", "unit": "C", "min": -30, "max": 60},
        ]
        registers = [
            register("energy", 7, "u32", scale=0.5),
            register("outside", 20, "i16", scale=1, offset=-0.5, deadband=2),
        ]
        give_profile(database, device, definition(registers, points), slaves.address())
        energy = (await told(database, device, "energy"))[0]
        assert energy == ("energy", 61_728.0, "kWh", {"raw": 123_456}, "modbus")
        outside = ("outside", -40.5, "C", {"quality": "implausible"}, "modbus")
        assert await told(database, device, "outside") == [outside]
        slaves[1].put(20, ">h", -39)
        read = len(slaves[1].reads())
        await until(lambda: len(slaves[1].reads()) > read + 5, "it is read again")
        slaves[1].put(20, ">h", 10)
        await newest_value(database, device, "outside", 9.5)
        assert [row[1] for row in await told(database, device, "outside")] == [-40.5, 9.5]


async def test_a_counter_keeps_what_no_float_can_hold(database: Database, device: Credentials) -> None:
    raws = {"u64": (">Q", 2**64 - 1), "i64": (">q", 1 - 2**63), "odd": (">Q", 2**53 + 1)}
    async with Slaves() as slaves:
        for place, (form, raw) in enumerate(raws.values()):
            slaves[1].put(place * 4, form, raw)
        points: list[dict[str, object]] = [{"key": key, "counter": {"kind": "resets"}} for key in raws]
        registers = [
            register(key, place * 4, "i64" if key == "i64" else "u64", scale=0.5) for place, key in enumerate(raws)
        ]
        give_profile(database, device, definition(registers, points), slaves.address())
        rows = {row[0]: row for row in await told(database, device, count=3)}
    for key, (_, raw) in raws.items():
        assert rows[key] == (key, float(raw) * 0.5, None, {"raw": raw}, "modbus")


async def test_registers_that_lie_near_each_other_are_asked_for_together(
    database: Database, device: Credentials
) -> None:
    registers = [register("a", 0), register("b", 3, "f32"), register("c", 40), register("d", 3, function=4)]
    async with Slaves() as slaves:
        give_profile(database, device, definition(registers, request_gap_max=5), slaves.address())
        await told(database, device, count=8)
        assert set(slaves[1].reads()) == {(3, 0, 5), (3, 40, 1), (4, 3, 1)}
        assert slaves.num_connections_most == 1


async def test_an_exception_is_told_of_the_register_that_has_it(database: Database, device: Credentials) -> None:
    async with Slaves() as slaves:
        slaves[1].refused_addresses = {1}
        slaves[1].words[:3] = [5, 6, 7]
        registers = [register("a", 0, deadband=1), register("b", 1), register("c", 2, deadband=1)]
        give_profile(database, device, definition(registers), slaves.address())
        rows = await told(database, device, count=3)
        quality = {"quality": "exception", "exception": 2, "reason": "illegal data address"}
        assert sorted(rows) == [
            ("a", 5.0, None, None, "modbus"),
            ("b", None, None, quality, "modbus"),
            ("c", 7.0, None, None, "modbus"),
        ]
        await until(lambda: len(slaves[1].reads()) > 12, "it is asked again")
        assert slaves[1].reads()[0] == (3, 0, 3)
        assert set(slaves[1].reads()[1:]) == {(3, 0, 1), (3, 1, 1), (3, 2, 1)}
        assert len(await told(database, device, count=3)) == 3
        slaves[1].refused_addresses = set()
        await newest_value(database, device, "b", 6)


async def test_what_is_no_value_is_a_dead_letter_once(database: Database, device: Credentials) -> None:
    async with Slaves() as slaves:
        slaves[1].put(4, ">f", float("nan"))
        give_profile(database, device, definition([register("power", 4, "f32")]), slaves.address())
        select = "select code, reason, event from dead_letters where device_id = %s"
        parameters: list[object] = [device.device_id]
        await until_in_thread(lambda: database.execute(select, parameters), "it is kept", seconds=20)
        await until(lambda: len(slaves[1].reads()) > 5, "it is read again")
        slaves[1].put(4, ">f", 1.5)
        await newest_value(database, device, "power", 1.5)
        ((code, reason, event),) = database.execute(select, parameters)
        assert (code, reason) == ("bad_payload", 'point "power": the registers hold NaN, which is no value')
        kept = msgpack.unpackb(event)[4]
        assert (kept["topic"], kept["payload"]) == ("modbus/3/4", b"\x7f\xc0\x00\x00")


async def test_an_endpoint_that_is_away_delays_no_other(database: Database, fleet: list[Credentials]) -> None:
    defined = definition([register("a", 0)], poll_interval_ms=100)
    nobody = Slaves()
    async with Slaves() as slaves:
        for device in fleet[1:]:
            give_profile(database, device, defined, {**nobody.address(), "port": nobody.port})
        give_profile(database, fleet[0], defined, slaves.address())
        rows = await told(database, fleet[0], count=10)
        assert len(rows) >= 10
        for device in fleet[1:]:
            assert not database.events_of(device.device_id)
        # It comes back, and is found.
        nobody.slaves[1].words[0] = 7
        await nobody.start()
        await newest_value(database, fleet[1], "a", 7)
        await nobody.stop()


@both_framings
async def test_a_connection_that_breaks_is_made_anew(database: Database, device: Credentials, framing: str) -> None:
    slaves = Slaves(framing=framing)
    await slaves.start()
    give_profile(database, device, definition([register("a", 0)]), slaves.address())
    for value in (1, 2, 3):
        slaves[1].words[0] = value
        await newest_value(database, device, "a", value)
        await slaves.stop()
        await slaves.start()
    await slaves.stop()


async def test_a_late_reply_is_not_taken_for_that_of_the_next_request(database: Database, device: Credentials) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say the number of the connection; on the first one too late."""
        connections.append(writer)
        number = len(connections)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while request := await reader.readexactly(8):
                if number == 1:
                    await asyncio.sleep(0.6)
                reply = request[:2] + b"\x02" + number.to_bytes(2, "big")
                writer.write(reply + FramerRTU.compute_CRC(reply).to_bytes(2, "big"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # RTU frames have no number by which a reply could be told from another.
    address = {"host": "127.0.0.1", "port": port, "unit_id": 1, "framing": "rtu_over_tcp"}
    give_profile(database, device, definition([register("a", 0)]), address)
    rows = await told(database, device, count=5)
    server.close()
    for writer in connections:
        writer.close()
    await server.wait_closed()
    assert {row[1] for row in rows} == {2.0}


async def test_a_changed_profile_and_a_changed_address_take_effect_at_once(
    database: Database, device: Credentials
) -> None:
    async with Slaves((1, 9)) as first, Slaves() as second:
        first[1].words[:2], first[9].words[0], second[1].words[0] = [10, 20], 30, 40
        profile = give_profile(database, device, definition([register("a", 0)]), first.address())
        await newest_value(database, device, "a", 10)
        change_profile(database, profile, definition([register("a", 1, scale=2)]))
        await newest_value(database, device, "a", 40)
        change_profile(database, profile, definition([register("a", 0)]))
        for slaves, unit_id, value in ((first, 9, 30), (second, 1, 40)):
            database.execute(
                "update devices set modbus = %s where id = %s", [json.dumps(slaves.address(unit_id)), device.device_id]
            )
            await newest_value(database, device, "a", value)
        database.execute("update devices set is_enabled = false where id = %s", [device.device_id])
        await until(lambda: not first.num_connections and not second.num_connections, "nobody is asked any more")


async def test_a_device_that_connects_by_itself_is_not_polled_meanwhile(
    polling_core: Core, database: Database, fleet: list[Credentials]
) -> None:
    defined = definition([register("a", 0)], poll_interval_ms=100)
    other, device = fleet[:2]
    async with Slaves((1, 2)) as slaves:
        give_profile(database, other, defined, slaves.address(1))
        give_profile(database, device, defined, slaves.address(2), keeps_token=True)
        await told(database, device)
        peer = await Peer.dial(polling_core.port)
        assert (await peer.ask("hello", **device.hello())).name == "welcome"
        asked, others = len(slaves[2].requests), len(slaves[1].requests)
        await until(lambda: len(slaves[1].requests) > others + 20, "others are polled on")
        assert len(slaves[2].requests) <= asked + 1
        await peer.close()


REFUSED_CODES = [ExcCodes.DEVICE_BUSY, ExcCodes.DEVICE_FAILURE]


@pytest.mark.parametrize("code", REFUSED_CODES)
async def test_a_device_that_is_busy_is_told_to_be_so(database: Database, device: Credentials, code: ExcCodes) -> None:
    async with Slaves() as slaves:
        slaves[1].refused_functions = {3: code}
        give_profile(database, device, definition([register("a", 0), register("b", 1)]), slaves.address())
        rows = await told(database, device, count=2)
        assert [(row[0], row[1], row[3]["exception"]) for row in rows] == [("a", None, code), ("b", None, code)]  # type: ignore[index]
        assert set(slaves[1].reads()) == {(3, 0, 2)}
