"""Values that cannot be stored: each becomes a dead letter once, with its code, and everything around it lands."""

import math
import time
from collections.abc import Iterator

import msgpack
import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore, knows
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.recorder import EPOCH_STRIDE, Recorder
from tests.faults.wire import Credentials, Event, Peer

HOUR_US = 3_600_000_000
METADATA_BYTES_MAX = 8192
ATTEMPTS_MAX = 5
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


# --- what only the database refuses ---

REFUSED_SEQS = (13, 14, 500, 777)


@pytest.fixture
def refusing(database: Database) -> Iterator[Database]:
    """A table that refuses some values of every device."""
    marks = ", ".join(str(float(EPOCH_STRIDE + seq)) for seq in REFUSED_SEQS)
    database.execute(f"alter table device_events add constraint poison check (value not in ({marks})) not valid")
    yield database
    database.execute("alter table device_events drop constraint if exists poison")


async def test_rows_that_the_database_refuses_are_found_in_their_batch_and_set_aside(
    refusing: Database, new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core(batch_age_ms_max=500)
    await core.started()
    plan = Plan(events_max=1000, events_per_frame=(50, 200), reboot_probability=0)
    async with Load(core.port, fleet, recorder, plan) as load:
        await load.settle()
        await checker.until_stored()
    record = checker.check(acked_min=6000)
    assert record.num_acked == 6000
    for device in fleet:
        letters = refusing.dead_letters_of(device.device_id)
        assert [letter[:2] for letter in letters] == [(1, seq) for seq in REFUSED_SEQS]
    refusing.execute("alter table device_events drop constraint poison")
    await until_in_thread(
        lambda: retried(refusing, fleet) == [], "dead letters are stored when tried again", seconds=60
    )
    assert await core.stop() == 0
    checker.check(acked_min=6000)


def retried(database: Database, fleet: list[Credentials]) -> list[tuple[object, ...]]:
    """Let every waiting dead letter of the fleet be due now, and return those that are left."""
    devices = [device.device_id for device in fleet]
    database.execute(
        "update dead_letters set next_attempt_at = now()"
        " where device_id = any(%s) and status = 'pending' and next_attempt_at > now()",
        [devices],
    )
    return database.execute("select status, attempts from dead_letters where device_id = any(%s)", [devices])


async def test_a_dead_letter_that_is_refused_five_times_is_permanent(
    refusing: Database, new_core: NewCore, device: Credentials, recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    await core.started()
    plan = Plan(events_max=20, reboot_probability=0)
    async with Load(core.port, [device], recorder, plan) as load:
        await load.settle()
        await checker.until_stored()
    waiting = refusing.execute(
        "select next_attempt_at > created_at from dead_letters where device_id = %s", [device.device_id]
    )
    assert waiting == [(True,), (True,)], "a dead letter is tried again after a while, and not at once"
    wanted = [("permanent", ATTEMPTS_MAX)] * 2
    await until_in_thread(lambda: retried(refusing, [device]) == wanted, "both are permanent", seconds=60)
    refusing.execute("alter table device_events drop constraint poison")
    assert await core.stop() == 0
    assert retried(refusing, [device]) == wanted
    checker.check(acked_min=20)


async def test_a_core_killed_while_it_sets_rows_aside_keeps_each_once(
    refusing: Database, new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    plan = Plan(events_max=1000, events_per_frame=(1, 20), reboot_probability=0)
    async with Load(core.port, fleet, recorder, plan) as load:
        for _ in range(8):
            core.start()
            await load.progress(300)
            await core.kill()
        await core.started()
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0
    assert checker.check(acked_min=6000).num_acked == 6000
    for device in fleet:
        assert [letter[:2] for letter in refusing.dead_letters_of(device.device_id)] == [
            (1, seq) for seq in REFUSED_SEQS
        ]
