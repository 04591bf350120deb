"""What is read of the events, and how much of it there is."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import sqlalchemy as sa

from hse.adapters.postgres.registry import add_devices
from hse.adapters.postgres.telemetry import last_events, storage_summary
from tests.storage.drain import Reading, drain

START = datetime(2026, 3, 1, 23, 59, 50, tzinfo=UTC)


def test_the_last_events_come_newest_first_across_days(engine: sa.Engine) -> None:
    device, other = uuid4(), uuid4()
    events = [Reading(time=START + timedelta(seconds=n), device_id=device, value=float(n)) for n in range(20)]
    drain(engine, [*events, Reading(time=START + timedelta(days=1), device_id=other, value=-1.0)])
    with engine.connect() as connection:
        assert [event.value for event in last_events(connection, device, 3)] == [19.0, 18.0, 17.0]
        assert [event.time for event in last_events(connection, device, 100)] == [e.time for e in reversed(events)]
        assert last_events(connection, uuid4(), 3) == []


def test_an_event_comes_back_whole(engine: sa.Engine) -> None:
    device = uuid4()
    drain(engine, [Reading(time=START, device_id=uuid4(), value=None)])
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into device_events values (:time, :device, 'alarm', null, 'C', '{\"floor\": [1, \"b\"]}', 'hdp')"
            ),
            {"time": START, "device": device},
        )
        [event] = last_events(connection, device, 1)
    assert (event.time, event.device_id, event.event_type, event.value) == (START, device, "alarm", None)
    assert (event.unit, event.metadata, event.source) == ("C", {"floor": [1, "b"]}, "hdp")


def test_the_summary_counts_what_waits_and_estimates_what_is_stored(engine: sa.Engine) -> None:
    device = uuid4()
    with engine.begin() as connection:
        # Else what others have left counts as it was estimated before, and is counted anew below.
        connection.execute(sa.text("analyze device_events"))
        before = storage_summary(connection)
        add_devices(connection, organization=f"Demo {device}", name="meter", count=2)
        connection.execute(
            sa.text("insert into event_outbox (time, device_id, event_type) values (:time, :device, 'alarm')"),
            {"time": START, "device": device},
        )
        connection.execute(
            sa.text(
                "insert into dead_letters (device_id, epoch, seq, received_at, code, reason, event, status)"
                " select :device, 1, n, :time, 'refused', 'why', '\\x90', s"
                " from generate_series(1, 2) n, unnest(array['pending', 'permanent', 'discarded']) s"
            ),
            {"time": START, "device": device},
        )
    drain(engine, [Reading(time=START + timedelta(seconds=n), device_id=device, value=1.0) for n in range(500)])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("analyze device_events"))
        after = storage_summary(connection)
    assert after.event_storage in {"partitions", "timescaledb"}
    assert after.events_estimate - before.events_estimate >= 500
    assert after.event_bytes > before.event_bytes
    assert after.devices == before.devices + 2
    assert after.outbox_waiting == before.outbox_waiting + 1
    assert after.dead_letters_pending == before.dead_letters_pending + 2
    assert after.dead_letters_permanent == before.dead_letters_permanent + 2
