"""Values that cannot be stored: each becomes a dead letter once, with its code, and everything around it lands."""

import math
import time

import msgpack
import pytest

from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore, knows
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.wire import Credentials, Event, Peer

HOUR_US = 3_600_000_000
METADATA_BYTES_MAX = 8192
INT64_MAX = 2**63 - 1


def metadata_of(num_bytes: int) -> dict[str, str]:
    """Return a map that MessagePack encodes in so many bytes."""
    frame_bytes = len(msgpack.packb({"k": "x" * 5000})) - 5000
    metadata = {"k": "x" * (num_bytes - frame_bytes)}
    assert len(msgpack.packb(metadata)) == num_bytes
    return metadata


def now_us() -> int:
    return time.time_ns() // 1000


POISON: dict[str, tuple[Event, str]] = {
    "NUL in type": ({"type": "a\0b"}, "bad_type"),
    "newline in type": ({"type": "a\nb"}, "bad_type"),
    "DEL in type": ({"type": "a\x7fb"}, "bad_type"),
    "C1 control in type": ({"type": "a\x85b"}, "bad_type"),
    "empty type": ({"type": ""}, "bad_type"),
    "type of 51 characters": ({"type": "é" * 51}, "bad_type"),
    "NaN": ({"type": "t", "value": math.nan}, "bad_value"),
    "infinity": ({"type": "t", "value": math.inf}, "bad_value"),
    "minus infinity": ({"type": "t", "value": -math.inf}, "bad_value"),
    "NUL in unit": ({"type": "t", "unit": "a\0"}, "bad_unit"),
    "unit of 21 characters": ({"type": "t", "unit": "é" * 21}, "bad_unit"),
    "NUL in metadata": ({"type": "t", "metadata": {"k": "a\0b"}}, "bad_metadata"),
    "NUL deep in metadata": ({"type": "t", "metadata": {"k": [1, {"l": "\0"}]}}, "bad_metadata"),
    "NUL in a key": ({"type": "t", "metadata": {"\0": 1}}, "bad_metadata"),
    "number as a key": ({"type": "t", "metadata": {1: 1}}, "bad_metadata"),
    "metadata of 8193 bytes": ({"type": "t", "metadata": metadata_of(METADATA_BYTES_MAX + 1)}, "bad_metadata"),
    "a part of what is kept of the unreadable": (
        {"type": "unreadable", "metadata": {"reason": "\0", "topic": "a", "payload": "b"}},
        "bad_metadata",
    ),
    "all of what is kept of the unreadable": (
        {"type": "unreadable", "metadata": {"reason": "\0", "topic": "a", "payload": b"b"}},
        "bad_payload",
    ),
    "25 hours ahead": ({"type": "t", "time_us": now_us() + 25 * HOUR_US}, "bad_time"),
    "the year 9999": ({"type": "t", "time_us": 253402300799000000}, "bad_time"),
    "the last time there is": ({"type": "t", "time_us": INT64_MAX}, "bad_time"),
    "the first time there is": ({"type": "t", "time_us": -(2**63)}, "bad_time"),
    "older than the retention": ({"type": "t", "time_us": now_us() - 731 * 24 * HOUR_US}, "bad_time"),
    "before 1970": ({"type": "t", "time_us": -1}, "bad_time"),
}
SOUND: dict[str, Event] = {
    "type of 50 characters": {"type": "é" * 50},
    "unit of 20 characters": {"type": "t", "unit": "é" * 20},
    "metadata of 8192 bytes": {"type": "t", "metadata": metadata_of(METADATA_BYTES_MAX)},
    "23 hours ahead": {"type": "t", "time_us": now_us() + 23 * HOUR_US},
    "729 days old": {"type": "t", "time_us": now_us() - 729 * 24 * HOUR_US},
    "the largest number": {"type": "t", "value": 1.7976931348623157e308},
    "minus zero": {"type": "t", "value": -0.0},
    "a whole number beyond 2^53": {"type": "t", "value": 2**64 - 1},
    "quotes and backslashes": {"type": "t", "metadata": {'"\\\b\t': "\\N \\. \\u0000 \ud7ff \U0001f600"}},
}


@pytest.fixture
async def core(new_core: NewCore, device: Credentials) -> Core:
    assert device.token  # registered before the core starts
    made = new_core()
    await made.started()
    return made


@pytest.mark.parametrize(("event", "code"), POISON.values(), ids=POISON)
async def test_a_poisonous_event_becomes_one_dead_letter_and_its_neighbours_land(
    event: Event, code: str, shared_core: Core, database: Database, device: Credentials
) -> None:
    peer = await Peer.join(shared_core.port, device)
    ack = await peer.acked(1, {"type": "first"}, event, {"type": "last"})
    assert ack.rejected() == [(2, code)]
    # Sent again it is acknowledged again, and is still one dead letter.
    again = await peer.acked(1, {"type": "first"}, event, {"type": "last"})
    assert [pair for pair in again.rejected() if pair != (2, code)] == []
    await until_in_thread(lambda: len(database.events_of(device.device_id)) >= 2, "the neighbours are stored")
    await until_in_thread(lambda: database.dead_letters_of(device.device_id), "the dead letter is kept")
    await peer.acked(4, {"type": "barrier"})
    await until_in_thread(lambda: len(database.events_of(device.device_id)) >= 3, "a later event is stored")
    assert {row[1] for row in database.events_of(device.device_id)} == {"first", "last", "barrier"}
    assert [row[:3] for row in database.dead_letters_of(device.device_id)] == [(1, 2, code)]
    await peer.close()


@pytest.mark.parametrize("event", SOUND.values(), ids=SOUND)
async def test_an_event_at_the_edge_of_what_is_allowed_is_stored(
    event: Event, shared_core: Core, database: Database, device: Credentials
) -> None:
    peer = await Peer.join(shared_core.port, device)
    ack = await peer.acked(1, event)
    assert ack.rejected() == []
    await until_in_thread(lambda: database.events_of(device.device_id), "the event is stored")
    ((_, kind, value, unit, metadata),) = database.events_of(device.device_id)
    assert (kind, unit, metadata) == (event["type"], event.get("unit"), event.get("metadata"))
    wanted = event.get("value")
    assert value == (None if wanted is None else float(str(wanted)))
    await peer.close()


async def test_an_event_for_an_unknown_or_foreign_device_becomes_a_dead_letter(
    new_core: NewCore, database: Database
) -> None:
    gateway, stranger = database.add_devices(2)
    child = database.add_devices(1, gateway=gateway)[0]
    foreign_child = database.add_devices(1, gateway=stranger)[0]
    unknown = Credentials(type(child.device_id)(int=7), "")
    core = new_core()
    await core.started()
    peer = await Peer.join(core.port, gateway)
    ack = await peer.acked(
        1,
        {"type": "own"},
        {"type": "named", "device_id": gateway.device_id},
        {"type": "child", "device_id": child.device_id},
        {"type": "foreign", "device_id": foreign_child.device_id},
        {"type": "stranger", "device_id": stranger.device_id},
        {"type": "unknown", "device_id": unknown.device_id},
    )
    rejected = [(4, "forbidden_device"), (5, "forbidden_device"), (6, "unknown_device")]
    assert [pair for pair in ack.rejected() if pair[0] != 2] == rejected
    assert await core.stop() == 0
    assert "own" in {row[1] for row in database.events_of(gateway.device_id)}
    assert [row[1] for row in database.events_of(child.device_id)] == ["child"]
    assert database.events_of(stranger.device_id) == database.events_of(foreign_child.device_id) == []
    letters = [(row[1], row[2]) for row in database.dead_letters_of(gateway.device_id)]
    assert [letter for letter in letters if letter[0] != 2] == rejected


@pytest.mark.parametrize("first_seq", [INT64_MAX - 1, INT64_MAX, 2**63, 2**64 - 2, 2**64 - 1])
async def test_a_sequence_number_at_the_edge_of_the_integers_stops_nobody_else(
    first_seq: int, core: Core, database: Database, device: Credentials
) -> None:
    other = database.add_devices(1)[0]
    peer = await Peer.join(core.port, device)
    await peer.send_events(first_seq, {"type": "a"}, {"type": "b"})
    answer = await peer.receive()
    promised = answer.name == "ack" and answer.number("seq") == first_seq + 1 - len(answer.rejected())
    assert promised or (answer.name, answer["code"]) == ("error", "malformed"), answer
    await others_are_stored(core, database, other)
    if promised:
        await until_in_thread(lambda: len(database.events_of(device.device_id)) == 2, "what was acknowledged is stored")


@pytest.mark.parametrize("epoch", [INT64_MAX, 2**63, 2**64 - 1])
async def test_an_epoch_at_the_edge_of_the_integers_stops_nobody_else(
    epoch: int, core: Core, database: Database, device: Credentials
) -> None:
    other = database.add_devices(1)[0]
    peer = await Peer.dial(core.port)
    answer = await peer.ask("hello", **device.hello(epoch))
    if answer.name == "welcome":
        await peer.acked(1, {"type": "a"})
        await until_in_thread(lambda: database.events_of(device.device_id), "what was acknowledged is stored")
    else:
        assert (answer.name, answer["code"]) == ("error", "malformed")
    await others_are_stored(core, database, other)


async def others_are_stored(core: Core, database: Database, other: Credentials) -> None:
    await knows(core, other)
    peer = await Peer.join(core.port, other)
    await peer.acked(1, {"type": "other"})
    await until_in_thread(lambda: database.events_of(other.device_id), "another device's event is stored")
