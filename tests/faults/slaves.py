"""Modbus slaves, by pymodbus: a server with slaves behind it whose registers and behaviour tests change while they are asked."""

import asyncio
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self
from uuid import UUID, uuid4

from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from hse.domain.devices.profile_formats import checked_definition
from hse.embedded.ports import free_ports
from tests.faults.conditions import until_in_thread
from tests.faults.database import Database
from tests.faults.wire import Credentials

# A core that may connect to this machine, and does not wait long for a slave.
LOCAL = {"modbus_networks": "127.0.0.0/8", "modbus_timeout_ms": 400}
NUM_WORDS = 200
BIT_FUNCTIONS = (1, 2, 5, 15)
WRITING_FUNCTIONS = (5, 6, 15, 16)


@dataclass(slots=True)
class Slave:
    """One slave: its words, from address 0 on, which all functions share; coil n is bit n % 16 of word n // 16."""

    words: list[int] = field(default_factory=lambda: [0] * NUM_WORDS)
    # (function, address, number of addresses), in order; of bits the number is that of the words they lie in.
    requests: list[tuple[int, int, int]] = field(default_factory=list)
    is_silent: bool = False
    # A request that touches one of these addresses is refused.
    refused_addresses: set[int] = field(default_factory=set)
    refused_functions: dict[int, ExcCodes] = field(default_factory=dict)
    is_deaf: bool = False
    """Says that it has written, and has not."""
    counts_reads: bool = False
    """Word 0 is how often the slave was read."""

    def put(self, address: int, form: str, value: float) -> None:
        """Write a value, as `struct` has it: `>f` is a float of two words."""
        packed = struct.pack(form, value)
        self.words[address : address + len(packed) // 2] = struct.unpack(f">{len(packed) // 2}H", packed)

    def reads(self) -> list[tuple[int, int, int]]:
        """Return the requests that read."""
        return [request for request in self.requests if request[0] not in WRITING_FUNCTIONS]

    async def answer(
        self, function: int, _start: int, address: int, count: int, registers: list[int], values: Sequence[Any] | None
    ) -> ExcCodes | None:
        """Stand behind a request of pymodbus's server, which goes on with `registers`."""
        if function in WRITING_FUNCTIONS and values is None:
            # The server looks at what it has written, for its reply.
            return None
        self.requests.append((function, address, count))
        if self.is_silent:
            await asyncio.Event().wait()
        if function in self.refused_functions:
            return self.refused_functions[function]
        if self.refused_addresses & set(range(address, address + count)):
            return ExcCodes.ILLEGAL_ADDRESS
        if values is not None and not self.is_deaf:
            self._write(function, address, values)
        if values is None and self.counts_reads:
            self.words[0] += 1
        registers[:] = self.words
        return None

    def _write(self, function: int, address: int, values: Sequence[Any]) -> None:
        if function not in BIT_FUNCTIONS:
            self.words[address : address + len(values)] = [int(value) for value in values]
            return
        for place, value in enumerate(values, address):
            mask = 1 << place % 16
            word = self.words[place // 16]
            self.words[place // 16] = word | mask if value else word & ~mask


class Slaves:
    """A server on one port, with slaves by their unit ids."""

    def __init__(self, unit_ids: Iterable[int] = (1,), framing: str = "tcp") -> None:
        self.framing = framing
        self.port = free_ports(1)[0]
        self.slaves = {unit_id: Slave() for unit_id in unit_ids}
        self.num_connections = 0
        self.num_connections_most = 0
        self._server: ModbusTcpServer | None = None

    def __getitem__(self, unit_id: int) -> Slave:
        return self.slaves[unit_id]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on the port that stays the same."""
        devices = [
            SimDevice(
                id=unit_id,
                simdata=[SimData(0, values=[0] * NUM_WORDS, datatype=DataType.REGISTERS)],
                use_bit_addressing=True,
                action=slave.answer,
            )
            for unit_id, slave in self.slaves.items()
        ]
        self._server = ModbusTcpServer(
            devices,
            framer=FramerType.RTU if self.framing == "rtu_over_tcp" else FramerType.SOCKET,
            address=("127.0.0.1", self.port),
            trace_connect=self._note_connection,
        )
        await self._server.serve_forever(background=True)

    async def stop(self) -> None:
        """Close the port and what is connected to it."""
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call]
            self._server = None

    def _note_connection(self, is_begun: bool) -> None:
        self.num_connections += 1 if is_begun else -1
        self.num_connections_most = max(self.num_connections_most, self.num_connections)

    def address(self, unit_id: int = 1) -> dict[str, object]:
        """Return what a device's `modbus` is, when it is this slave."""
        return {"host": "127.0.0.1", "port": self.port, "unit_id": unit_id, "framing": self.framing}


def register(point: str, address: int, kind: str = "u16", *, function: int = 3, **fields: Any) -> dict[str, object]:
    """Return an entry of a register map."""
    return {"point": point, "function": function, "address": address, "type": kind, **fields}


def definition(
    registers: Sequence[dict[str, object]], points: Sequence[dict[str, object]] = (), **fields: object
) -> tuple[str, str]:
    """Return the points and the format of a profile, as the control plane keeps them; points that are not given are made."""
    given = {str(point["key"]): point for point in points}
    made = [
        given.get(
            str(entry["point"]), {"key": entry["point"], "type": "boolean" if entry["type"] == "bool" else "number"}
        )
        for entry in registers
    ]
    kept = checked_definition(
        made, {"kind": "modbus", "poll_interval_ms": 200, **fields, "registers": list(registers)}, None
    )
    return json.dumps(kept.points), json.dumps(kept.format)


class Executes(Protocol):
    """What runs a statement in a transaction of its own."""

    def execute(self, statement: str, parameters: list[object] | None = None) -> object:
        """Run it."""


def give_profile(
    database: Executes,
    device: Credentials,
    defined: tuple[str, str],
    address: dict[str, object],
    *,
    keeps_token: bool = False,
) -> UUID:
    """Have a device polled at an address, by a profile of its own; without a token, unless told. Return the profile's id."""
    profile = uuid4()
    database.execute(
        "insert into device_profiles (id, organization_id, name, points, format)"
        " select %s, organization_id, %s, %s, %s from devices where id = %s",
        [profile, str(profile), *defined, device.device_id],
    )
    database.execute(
        "update devices set profile_id = %s, modbus = %s, token_hash = case when %s then token_hash end where id = %s",
        [profile, json.dumps(address), keeps_token, device.device_id],
    )
    return profile


def change_profile(database: Executes, profile: UUID, defined: tuple[str, str]) -> None:
    """Change what a profile says."""
    database.execute("update device_profiles set points = %s, format = %s where id = %s", [*defined, profile])


Row = tuple[object, ...]


async def told(database: Database, device: Credentials, holds: object = None, count: int = 1) -> list[Row]:
    """Wait until so many events of a device are stored; return type, value, unit, metadata and source of each, by time."""
    select = (
        "select event_type, value, unit, metadata, source from device_events"
        " where device_id = %s and (%s::text is null or event_type = %s) order by time, event_type"
    )
    parameters: list[object] = [device.device_id, holds, holds]
    return await database.rows(select, parameters, count, f"{count} events are stored", seconds=20)


async def newest_value(database: Database, device: Credentials, point: str, value: float) -> None:
    """Wait until this is what a point was told to be last."""
    select = "select value from device_events where device_id = %s and event_type = %s order by time desc limit 1"
    await until_in_thread(
        lambda: database.execute(select, [device.device_id, point]) == [(value,)], f"{point} is {value}", seconds=20
    )
