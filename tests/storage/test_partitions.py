"""Partitions of the plain form: made beside running COPYs, dropped without losing aggregates."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres import maintenance, maintenance_clock
from hse.adapters.postgres.maintenance import MaintenanceReport, run_maintenance
from hse.adapters.postgres.maintenance_clock import ClocksDiffer, agreed_now, look
from tests.storage.drain import Reading, copy_events, drain, ensure_partitions
from tests.storage.waiting import wait_until_blocked

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)

ENSURE = sa.text("select ensure_event_partitions(:since, :until)")


def partition_names(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("select inhrelid::regclass::text from pg_inherits where inhparent = 'device_events'::regclass")
        )
        return sorted(rows.scalars())


def num_events(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text("select count(*) from device_events")).scalar_one())


def hourly_samples(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text("select sum(samples) from device_events_hourly")).scalar_one())


def rolled_up_until(engine: sa.Engine) -> datetime:
    with engine.connect() as connection:
        until: datetime = connection.execute(sa.text("select open_from from rollup_state")).scalar_one()
        return until


def test_every_day_that_the_range_touches_gets_a_partition_once(plain_engine: sa.Engine) -> None:
    before = partition_names(plain_engine)
    with plain_engine.begin() as connection:
        moments = {"since": datetime(2025, 3, 1, 23, 59, tzinfo=UTC), "until": datetime(2025, 3, 3, tzinfo=UTC)}
        assert connection.execute(ENSURE, moments).scalar_one() == 3
        assert connection.execute(ENSURE, moments).scalar_one() == 0
    made = sorted(set(partition_names(plain_engine)) - set(before))
    assert made == ["device_events_p20250301", "device_events_p20250302", "device_events_p20250303"]
    first_and_last = [datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 3, 3, 23, 59, 59, 999999, tzinfo=UTC)]
    with plain_engine.begin() as connection:
        copy_events(connection, [Reading(time=time, device_id=uuid4(), value=None) for time in first_and_last])


def test_a_partition_has_the_one_index(plain_engine: sa.Engine) -> None:
    with plain_engine.begin() as connection:
        connection.execute(ENSURE, {"since": NOON, "until": NOON})
        definitions = connection.execute(
            sa.text("select indexdef from pg_indexes where tablename = 'device_events_p20250301'")
        ).scalars()
        assert [definition.split(" USING ")[1] for definition in definitions] == ['btree (device_id, "time" DESC)']


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("-infinity", "now"),
        ("now", "infinity"),
        ("2025-03-02", "2025-03-01"),
        ("2000-01-01", "2025-01-01"),
        (None, "now"),
    ],
)
def test_a_range_without_sense_is_refused(plain_engine: sa.Engine, since: str | None, until: str) -> None:
    with plain_engine.begin() as connection, pytest.raises(sa.exc.DataError, match="cannot make event partitions"):
        connection.execute(
            sa.text("select ensure_event_partitions(cast(:since as timestamptz), cast(:until as timestamptz))"),
            {"since": since, "until": until},
        )


def test_making_a_partition_and_copying_do_not_wait_for_each_other(plain_engine: sa.Engine) -> None:
    event = Reading(time=NOON, device_id=uuid4(), value=1.0)
    ensure_partitions(plain_engine, [event])
    with plain_engine.begin() as copying, plain_engine.begin() as making, plain_engine.begin() as copying_after:
        for connection in (copying, making, copying_after):
            connection.execute(sa.text("set local lock_timeout = '3s'"))
        copy_events(copying, [event])
        assert making.execute(ENSURE, {"since": NOON + DAY, "until": NOON + 3 * DAY}).scalar_one() == 3
        copy_events(copying_after, [event])
        copy_events(copying, [event])
    assert num_events(plain_engine) == 3


def test_many_nodes_make_each_partition_once(plain_engine: sa.Engine) -> None:
    def ensure(_: int) -> int:
        with plain_engine.begin() as connection:
            return int(connection.execute(ENSURE, {"since": NOON, "until": NOON + 9 * DAY}).scalar_one())

    with ThreadPoolExecutor(max_workers=5) as pool:
        assert sum(pool.map(ensure, range(5))) == 10


def test_maintenance_makes_a_week_ahead(plain_engine: sa.Engine) -> None:
    assert run_maintenance(plain_engine, now=NOON, retention_days=730).partitions_made == 8
    assert run_maintenance(plain_engine, now=NOON, retention_days=730).partitions_made == 0
    assert run_maintenance(plain_engine, now=NOON + DAY, retention_days=730).partitions_made == 1


def maintain_after(engine: sa.Engine, days: int) -> MaintenanceReport:
    """A run at a time that nobody doubts: the last one was not long before."""
    with engine.begin() as connection:
        connection.execute(sa.text("update maintenance_clock set believed_at = :now"), {"now": NOON + days * DAY})
    return run_maintenance(engine, now=NOON + days * DAY, retention_days=30)


def test_retention_drops_events_and_keeps_aggregates(plain_engine: sa.Engine) -> None:
    device = uuid4()
    drain(plain_engine, [Reading(time=NOON, device_id=device, value=float(n)) for n in range(10)])
    drain(plain_engine, [Reading(time=NOON + DAY, device_id=device, value=1.0)])
    assert maintain_after(plain_engine, 30).partitions_dropped == ()
    assert maintain_after(plain_engine, 31).partitions_dropped == ("device_events_p20250301",)
    assert num_events(plain_engine) == 1
    assert hourly_samples(plain_engine) == 11


def test_a_clock_that_leapt_ahead_drops_nothing_and_is_forgotten_when_it_is_right_again(
    plain_engine: sa.Engine,
) -> None:
    def say(at: datetime) -> None:
        drain(plain_engine, [Reading(time=at, device_id=uuid4(), value=1.0)])

    say(NOON)
    maintain_after(plain_engine, 0)
    say(NOON + 2 * HOUR)
    report = run_maintenance(plain_engine, now=NOON + 1100 * DAY, retention_days=30)
    assert (report.is_clock_doubted, report.as_of, report.partitions_dropped) == (True, NOON, ())
    assert run_maintenance(plain_engine, now=NOON + 3 * HOUR, retention_days=30).is_clock_doubted is False
    say(NOON + 4 * HOUR)
    run_maintenance(plain_engine, now=NOON + 6 * HOUR, retention_days=30)
    assert (num_events(plain_engine), hourly_samples(plain_engine)) == (3, 3)
    assert rolled_up_until(plain_engine) == NOON + 6 * HOUR


def test_what_was_switched_off_for_months_goes_on_after_days_of_running(plain_engine: sa.Engine) -> None:
    drain(plain_engine, [Reading(time=NOON, device_id=uuid4(), value=1.0)])
    maintain_after(plain_engine, 0)
    now = NOON + 100 * DAY
    assert run_maintenance(plain_engine, now=now, retention_days=30).is_clock_doubted
    # An hour a day is running, too.
    while look(plain_engine, now).is_doubted:
        now += maintenance_clock.LOOK_MAX if now.hour == 12 else 23 * HOUR
        assert now < NOON + 300 * DAY
    assert now > NOON + 160 * DAY
    report = run_maintenance(plain_engine, now=now, retention_days=30)
    assert "device_events_p20250301" in report.partitions_dropped
    assert hourly_samples(plain_engine) == 1


def test_clocks_that_differ_are_refused_and_of_others_the_earlier_one_counts(plain_engine: sa.Engine) -> None:
    now = datetime.now(UTC)
    for wrong in (now + HOUR, now - HOUR):
        with pytest.raises(ClocksDiffer, match="set them right"):
            agreed_now(plain_engine, wrong)
    assert agreed_now(plain_engine, now) == now
    assert agreed_now(plain_engine, now + HOUR / 20) < now + HOUR / 20


def test_a_mark_whose_events_were_dropped_does_not_wipe_aggregates(plain_engine: sa.Engine) -> None:
    device = uuid4()
    drain(plain_engine, [Reading(time=NOON, device_id=device, value=float(n)) for n in range(10)])
    maintain_after(plain_engine, 31)
    # It lay in a journal while its day was dropped: it is stored, and dropped again, but its hour's aggregate is final.
    drain(plain_engine, [Reading(time=NOON, device_id=device, value=99.0)])
    assert num_events(plain_engine) == 1
    assert maintain_after(plain_engine, 31).partitions_dropped == ("device_events_p20250301",)
    assert hourly_samples(plain_engine) == 10


def test_late_events_are_counted_before_their_day_is_dropped(plain_engine: sa.Engine) -> None:
    device = uuid4()
    drain(plain_engine, [Reading(time=NOON, device_id=device, value=1.0)])
    maintain_after(plain_engine, 5)
    drain(plain_engine, [Reading(time=NOON, device_id=device, value=2.0)])
    assert maintain_after(plain_engine, 31).partitions_dropped == ("device_events_p20250301",)
    assert hourly_samples(plain_engine) == 2


def test_a_day_with_more_late_hours_than_a_run_counts_is_dropped_by_a_later_one(
    plain_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MARKS_PER_TRANSACTION_MAX", 1)
    monkeypatch.setattr(maintenance, "BITES_PER_RUN_MAX", 2)
    drain(plain_engine, [Reading(time=NOON, device_id=uuid4(), value=1.0) for _ in range(5)])
    report = maintain_after(plain_engine, 31)
    assert report.partitions_dropped == ()
    assert report.drop_postponed == "too many late hours are still to be counted"
    report = maintain_after(plain_engine, 31)
    assert report.partitions_dropped == ("device_events_p20250301",)
    assert hourly_samples(plain_engine) == 5


def test_a_drop_that_waits_for_a_reader_does_not_stop_writers(plain_engine: sa.Engine) -> None:
    drain(plain_engine, [Reading(time=NOON, device_id=uuid4(), value=1.0)])
    fresh = Reading(time=NOON + 31 * DAY, device_id=uuid4(), value=1.0)
    ensure_partitions(plain_engine, [fresh])
    with ThreadPoolExecutor(max_workers=1) as pool:
        with plain_engine.connect() as reader:
            reader.execute(sa.text("select count(*) from device_events"))
            maintained = pool.submit(maintain_after, plain_engine, 31)
            wait_until_blocked(plain_engine, "alter table device_events detach%")
            with plain_engine.begin() as writer:
                writer.execute(sa.text("set local lock_timeout = '3s'"))
                copy_events(writer, [fresh])
        assert maintained.result().partitions_dropped == ("device_events_p20250301",)
    assert num_events(plain_engine) == 1


def test_a_drop_that_was_interrupted_is_finished_later(
    plain_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "DROP_TIMEOUT", timedelta(seconds=1))
    event = Reading(time=NOON, device_id=uuid4(), value=1.0)
    drain(plain_engine, [event])
    with plain_engine.connect() as reader:
        reader.execute(sa.text("select count(*) from device_events"))
        report = maintain_after(plain_engine, 31)
        assert report.partitions_dropped == ()
        assert report.drop_postponed is not None
        drain(plain_engine, [Reading(time=NOON + 31 * DAY, device_id=uuid4(), value=1.0)])
    report = maintain_after(plain_engine, 31)
    assert report.partitions_dropped == ("device_events_p20250301",)
    assert report.drop_postponed is None
    assert num_events(plain_engine) == 1


def test_an_event_for_a_half_dropped_day_finds_a_partition(
    plain_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "DROP_TIMEOUT", timedelta(seconds=1))
    event = Reading(time=NOON, device_id=uuid4(), value=1.0)
    drain(plain_engine, [event])
    with plain_engine.connect() as reader:
        reader.execute(sa.text("select count(*) from device_events"))
        assert maintain_after(plain_engine, 31).drop_postponed is not None
    drain(plain_engine, [event])
    assert num_events(plain_engine) == 2


@pytest.mark.parametrize("retention_days", [0, 6, -1])
def test_a_retention_below_a_week_is_refused(plain_engine: sa.Engine, retention_days: int) -> None:
    with pytest.raises(ValueError, match="7 days at least"):
        run_maintenance(plain_engine, now=NOON, retention_days=retention_days)
