"""A history that is long enough to ask of: events of many devices over hundreds of days, and the aggregates of them.

The server makes the rows up and stores them itself, two days at a time, in the order in which devices would report: what a driver
would add is time. Aggregates are made with the worker's own expression, a day a statement instead of an hour and a device at a
time; a sample of them is then held against what the worker makes of the same events.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from benches.report import check
from benches.stack import Stack

DAYS = 400
DEVICES_MAX, DEVICES_MIN = 1000, 20
# Every hour of every device has some.
EVENTS_PER_DEVICE_DAY = 96
# What TimescaleDB's own job would have done by now.
COLUMNSTORE_AFTER = timedelta(days=7)

EVENTS = (
    "insert into device_events (time, device_id, event_type, value, unit, source)"
    " select cast(%(day)s as timestamptz) + n * (interval '1 day' / cast(%(count)s as integer)), id, 'power', 1000 * random(),"
    " 'kW', 'bench' from generate_series(0, cast(%(count)s as integer) - 1) n, devices order by n, id"
)
HOURS = (
    "insert into rollup_hourly (bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max,"
    " unit_min, unit_max, value_square_deviation)"
    " select date_trunc('hour', time, 'UTC'), device_id, event_type, count(*), count(countable(value)), sum(countable(value)),"
    " avg(countable(value)), min(countable(value)), max(countable(value)), min(unit), max(unit),"
    " var_pop(countable(value)) * count(countable(value))"
    " from device_events where time >= %(day)s and time < cast(%(day)s as timestamptz) + interval '1 day'"
    " group by 1, 2, 3 order by 1, 2"
)
DAYS_OF_HOURS = (
    "insert into rollup_daily (bucket, device_id, event_type, samples, value_count, value_sum, value_avg, value_min, value_max,"
    " unit_min, unit_max)"
    " select date_trunc('day', bucket, 'UTC'), device_id, event_type, sum(samples)::bigint, sum(value_count)::bigint,"
    " sum(value_sum), sum(value_sum) / nullif(sum(value_count), 0), min(value_min), max(value_max), min(unit_min), max(unit_max)"
    " from rollup_hourly where bucket >= %(day)s and bucket < cast(%(day)s as timestamptz) + interval '1 day' group by 1, 2, 3"
)
SAMPLED = (
    "select bucket, device_id, samples, round(value_sum::numeric, 6), value_min, value_max, unit_min from rollup_hourly"
    " where device_id = %(device)s and bucket >= %(day)s order by bucket"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongHistory:
    """How much of it there is; `today` is where it ends."""

    num_devices: int
    num_events: int
    today: datetime


def num_devices_for(num_events: int) -> int:
    """How many devices so many events are spread over."""
    return max(DEVICES_MIN, min(DEVICES_MAX, num_events // (EVENTS_PER_DEVICE_DAY * DAYS)))


def load(stack: Stack, num_events: int, say: Callable[[str], None], *, days: int = DAYS) -> LongHistory:
    """Store some `num_events` events of the devices that there are, and their aggregates; `say` is told how far it is."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with stack.connect() as connection:
        form = str(_one(connection, "select event_storage()"))
        num_devices = int(_one(connection, "select count(*) from devices"))
        if form == "timescaledb":
            # What these would do is done here, and not while something is measured.
            connection.execute("select alter_job(job_id, scheduled => false) from timescaledb_information.jobs")
    count = max(24, num_events // (days * num_devices))
    num_done = 0
    with ThreadPoolExecutor(max_workers=2) as executor:
        made = [
            executor.submit(_load_day, stack, form, today - timedelta(days=number), count)
            for number in range(1, days + 1)
        ]
        for one in as_completed(made):
            one.result()
            num_done += 1
            say(f"{form}: {num_done * count * num_devices:,} events")
    say(f"{form}: aggregates")
    with stack.connect() as connection:
        if form == "timescaledb":
            _finish_hypertable(connection, today)
        else:
            _finish_rollups(connection, today)
        say(f"{form}: what a database has done by itself in so long a time")
        connection.execute("vacuum (analyze)")
        connection.execute("checkpoint")
    return LongHistory(num_devices=num_devices, num_events=days * count * num_devices, today=today)


def _load_day(stack: Stack, form: str, day: datetime, count: int) -> None:
    with stack.connect() as connection:
        connection.execute("select ensure_event_partitions(%s, %s)", [day, day])
        connection.execute(EVENTS, {"day": day, "count": count})
        if form == "partitions":
            connection.execute(HOURS, {"day": day})
            connection.execute(DAYS_OF_HOURS, {"day": day})


def _finish_rollups(connection: psycopg.Connection[tuple[Any, ...]], today: datetime) -> None:
    """Say how far the aggregates reach, as the worker does, and hold a day of a device against what it would have made."""
    connection.execute("vacuum (analyze) rollup_hourly, rollup_daily")
    sample = {"device": _one(connection, "select min(id::text)::uuid from devices"), "day": today - timedelta(days=1)}
    ours = connection.execute(SAMPLED, sample).fetchall()
    connection.execute(
        "insert into rollup_dirty select %(device)s, bucket from generate_series(%(day)s, cast(%(day)s as timestamptz) +"
        " interval '23 hours', interval '1 hour') bucket",
        sample,
    )
    connection.execute("select refresh_rollups(date_trunc('hour', now(), 'UTC'), 10000)")
    check(
        len(ours) > 0 and connection.execute(SAMPLED, sample).fetchall() == ours, "aggregates differ from the worker's"
    )


def _finish_hypertable(connection: psycopg.Connection[tuple[Any, ...]], today: datetime) -> None:
    for name in ("device_events_hourly", "device_events_daily"):
        connection.execute(f"call refresh_continuous_aggregate('{name}', null, %s)", [today])
    connection.execute(
        "select compress_chunk(chunk, true) from show_chunks('device_events', older_than => %s) chunk",
        [today - COLUMNSTORE_AFTER],
    )


def _one(connection: psycopg.Connection[tuple[Any, ...]], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    check(row is not None, query)
    return row[0] if row else None
