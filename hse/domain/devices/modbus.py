"""Modbus in a device profile, which registers there are, and in a device, where it answers.

Addresses are those of the wire, from 0 on: what a manual calls 40001 is function 3, address 0. In the letters that other systems
use, byte and word order are ABCD: big, big; CDAB: big, little (the low word first); BADC: little, big; DCBA: little, little.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from hse.domain.devices.entries import Entry, Number, entries_of, entry_of
from hse.domain.devices.profile_points import Point
from hse.domain.devices.profile_values import Scaling, point_of, scaling_of
from hse.domain.errors import Invalid

REGISTERS_MAX: Final = 500
ADDRESS_MAX: Final = 65_535
POLL_INTERVAL_MS_MIN: Final = 100
POLL_INTERVAL_MS_MAX: Final = 24 * 3600 * 1000
POLL_INTERVAL_MS: Final = 1000
# Of each type the number of registers; a coil or a discrete input is one bit, at one address.
NUM_REGISTERS: Final[Mapping[str, int]] = {
    "bool": 1,
    "u16": 1,
    "i16": 1,
    "u32": 2,
    "i32": 2,
    "f32": 2,
    "u64": 4,
    "i64": 4,
    "f64": 4,
}
ORDERS: Final = ("big", "little")
BITS_OF: Final = {1: "coils", 2: "discrete inputs"}
WRITABLE_FUNCTIONS: Final = (1, 3)
# So many registers does a reply hold; a coil counts for a sixteenth of one.
REQUEST_REGISTERS_MAX: Final = 125
# Registers of no point that a request may read between two that are.
REQUEST_GAP_MAX: Final = 16
FORMAT_FIELDS: Final = ("kind", "poll_interval_ms", "request_registers_max", "request_gap_max", "registers")
REGISTER_FIELDS: Final = (
    "point",
    "function",
    "address",
    "type",
    "byte_order",
    "word_order",
    "scale",
    "offset",
    "unit",
    "deadband",
    "writable",
)

ADDRESS_FIELDS: Final = ("host", "port", "unit_id", "framing")
FRAMINGS: Final = ("tcp", "rtu_over_tcp")
HOST_CHARS_MAX: Final = 253
LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def checked_modbus(entry: Entry, points: Mapping[str, Point]) -> dict[str, object]:
    """The format of the kind `modbus`, with every field there. Raises `Invalid`, which names the entry."""
    place = entry.at("registers")
    registers = entries_of(place, entry.values.get("registers"), REGISTER_FIELDS, REGISTERS_MAX)
    if not registers:
        raise Invalid(place, "names at least one register: without any there is nothing to poll")
    read: dict[str, str] = {}
    return {
        "kind": "modbus",
        "poll_interval_ms": entry.whole(
            "poll_interval_ms", POLL_INTERVAL_MS_MIN, POLL_INTERVAL_MS_MAX, default=POLL_INTERVAL_MS
        ),
        "request_registers_max": entry.whole(
            "request_registers_max", 1, REQUEST_REGISTERS_MAX, default=REQUEST_REGISTERS_MAX
        ),
        "request_gap_max": entry.whole("request_gap_max", 0, REQUEST_REGISTERS_MAX, default=REQUEST_GAP_MAX),
        "registers": [_register(one, points, read) for one in registers],
    }


def checked_address(given: object) -> dict[str, object]:
    """Where a device answers, with every field there and the host in canonical form: `{"host", "port", "unit_id", "framing"}`.

    `unit_id` is the slave's number behind that port. Raises `Invalid`, whose field names the value: `modbus.port`. A host that is
    the polling machine, its link or nobody is refused here; what a name leads to is known only when it is looked up, so who
    connects must look at that again.
    """
    entry = entry_of("modbus", given, ADDRESS_FIELDS)
    unit_id, framing = entry.whole("unit_id", 0, 255, default=1), entry.choice("framing", FRAMINGS, default="tcp")
    if unit_id == 0 and framing == "rtu_over_tcp":
        raise entry.refuse("unit_id", "0 is for all slaves of a serial line at once, and none answers: name one")
    return {
        "host": _host(entry),
        "port": entry.whole("port", 1, 65_535, default=502),
        "unit_id": unit_id,
        "framing": framing,
    }


def _register(entry: Entry, points: Mapping[str, Point], read: dict[str, str]) -> dict[str, object]:
    point = point_of(entry, points, read)
    function = entry.whole("function", 1, 4)
    address = entry.whole("address", 0, ADDRESS_MAX)
    kind = entry.choice("type", tuple(NUM_REGISTERS))
    _check_type(entry, point, function, kind)
    if address + NUM_REGISTERS[kind] > ADDRESS_MAX + 1:
        raise entry.refuse(
            "address", f"{kind} has {NUM_REGISTERS[kind]} registers, the last of which would be beyond 65535"
        )
    is_writable = entry.truth("writable", default=False)
    if is_writable and function not in WRITABLE_FUNCTIONS:
        raise entry.refuse(
            "writable", f"function {function} only reads: coils (1) and holding registers (3) can be written"
        )
    scaling = scaling_of(entry, point)
    return {
        "point": point.key,
        "function": function,
        "address": address,
        "type": kind,
        "byte_order": entry.choice("byte_order", ORDERS, default="big"),
        "word_order": entry.choice("word_order", ORDERS, default="big"),
        **scaling.as_json(),
        "deadband": _deadband(entry, point, scaling),
        "writable": is_writable,
    }


def _check_type(entry: Entry, point: Point, function: int, kind: str) -> None:
    if function in BITS_OF and kind != "bool":
        raise entry.refuse("type", f"function {function} reads {BITS_OF[function]}, which are single bits: write bool")
    wanted = "boolean" if kind == "bool" else "number"
    if point.type != wanted:
        raise entry.refuse("type", f"{kind} fits a point of the type {wanted}, and {point.key!r} is {point.type}")


def _deadband(entry: Entry, point: Point, scaling: Scaling) -> Number:
    deadband = entry.number("deadband", default=0)
    if deadband < 0:
        raise entry.refuse("deadband", f"is 0 or more{'' if scaling.unit is None else f', in {scaling.unit}'}")
    if deadband and point.type != "number":
        raise entry.refuse("deadband", f"is for numbers, and {point.key!r} is {point.type}: leave it out")
    return deadband


def _host(entry: Entry) -> str:
    host = entry.text("host", HOST_CHARS_MAX).lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        # A last label that begins with a digit is taken for a number by some resolvers: 0x7f.1 is this machine.
        if not all(LABEL.fullmatch(label) for label in labels) or not labels[-1][0].isalpha():
            raise entry.refuse("host", f"{host[:60]!r} is no host name and no IP address, such as 10.0.4.7") from None
        if labels[-1] == "localhost":
            raise entry.refuse("host", "is the machine that polls: name the device") from None
        return host
    plain = getattr(address, "ipv4_mapped", None) or address
    if getattr(address, "scope_id", None) is not None:
        raise entry.refuse("host", "leave out the zone behind the %: it means something on one machine only")
    if plain.is_loopback or plain.is_unspecified or plain.is_link_local or plain.is_multicast or plain.is_reserved:
        raise entry.refuse("host", f"{plain} is the address of no device that can be polled: name the device's own")
    return str(plain)
