"""Rows that only the database refuses: found in their batch, set aside once, tried again, and given up after five times."""

from collections.abc import Iterator

import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.mqtt import MqttPeer, event
from tests.faults.recorder import EPOCH_STRIDE, Recorder
from tests.faults.wire import Credentials

ATTEMPTS_MAX = 5
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


async def test_what_a_clock_far_ahead_has_put_off_is_tried_all_the_same(
    refusing: Database, new_core: NewCore, device: Credentials, recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    await core.started()
    async with Load(core.port, [device], recorder, Plan(events_max=20, reboot_probability=0)) as load:
        await load.settle()
        await checker.until_stored()
    put_off = "update dead_letters set next_attempt_at = now() + interval '70 years' where device_id = %s"
    refusing.execute(put_off, [device.device_id])
    refusing.execute("alter table device_events drop constraint poison")
    await until_in_thread(lambda: refusing.dead_letters_of(device.device_id) == [], "both are stored", seconds=30)
    assert await core.stop() == 0
    checker.check(acked_min=20)


async def test_a_core_killed_while_it_sets_rows_aside_keeps_each_once(
    refusing: Database, new_core: NewCore, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    core = new_core()
    plan = Plan(events_per_frame=(1, 20), pause_seconds=0.005, reboot_probability=0)
    async with Load(core.port, fleet, recorder, plan) as load:
        for _ in range(8):
            core.start()
            await load.progress(700)
            await core.kill()
        await core.started()
        await load.settle()
        await checker.until_stored()
        assert await core.stop() == 0
    checker.check(acked_min=5600)
    for device in load.devices:
        letters = refusing.dead_letters_of(device.credentials.device_id)
        assert [letter[:2] for letter in letters] == [(1, seq) for seq in REFUSED_SEQS if seq <= device.highest]


@pytest.mark.parametrize("kept_by", ["this release", "an older one"])
async def test_a_dead_letter_that_is_stored_says_by_which_door_it_came(
    refusing: Database, new_core: NewCore, fleet: list[Credentials], kept_by: str
) -> None:
    numbered, unnumbered = fleet[:2]
    core = new_core()
    await core.started()
    value = EPOCH_STRIDE + REFUSED_SEQS[0]
    for device, payload in (
        (numbered, {"epoch": 1, "first_seq": 1, "events": [event(value)]}),
        (unnumbered, event(value)),
    ):
        async with MqttPeer(core.mqtt_port) as peer:
            await peer.joined(device)
            assert await peer.puback(peer.publish(payload)) == 0
    devices: list[object] = [[device.device_id for device in fleet[:2]]]
    letters = "select source, reason from dead_letters where device_id = any(%s)"
    await until_in_thread(lambda: len(refusing.execute(letters, devices)) == 2, "both are dead letters")
    assert {source for source, _ in refusing.execute(letters, devices)} == {"mqtt"}
    if kept_by == "an older one":
        refusing.execute("update dead_letters set source = null where device_id = any(%s)", devices)
    refusing.execute("alter table device_events drop constraint poison")
    await until_in_thread(lambda: retried(refusing, fleet) == [], "both are stored when tried again", seconds=60)
    stored = refusing.execute("select device_id, source from device_events where device_id = any(%s)", devices)
    # Of a number an older release kept no more than that it was a device's.
    by_number = "mqtt" if kept_by == "this release" else "hdp"
    assert set(stored) == {(numbered.device_id, by_number), (unnumbered.device_id, "mqtt")}
    assert await core.stop() == 0
