"""What a PUBACK promises, whatever is killed, full, slow or revoked; and when a device has to go."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import EXIT_POISONED
from tests.faults.database import Database
from tests.faults.mqtt import (
    EVENTS,
    VERSIONS,
    MqttPeer,
    RawClient,
    event,
    publish_packet,
    raw_client,
    stored,
)
from tests.faults.proxy import DatabaseProxy, Wire
from tests.faults.strace import tampering, why_no_strace
from tests.faults.wire import Credentials

both_versions = pytest.mark.parametrize("version", VERSIONS)
with_strace = pytest.mark.skipif(why_no_strace() is not None, reason=why_no_strace() or "")
NUM_KILLS = 12
# Together three times what the journal holds.
NUM_LARGE = 100
FRESH_SECONDS = 2.0


@both_versions
@pytest.mark.timeout(300)
async def test_a_core_killed_between_publish_and_puback_stores_what_it_acknowledged(
    new_core: NewCore, database: Database, device: Credentials, version: str
) -> None:
    """Numbered events once, whatever is sent again; others at least once, and once where they were not sent again."""
    chance = random.Random(version)
    core = new_core(batch_age_ms_max=200)
    acknowledged: dict[bool, set[int]] = {True: set(), False: set()}
    sent_again: set[int] = set()
    next_value, next_seq, unsure = 1, 1, dict[int, dict[str, object]]()
    for _ in range(NUM_KILLS):
        await core.started()
        async with MqttPeer(core.mqtt_port, version) as peer:
            await peer.joined(device)
            batch = dict(sorted(unsure.items()))
            sent_again |= set(batch)
            for _ in range(chance.randint(20, 200)):
                if chance.random() < 0.5:
                    batch[next_value] = {"epoch": 1, "first_seq": next_seq, "events": [event(next_value)]}
                    next_seq += 1
                else:
                    batch[next_value] = event(next_value)
                next_value += 1
            # The last ones are on their way when it is killed, however fast the machine is.
            first, last = list(batch)[: len(batch) // 2], list(batch)[len(batch) // 2 :]
            sent = {value: peer.publish(batch[value]).mid for value in first}
            wanted = chance.randint(1, len(sent))
            await until(lambda: len(peer.pubacks) >= wanted, "publications are acknowledged")  # noqa: B023
            sent |= {value: peer.publish(batch[value]).mid for value in last}
            await core.kill()
            await until(lambda: peer.ends, "the connection ends")
            told = dict(peer.pubacks)
        unsure = {value: batch[value] for value, mid in sent.items() if mid not in told}
        for value, mid in sent.items():
            if mid in told:
                acknowledged["epoch" in batch[value]].add(value)
    await core.started()
    await until_in_thread(lambda: core.metric("journal_bytes") == 0, "all is drained", seconds=60)
    assert await core.stop() == 0
    select = "select value::int, count(*) from device_events where device_id = %s group by value"
    counts = {int(str(value)): int(str(count)) for value, count in database.execute(select, [device.device_id])}
    assert acknowledged[True]
    assert acknowledged[False]
    assert sent_again
    assert {counts.get(value) for value in acknowledged[True]} == {1}
    assert {counts.get(value) for value in acknowledged[False] - sent_again} == {1}
    assert acknowledged[False] <= set(counts)


class Acknowledged:
    """The packet identifiers that a raw client of version 3.1.1 is told, in order."""

    def __init__(self) -> None:
        self.packet_ids: list[int] = []

    async def listen(self, client: RawClient) -> None:
        """Take PUBACKs until the connection ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                told = await client.next_packet()
                assert told[:2] == b"\x40\x02", told
                self.packet_ids.append(int.from_bytes(told[2:], "big"))


@contextlib.asynccontextmanager
async def pouring(client: RawClient, device: Credentials) -> AsyncIterator[Acknowledged]:
    """Publish more than a small journal holds, and listen."""
    await client.joined(device)
    heard = Acknowledged()
    fields = ", ".join(f'"{key}": "{"x" * 3000}"' for key in "ab")
    one = '{"type": "temperature", "value": %d, "metadata": {' + fields + "}}"
    large = [",".join([one % number] * 20) for number in range(1, NUM_LARGE + 1)]
    said = b"".join(publish_packet(number, f"[{events}]".encode()) for number, events in enumerate(large, start=1))
    tasks = [asyncio.create_task(client.send(said)), asyncio.create_task(heard.listen(client))]
    try:
        yield heard
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def stored_times(database: Database, device: Credentials) -> dict[int, int]:
    """Return how often each message's value is stored: twenty times is once."""
    select = "select value::int, count(*) from device_events where device_id = %s group by value"
    return {int(str(value)): int(str(count)) for value, count in database.execute(select, [device.device_id])}


async def test_a_full_journal_makes_a_device_wait_and_loses_and_doubles_nothing(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(database_url=proxy.url, journal_bytes_max=4 << 20)
        await core.started()
        proxy.cut(Wire.REFUSED)
        proxy.cut_all()
        async with raw_client(core.mqtt_port) as client, pouring(client, device) as heard:
            # It is tried again every half a second; all that time nothing is answered, and the connection stands.
            await until_in_thread(lambda: core.metric("busy_total") >= 3, "the journal is full", seconds=30)
            while_full = len(heard.packet_ids)
            assert 0 < while_full < NUM_LARGE
            proxy.cut(Wire.WHOLE)
            await until(lambda: len(heard.packet_ids) == NUM_LARGE, "all are acknowledged", seconds=60)
        assert heard.packet_ids == list(range(1, NUM_LARGE + 1))
        await until_in_thread(lambda: core.metric("journal_bytes") == 0, "all is drained", seconds=60)
        assert await core.stop() == 0
    assert stored_times(database, device) == dict.fromkeys(range(1, NUM_LARGE + 1), 20)


async def test_of_a_core_killed_while_its_journal_is_full_what_was_acknowledged_is_stored(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(database_url=proxy.url, journal_bytes_max=4 << 20)
        await core.started()
        proxy.cut(Wire.REFUSED)
        proxy.cut_all()
        async with raw_client(core.mqtt_port) as client, pouring(client, device) as heard:
            await until_in_thread(lambda: core.metric("busy_total") >= 1, "the journal is full", seconds=30)
            await core.kill()
        assert heard.packet_ids
        proxy.cut(Wire.WHOLE)
        await core.started()
        await until_in_thread(lambda: core.metric("journal_bytes") == 0, "all is drained", seconds=60)
        assert await core.stop() == 0
    times = stored_times(database, device)
    assert set(heard.packet_ids) <= set(times)
    assert set(times.values()) == {20}


@with_strace
async def test_a_puback_waits_for_the_disk(new_core: NewCore, device: Credentials, tmp_path: Path) -> None:
    core = new_core()
    await core.started()
    async with raw_client(core.mqtt_port) as client:
        await client.joined(device)
        async with tampering(core.process.pid, tmp_path / "strace", "fdatasync,fsync", "delay_enter=1000000"):
            began = time.monotonic()
            await client.send(publish_packet(1, b'{"type": "t"}'))
            assert await client.receive() == b"\x40\x02\0\1"
            assert time.monotonic() - began >= 1


@with_strace
async def test_after_a_failed_fdatasync_no_puback_comes_and_the_connection_ends(
    new_core: NewCore, database: Database, device: Credentials, tmp_path: Path
) -> None:
    core = new_core()
    await core.started()
    async with raw_client(core.mqtt_port) as client:
        await client.joined(device)
        async with tampering(core.process.pid, tmp_path / "strace", "fdatasync,fsync", "error=EIO:when=1"):
            await client.send(publish_packet(1, b'{"type": "temperature", "value": 1}'))
            assert await client.rest() == b""
            assert await core.ended() == EXIT_POISONED, core.tail()
    await core.started()
    async with MqttPeer(core.mqtt_port) as peer:
        await peer.joined(device)
        assert await peer.puback(peer.publish(event(2))) == 0
    assert 2 in [row[1] for row in await stored(database, device, 1)]
    assert await core.stop() == 0


@with_strace
async def test_what_repeats_what_the_disk_had_no_room_for_is_not_acknowledged(
    new_core: NewCore, database: Database, device: Credentials, tmp_path: Path
) -> None:
    numbered = b'{"epoch": 1, "first_seq": 1, "events": [{"type": "temperature", "value": 1}]}'
    core = new_core()
    await core.started()
    async with raw_client(core.mqtt_port) as client:
        await client.joined(device)
        async with tampering(core.process.pid, tmp_path / "strace", "pwrite64", "error=ENOSPC:when=1"):
            await client.send(publish_packet(1, numbered) + publish_packet(2, numbered))
            assert await client.rest() == b""
    async with raw_client(core.mqtt_port) as client:
        await client.joined(device)
        await client.send(publish_packet(1, numbered) + publish_packet(2, numbered))
        assert [await client.receive() for _ in range(2)] == [b"\x40\x02\0\1", b"\x40\x02\0\2"]
    assert await core.stop() == 0
    assert len(await stored(database, device, 1)) == 1


@both_versions
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("update devices set is_enabled = false where id = %s", id="disabled"),
        pytest.param("update devices set token_hash = null where id = %s", id="without a token"),
        pytest.param(
            "update devices set token_hash = '\\xab' || substr(token_hash, 2) where id = %s", id="another token"
        ),
        pytest.param("delete from devices where id = %s", id="deleted"),
    ],
)
async def test_a_device_whose_token_is_revoked_is_cut_off_and_not_let_in_again(
    new_core: NewCore, database: Database, device: Credentials, statement: str, version: str
) -> None:
    core = new_core()
    await core.started()
    async with MqttPeer(core.mqtt_port, version) as peer:
        peer.client.will_set(EVENTS, '{"type": "offline"}', qos=1)
        await peer.joined(device)
        assert await peer.puback(peer.publish(event(1))) == 0
        database.execute(statement, [device.device_id])
        await until(lambda: peer.ends, "the connection ends", seconds=FRESH_SECONDS + 1)
        if version == "5":
            assert peer.ends[0].getName() == "Not authorized"
    async with MqttPeer(core.mqtt_port, version) as again:
        code = await again.connect(str(device.device_id), device.token)
        assert code.getName() == "Bad user name or password"
    await until_in_thread(lambda: core.metric("journal_bytes") == 0, "all is drained")
    assert [row[0] for row in await stored(database, device, 1)] == ["temperature"]
    assert await core.stop() == 0
