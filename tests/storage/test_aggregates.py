"""Hourly and daily aggregates: equal to the events in both forms, late events included, final once events are dropped."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres import maintenance
from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.maintenance import run_maintenance
from tests.storage.drain import Reading, copy_events, drain, ensure_partitions, readings
from tests.storage.waiting import wait_until_blocked

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

Aggregates = list[tuple[object, ...]]


def now() -> datetime:
    return datetime.now(UTC)


def refresh(engine: sa.Engine) -> None:
    """What the worker or TimescaleDB's scheduler does, done now: its own policies are run, with their own reach."""
    if run_maintenance(engine, now=now(), retention_days=730).event_storage == "timescaledb":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            job_ids = connection.execute(
                sa.text(
                    "select job_id from timescaledb_information.jobs"
                    " where proc_name = 'policy_refresh_continuous_aggregate' order by job_id"
                )
            ).scalars()
            hourly, daily = job_ids.all()
            connection.execute(sa.text("call run_job(:job_id)"), {"job_id": hourly})
            connection.execute(sa.text("call run_job(:job_id)"), {"job_id": daily})


def stored_aggregates(engine: sa.Engine, relation: str, device_ids: list[UUID]) -> Aggregates:
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                "select bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max"
                f" from {relation} where device_id = any(:ids) order by 1, 2, 3"
            ),
            {"ids": device_ids},
        )
        return [tuple(row) for row in rows]


def true_aggregates(engine: sa.Engine, unit: str, device_ids: list[UUID]) -> Aggregates:
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text(
                f"select date_trunc('{unit}', time, 'UTC'), device_id, event_type, count(*), count(value), sum(value),"
                " avg(value), min(value), max(value) from device_events where device_id = any(:ids)"
                " group by 1, 2, 3 order by 1, 2, 3"
            ),
            {"ids": device_ids},
        )
        return [tuple(row) for row in rows]


def assert_aggregates_are_true(engine: sa.Engine, device_ids: list[UUID]) -> None:
    for relation, unit in (("device_events_hourly", "hour"), ("device_events_daily", "day")):
        stored = stored_aggregates(engine, relation, device_ids)
        assert stored
        assert stored == true_aggregates(engine, unit, device_ids)


def samples(engine: sa.Engine, relation: str, device_id: UUID, at: datetime) -> int:
    with engine.connect() as connection:
        return int(
            connection.execute(
                sa.text(f"select coalesce(sum(samples), 0) from {relation} where device_id = :id and bucket = :at"),
                {"id": device_id, "at": at},
            ).scalar_one()
        )


def test_aggregates_equal_the_events_and_count_late_ones(engine: sa.Engine) -> None:
    devices = [uuid4() for _ in range(3)]
    start = now().replace(hour=0, minute=0, second=0, microsecond=0) - 10 * DAY
    drain(engine, readings(devices, start, now() - start, 2000, seed=1))
    assert_aggregates_are_true(engine, devices)
    refresh(engine)
    assert_aggregates_are_true(engine, devices)

    late = [
        Reading(time=start + 3 * DAY + timedelta(minutes=5), device_id=devices[0], value=1000.0),
        Reading(
            time=start + 3 * DAY + timedelta(minutes=6), device_id=devices[1], value=-1000.0, event_type="pressure"
        ),
        Reading(time=start - 700 * DAY, device_id=devices[2], value=0.25),
    ]
    hours_before = samples(engine, "device_events_hourly", devices[0], start + 3 * DAY)
    days_before = samples(engine, "device_events_daily", devices[0], start + 3 * DAY)
    drain(engine, late)
    # What was read so far came from stored aggregates: the late event is not in them until they are refreshed.
    assert samples(engine, "device_events_hourly", devices[0], start + 3 * DAY) == hours_before
    refresh(engine)
    assert samples(engine, "device_events_hourly", devices[0], start + 3 * DAY) == hours_before + 1
    assert samples(engine, "device_events_daily", devices[0], start + 3 * DAY) == days_before + 1
    assert samples(engine, "device_events_daily", devices[2], start - 700 * DAY) == 1
    assert_aggregates_are_true(engine, devices)


def test_the_open_hour_is_seen_without_a_refresh(engine: sa.Engine) -> None:
    device = uuid4()
    refresh(engine)
    open_hour = now().replace(minute=0, second=0, microsecond=0)
    drain(engine, [Reading(time=now(), device_id=device, value=2.5)])
    assert samples(engine, "device_events_hourly", device, open_hour) == 1
    assert samples(engine, "device_events_daily", device, open_hour.replace(hour=0)) == 1


def test_a_batch_over_several_days_is_counted_in_each(engine: sa.Engine) -> None:
    """The shape that loses rows in aggregates with time-zone buckets: one COPY over several chunks, all of them old."""
    device = uuid4()
    start = now().replace(hour=0, minute=0, second=0, microsecond=0) - 40 * DAY
    drain(engine, [Reading(time=start + HOUR * hour, device_id=device, value=1.0) for hour in range(96)])
    refresh(engine)
    drain(engine, [Reading(time=start + HOUR * hour + HOUR / 2, device_id=device, value=3.0) for hour in range(96)])
    refresh(engine)
    assert [samples(engine, "device_events_daily", device, start + day * DAY) for day in range(4)] == [48] * 4
    assert_aggregates_are_true(engine, [device])


def test_refreshers_at_once_neither_double_nor_miss(plain_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "MARKS_PER_TRANSACTION_MAX", 40)
    devices = [uuid4() for _ in range(5)]
    start = now().replace(hour=0, minute=0, second=0, microsecond=0) - 3 * DAY
    batches = [readings(devices, start, 2 * DAY, 100, seed=seed) for seed in range(30)]
    ensure_partitions(plain_engine, [event for batch in batches for event in batch])
    failures: list[Exception] = []
    has_written = threading.Event()

    def write() -> None:
        try:
            for batch in batches:
                drain(plain_engine, batch)
        except Exception as error:
            failures.append(error)
        finally:
            has_written.set()

    def refresh_until_written() -> None:
        try:
            while not has_written.is_set():
                maintenance.refresh_rollups(plain_engine, before=now())
            maintenance.refresh_rollups(plain_engine, before=now())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=target) for target in (write, refresh_until_written, refresh_until_written)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_aggregates_are_true(plain_engine, devices)
    with plain_engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from rollup_dirty")).scalar_one() == 0


def test_a_second_refresher_waits_rather_than_take_held_marks_for_worked_off(plain_engine: sa.Engine) -> None:
    """Both would pick the same marks; the second would find them gone, and call the table empty while one is left."""
    devices = [uuid4(), uuid4()]
    at = now().replace(minute=0, second=0, microsecond=0) - 3 * HOUR

    def refresh_two_marks() -> object:
        with plain_engine.begin() as connection:
            return connection.execute(sa.text("select refresh_rollups(now(), 2)")).scalar_one()

    drain(plain_engine, [Reading(time=at, device_id=device, value=1.0) for device in devices])
    refresh(plain_engine)
    drain(plain_engine, [Reading(time=at, device_id=device, value=2.0) for device in devices])
    with ThreadPoolExecutor(max_workers=2) as pool:
        with plain_engine.begin() as holder:
            holder.execute(sa.text("select from rollup_hourly for update"))
            first = pool.submit(refresh_two_marks)
            wait_until_blocked(plain_engine, "select refresh_rollups%")
            drain(plain_engine, [Reading(time=at, device_id=devices[1], value=3.0)])
            second = pool.submit(refresh_two_marks)
            wait_until_blocked(plain_engine, "select refresh_rollups%", count=2, unless=second)
        assert (first.result(), second.result()) == (2, 1)
    assert_aggregates_are_true(plain_engine, devices)


def test_a_refresher_that_dies_loses_no_mark(plain_engine: sa.Engine) -> None:
    device = uuid4()
    at = now().replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    refresh(plain_engine)
    drain(plain_engine, [Reading(time=at, device_id=device, value=1.0)])
    dying = create_engine(plain_engine.url.render_as_string(hide_password=False))
    with dying.connect() as connection, plain_engine.connect() as killer:
        assert connection.execute(sa.text("select refresh_rollups(now(), 10)")).scalar_one() == 1
        pid = connection.execute(sa.text("select pg_backend_pid()")).scalar_one()
        killer.execute(sa.text("select pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("select 1"))
    dying.dispose()
    assert samples(plain_engine, "device_events_hourly", device, at) == 0
    refresh(plain_engine)
    assert samples(plain_engine, "device_events_hourly", device, at) == 1


def test_a_mark_that_commits_during_a_refresh_stays(plain_engine: sa.Engine) -> None:
    device = uuid4()
    at = now().replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    first = Reading(time=at, device_id=device, value=1.0)
    second = Reading(time=at + timedelta(minutes=1), device_id=device, value=2.0)
    drain(plain_engine, [first])
    with plain_engine.begin() as late, plain_engine.begin() as refresher:
        copy_events(late, [second])
        assert refresher.execute(sa.text("select refresh_rollups(now(), 10)")).scalar_one() == 1
    assert samples(plain_engine, "device_events_hourly", device, at) == 1
    refresh(plain_engine)
    assert samples(plain_engine, "device_events_hourly", device, at) == 2


def test_equal_marks_are_worked_off_once(plain_engine: sa.Engine) -> None:
    at = now().replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    device = uuid4()
    for second in range(20):
        drain(plain_engine, [Reading(time=at + timedelta(seconds=second), device_id=device, value=1.0)])
    assert run_maintenance(plain_engine, now=now(), retention_days=730).marks_refreshed == 1
    assert samples(plain_engine, "device_events_hourly", device, at) == 20


def test_equal_marks_that_come_during_a_run_are_worked_off_together(
    plain_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MARKS_PER_TRANSACTION_MAX", 2)
    hour = now().replace(minute=0, second=0, microsecond=0)
    device = uuid4()
    drain(plain_engine, [Reading(time=hour - number * HOUR, device_id=device, value=1.0) for number in (3, 2, 1)])
    other = create_engine(plain_engine.url.render_as_string(hide_password=False))

    def drain_more(_: sa.Connection) -> None:
        for second in range(20):
            drain(other, [Reading(time=hour - HOUR + timedelta(seconds=second), device_id=device, value=1.0)])

    sa.event.listen(plain_engine, "commit", drain_more, once=True)
    num_taken = maintenance.refresh_rollups(plain_engine, before=hour)
    other.dispose()
    assert num_taken <= 4
    assert samples(plain_engine, "device_events_hourly", device, hour - HOUR) == 21


def test_a_run_ends_however_many_marks_there_are_and_the_next_goes_on(
    plain_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MARKS_PER_TRANSACTION_MAX", 2)
    monkeypatch.setattr(maintenance, "BITES_PER_RUN_MAX", 3)
    devices = [uuid4() for _ in range(10)]
    at = now().replace(minute=0, second=0, microsecond=0) - 3 * HOUR
    drain(plain_engine, [Reading(time=at, device_id=device, value=1.0) for device in devices])
    runs = [run_maintenance(plain_engine, now=now(), retention_days=730).marks_refreshed for _ in range(3)]
    assert runs == [6, 4, 0]
    assert_aggregates_are_true(plain_engine, devices)


def test_marks_of_the_open_hour_wait_for_its_end(plain_engine: sa.Engine) -> None:
    device = uuid4()
    drain(plain_engine, [Reading(time=now(), device_id=device, value=1.0)])
    moment = now()
    assert run_maintenance(plain_engine, now=moment, retention_days=730).marks_refreshed == 0
    assert run_maintenance(plain_engine, now=moment + HOUR, retention_days=730).marks_refreshed == 1
    assert_aggregates_are_true(plain_engine, [device])
