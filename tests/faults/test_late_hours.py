"""What comes late is marked in the transaction that stores it: the history is read by these marks."""

from datetime import UTC, datetime, timedelta

from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.database import Database
from tests.faults.wire import Credentials, Peer

HOUR = timedelta(hours=1)


def us(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def late_hours(database: Database, device: Credentials) -> list[object]:
    statement = "select distinct bucket from late_hours where device_id = %s order by bucket"
    return [bucket for (bucket,) in database.execute(statement, [device.device_id])]


async def test_the_hours_that_had_ended_are_marked_and_no_others(
    new_core: NewCore, device: Credentials, database: Database
) -> None:
    core = new_core()
    await core.started()
    peer = await Peer.join(core.port, device)
    now = datetime.now(UTC)
    times = [now - 30 * HOUR, now - 30 * HOUR + timedelta(milliseconds=1), now - 2 * HOUR, now + HOUR, now + 2 * HOUR]
    await peer.acked(1, *({"type": "t", "time_us": us(one), "value": 1.0} for one in times))
    await until_in_thread(lambda: len(database.events_of(device.device_id)) == len(times), "the events are stored")
    assert late_hours(database, device) == [hour_of(now - 30 * HOUR), hour_of(now - 2 * HOUR)]
    # In the transaction that moved the cursor over them.
    marked_by = database.execute("select distinct marked_by from late_hours where device_id = %s", [device.device_id])
    assert set(marked_by) <= set(database.execute("select xmin::text::bigint from ingest_cursor"))
    await peer.close()
    assert await core.stop() == 0


async def test_a_dead_letter_that_is_stored_at_last_is_late(
    new_core: NewCore, device: Credentials, database: Database
) -> None:
    database.execute("alter table device_events add constraint poison check (value <> 77) not valid")
    core = new_core()
    await core.started()
    peer = await Peer.join(core.port, device)
    moment = datetime.now(UTC) - 3 * HOUR
    await peer.acked(1, {"type": "t", "time_us": us(moment), "value": 77.0})
    await until_in_thread(lambda: database.dead_letters_of(device.device_id), "the event is a dead letter")
    database.execute("delete from late_hours where device_id = %s", [device.device_id])
    database.execute("alter table device_events drop constraint poison")
    database.execute("update dead_letters set next_attempt_at = now() where device_id = %s", [device.device_id])
    await until_in_thread(lambda: database.events_of(device.device_id), "the event is stored", seconds=30)
    assert late_hours(database, device) == [hour_of(moment)]
    await peer.close()
    assert await core.stop() == 0
