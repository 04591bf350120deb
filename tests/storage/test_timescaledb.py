"""What only the TimescaleDB form has: its policies, the columnstore, and a retention that keeps aggregates."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.maintenance import run_maintenance
from tests.storage.conftest import timescale_database
from tests.storage.drain import Reading, drain

DAY = timedelta(days=1)


@pytest.fixture
def own_engine(timescale_server_url: str) -> Iterator[sa.Engine]:
    with timescale_database(timescale_server_url) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


def run_jobs(engine: sa.Engine, procedure: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        jobs = sa.text("select job_id from timescaledb_information.jobs where proc_name = :procedure order by job_id")
        job_ids = connection.execute(jobs, {"procedure": procedure}).scalars().all()
        assert job_ids
        for job_id in job_ids:
            connection.execute(sa.text("call run_job(:job_id)"), {"job_id": job_id})


def count(engine: sa.Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.text(query)).scalar_one())


def test_old_chunks_go_to_the_columnstore_and_still_take_late_events(own_engine: sa.Engine) -> None:
    device = uuid4()
    old = datetime.now(UTC).replace(hour=6) - 20 * DAY
    drain(own_engine, [Reading(time=old + timedelta(seconds=n), device_id=device, value=1.0) for n in range(1000)])
    run_jobs(own_engine, "policy_compression")
    assert count(own_engine, "select count(*) from timescaledb_information.chunks where is_compressed") == 1
    drain(own_engine, [Reading(time=old, device_id=device, value=2.0)])
    run_jobs(own_engine, "policy_refresh_continuous_aggregate")
    assert count(own_engine, "select sum(samples) from device_events_hourly") == 1001
    with own_engine.begin() as connection:
        connection.execute(sa.text("analyze device_events"))
    assert 900 <= count(own_engine, "select event_count_estimate()") <= 1100


def test_retention_drops_events_and_keeps_aggregates(own_engine: sa.Engine) -> None:
    device = uuid4()
    now = datetime.now(UTC)
    dropped_hour = (now - 40 * DAY).replace(minute=0)
    drain(
        own_engine, [Reading(time=dropped_hour + timedelta(seconds=n), device_id=device, value=1.0) for n in range(10)]
    )
    drain(own_engine, [Reading(time=now - 2 * DAY, device_id=device, value=1.0)])
    run_jobs(own_engine, "policy_refresh_continuous_aggregate")
    assert run_maintenance(own_engine, now=now, retention_days=30).event_storage == "timescaledb"
    run_jobs(own_engine, "policy_retention")
    assert count(own_engine, "select count(*) from device_events") == 1
    # It lay in a journal while its day was dropped. A refresh that reached so far back would leave it alone in its hour.
    drain(own_engine, [Reading(time=dropped_hour, device_id=device, value=1.0)])
    run_jobs(own_engine, "policy_refresh_continuous_aggregate")
    assert count(own_engine, "select sum(samples) from device_events_hourly") == 11
    assert count(own_engine, "select sum(samples) from device_events_daily") == 11


def test_the_retention_of_the_settings_is_taken_over_once(own_engine: sa.Engine) -> None:
    jobs = "select max(job_id) from timescaledb_information.jobs"
    now = datetime.now(UTC)
    first = count(own_engine, jobs)
    run_maintenance(own_engine, now=now, retention_days=730)
    assert count(own_engine, jobs) == first
    run_maintenance(own_engine, now=now, retention_days=365)
    assert count(own_engine, "select extract(days from event_retention())") == 365
    changed = count(own_engine, jobs)
    assert changed > first
    run_maintenance(own_engine, now=now, retention_days=365)
    assert count(own_engine, jobs) == changed
