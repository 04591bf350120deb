"""Devices that resend, come back, appear twice, forget, and skip."""

import asyncio

import pytest

from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.wire import Credentials, Event, Peer


def events(first: int, last: int) -> list[Event]:
    """Events whose value is their sequence number."""
    return [{"type": "t", "value": seq} for seq in range(first, last + 1)]


def values(database: Database, device: Credentials) -> list[object]:
    return sorted((row[2] for row in database.events_of(device.device_id)), key=str)


async def stored(database: Database, device: Credentials, *seqs: int) -> None:
    """Wait until a device has as many rows as these, then compare; a doubled row shows as one too many."""
    wanted = sorted((float(seq) for seq in seqs), key=str)
    await until_in_thread(lambda: len(values(database, device)) >= len(wanted), f"{len(wanted)} rows are stored")
    assert values(database, device) == wanted


@pytest.fixture
async def core(new_core: NewCore, device: Credentials) -> Core:
    assert device.token  # registered before the core starts
    made = new_core()
    await made.started()
    return made


async def test_a_frame_sent_again_is_acknowledged_again_and_stored_once(
    core: Core, database: Database, device: Credentials
) -> None:
    peer = await Peer.join(core.port, device)
    for _ in range(3):
        await peer.acked(1, *events(1, 10))
    again = await Peer.join(core.port, device)
    assert again.last_seq == 10
    await again.acked(1, *events(1, 10))
    assert await core.stop() == 0
    await stored(database, device, *range(1, 11))
    assert database.dead_letters_of(device.device_id) == []


async def test_of_a_partly_known_frame_only_the_new_events_are_taken(
    core: Core, database: Database, device: Credentials
) -> None:
    peer = await Peer.join(core.port, device)
    await peer.acked(1, *events(1, 10))
    await peer.acked(6, *events(6, 15))
    await peer.acked(1, *events(1, 20))
    assert (await peer.ask("events", first_seq=3, events=events(3, 4)))["seq"] == 20
    assert core.metric("events_duplicate_total") == 5 + 15 + 2
    assert await core.stop() == 0
    await stored(database, device, *range(1, 21))


async def test_a_jump_forward_is_accepted_and_counted(core: Core, database: Database, device: Credentials) -> None:
    peer = await Peer.join(core.port, device)
    await peer.acked(1, *events(1, 5))
    await peer.acked(11, *events(11, 15))
    assert core.metric("sequence_jumps_total") == 1
    # What was jumped over is below what was taken: dropped and acknowledged.
    assert (await peer.ask("events", first_seq=6, events=events(6, 8)))["seq"] == 15
    assert await core.stop() == 0
    await stored(database, device, 1, 2, 3, 4, 5, 11, 12, 13, 14, 15)


async def test_the_epoch_goes_up_and_never_back(core: Core, database: Database, device: Credentials) -> None:
    peer = await Peer.join(core.port, device, epoch=5)
    await peer.acked(1, *events(1, 3))
    higher = await Peer.join(core.port, device, epoch=9)
    assert higher.last_seq == 0
    await higher.acked(1, *events(101, 103))
    for _ in range(2):
        lower = await Peer.dial(core.port)
        await lower.send("hello", **device.hello(epoch=8))
        assert await lower.refused() == "stale_epoch"
        await core.kill()
        await core.started()
    assert (await Peer.join(core.port, device, epoch=9)).last_seq == 3
    assert await core.stop() == 0
    await stored(database, device, 1, 2, 3, 101, 102, 103)


async def test_a_refused_older_epoch_does_not_disturb_the_device(core: Core, device: Credentials) -> None:
    peer = await Peer.join(core.port, device, epoch=2)
    lower = await Peer.dial(core.port)
    await lower.send("hello", **device.hello(epoch=1))
    assert await lower.refused() == "stale_epoch"
    await peer.acked(1, *events(1, 1))


async def test_a_new_epoch_counts_although_nothing_was_sent_in_it(core: Core, device: Credentials) -> None:
    await (await Peer.join(core.port, device, epoch=7)).close()
    lower = await Peer.dial(core.port)
    await lower.send("hello", **device.hello(epoch=6))
    assert await lower.refused() == "stale_epoch"


async def test_a_device_that_appears_twice_keeps_its_newer_connection(
    core: Core, database: Database, device: Credentials
) -> None:
    peers = [await Peer.join(core.port, device)]
    for round_number in range(20):
        older, first = peers[-1], 5 * round_number + 1
        await older.send_events(first, *events(first, first + 4))
        newer = await Peer.join(core.port, device)
        heard = await older.everything()
        assert (heard[-1].name, heard[-1]["code"]) == ("error", "superseded")
        promised = [message.number("seq") for message in heard if message.name == "ack"]
        assert newer.last_seq >= max(promised, default=0), "WELCOME forgot what was acknowledged"
        await newer.acked(first, *events(first, first + 4))
        peers.append(newer)
    assert await core.stop() == 0
    await stored(database, device, *range(1, 101))


async def test_what_was_taken_is_known_after_a_kill_and_after_it_left_the_journal(
    core: Core, new_core: NewCore, database: Database, device: Credentials
) -> None:
    peer = await Peer.join(core.port, device, epoch=4)
    await peer.acked(1, *events(1, 10))
    await core.kill()
    await core.started()
    assert (await Peer.join(core.port, device, epoch=4)).last_seq == 10
    await stored(database, device, *range(1, 11))
    assert await core.stop() == 0
    await core.started()
    assert (await Peer.join(core.port, device, epoch=4)).last_seq == 10
    # Another node with an empty journal: whatever it knows of the device, nothing is stored twice.
    other = new_core()
    await other.started()
    moved = await Peer.join(other.port, device, epoch=4)
    await moved.acked(1, *events(1, 12))
    assert await other.stop() == 0
    assert await core.stop() == 0
    await stored(database, device, *range(1, 13))


async def test_events_that_a_device_sent_to_two_nodes_are_stored_once(
    core: Core, new_core: NewCore, database: Database, device: Credentials
) -> None:
    """The first node's journal reaches the database after the second one's: a range, not a maximum, says what is stored."""
    await database.kill()
    peer = await Peer.join(core.port, device)
    await peer.acked(1, *events(1, 100))
    await core.kill()
    await database.start()
    other = new_core()
    await other.started()
    moved = await Peer.join(other.port, device)
    await moved.acked(91, *events(91, 120))
    await stored(database, device, *range(91, 121))
    await core.started()
    await stored(database, device, *range(1, 121))
    assert await other.stop() == 0
    assert await core.stop() == 0
    await stored(database, device, *range(1, 121))


async def test_acknowledgements_are_in_order_and_cumulative(core: Core, device: Credentials) -> None:
    peer = await Peer.join(core.port, device)
    frames = [peer.encode("events", first_seq=seq, events=events(seq, seq)) for seq in range(1, 501)]
    sending = asyncio.create_task(peer.send_bytes(b"".join(frames)))
    heard = [0]
    while heard[-1] < 500:
        answer = await peer.receive()
        assert answer.name == "ack"
        assert answer.number("seq") > heard[-1]
        heard.append(answer.number("seq"))
    await sending
