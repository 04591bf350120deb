"""The history as it is read: equal to what the events say, in both forms, whatever is refreshed and whatever came late."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from hse.adapters.history_cache import NoHistoryCache
from hse.adapters.postgres import maintenance
from hse.domain.errors import Invalid, NotFound
from hse.domain.telemetry import queries
from hse.domain.telemetry.model import TooMuchHistory
from hse.domain.telemetry.partials import FUNCTIONS
from hse.domain.telemetry.ports import EventQuery
from hse.domain.telemetry.series import CELLS_MAX, SeriesQuery, series
from tests.storage.drain import Reading, drain, readings
from tests.storage.history import amounts, async_engine, bucket_name, counted, reading, register

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# The clocks of Santiago, Madrid and Lord Howe change in these weeks.
START = datetime(2025, 3, 1, tzinfo=UTC)
MIDDLE = datetime(2025, 3, 29, 5, tzinfo=UTC)
LENGTH = 50 * DAY
TYPES = ("humidity", "temperature")
ZONES = ("UTC", "America/Santiago", "Europe/Madrid", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu")


def refresh(engine: sa.Engine, before: datetime) -> None:
    """Bring the aggregates up to `before`, and let the late hours be forgotten as they are some minutes later."""
    with engine.begin() as connection:
        storage = connection.execute(sa.text("select event_storage()")).scalar_one()
    if storage == "partitions":
        maintenance.refresh_rollups(engine, before=before)
    else:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in ("device_events_hourly", "device_events_daily"):
                connection.execute(
                    sa.text(f"call refresh_continuous_aggregate('{name}', null, :before)"), {"before": before}
                )
    with engine.begin() as connection:
        connection.execute(sa.text("delete from late_hours where bucket < :before"), {"before": before})


def nothing_refreshed(_: sa.Engine, __: list[UUID]) -> list[Reading]:
    return []


def half_refreshed(engine: sa.Engine, _: list[UUID]) -> list[Reading]:
    refresh(engine, MIDDLE)
    return []


def all_refreshed(engine: sa.Engine, _: list[UUID]) -> list[Reading]:
    refresh(engine, START + 2 * LENGTH)
    return []


def late_after_refresh(engine: sa.Engine, devices: list[UUID]) -> list[Reading]:
    refresh(engine, START + 2 * LENGTH)
    late = readings(devices, START + 5 * DAY, 20 * DAY, 40, seed=7)
    drain(engine, late)
    return late


@pytest.mark.timeout(300)
@pytest.mark.parametrize("arrange", [nothing_refreshed, half_refreshed, all_refreshed, late_after_refresh])
def test_series_are_what_the_events_say(
    engine: sa.Engine, arrange: Callable[[sa.Engine, list[UUID]], list[Reading]]
) -> None:
    devices = register(engine, 3)
    events = readings(devices, START, LENGTH, 4000, seed=3)
    drain(engine, events)
    events += arrange(engine, devices)

    with asyncio.Runner() as runner:
        history = async_engine(engine)

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            zone=st.sampled_from(ZONES),
            step=st.sampled_from(["30m", "1h", "6h", "1d", "1w", "1mo"]),
            since=st.integers(min_value=-2 * 24 * 60, max_value=48 * 24 * 60).map(
                lambda n: START + timedelta(minutes=n)
            ),
            length=st.integers(min_value=1, max_value=30 * 24),
            chosen=st.sets(st.sampled_from(devices), min_size=1),
            functions=st.sets(st.sampled_from(list(FUNCTIONS)), min_size=1).map(sorted),
        )
        def check(zone: str, step: str, since: datetime, length: int, chosen: set[UUID], functions: list[str]) -> None:
            hours = min(length, 10 * 24) if step == "30m" else length
            query = SeriesQuery(
                device_ids=tuple(sorted(chosen)),
                event_types=TYPES,
                since=since,
                until=since + hours * HOUR,
                step=step,
                points=2000,
                functions=tuple(functions),
                timezone=zone,
            )
            runner.run(compare(history, query, events))

        try:
            check()
        finally:
            runner.run(history.dispose())


async def compare(history: AsyncEngine, query: SeriesQuery, events: list[Reading]) -> None:
    async with reading(history) as work:
        found = await series(work, NoHistoryCache(), query)
    assert query.timezone is not None
    zone = ZoneInfo(query.timezone)
    ends = [*found.times[1:], found.until]
    within = [event for event in events if found.times[0] <= event.time < found.until]
    true = counted((event for event in within if event.device_id in query.device_ids), query.step, zone)
    assert {(one.device_id, one.event_type) for one in found.series} == true.keys()
    for one in found.series:
        of_series = true[one.device_id, one.event_type]
        for number, (time, end) in enumerate(zip(found.times, ends, strict=True)):
            name = bucket_name(time, query.step, zone)
            assert bucket_name(end - timedelta(microseconds=1), query.step, zone) == name
            expected = amounts(of_series.get(name, []))
            for function in query.functions:
                column = getattr(one, function)
                assert column[number] == pytest.approx(expected[function], abs=1e-9), (function, time)


async def test_gaps_are_gaps_and_units_are_told(engine: sa.Engine) -> None:
    metre, mixed = register(engine, 2)
    drain(
        engine,
        [
            Reading(time=START + HOUR, device_id=metre, value=1.0, unit="m"),
            Reading(time=START + 3 * HOUR, device_id=metre, value=2.0, unit="m"),
            Reading(time=START + 3 * HOUR, device_id=metre, value=None, event_type="alarm"),
            Reading(time=START + HOUR, device_id=mixed, value=1.0, unit="kWh"),
            Reading(time=START + 2 * HOUR, device_id=mixed, value=1000.0, unit="Wh"),
        ],
    )
    refresh(engine, START + LENGTH)
    query = SeriesQuery(
        device_ids=(mixed, metre),
        event_types=("temperature", "alarm", "nothing"),
        since=START,
        until=START + 5 * HOUR,
        step="1h",
        functions=("avg", "count"),
    )
    history = async_engine(engine)
    async with reading(history) as work:
        found = await series(work, NoHistoryCache(), query)
    await history.dispose()
    assert found.times == [START + number * HOUR for number in range(5)]
    several, alarm, one = found.series
    assert (several.device_id, several.unit, several.has_several_units) == (mixed, None, True)
    assert (alarm.event_type, alarm.avg, alarm.count) == ("alarm", [None] * 5, [0, 0, 0, 1, 0])
    assert (one.unit, one.has_several_units) == ("m", False)
    assert one.avg == [None, 1.0, None, 2.0, None]
    assert one.count == [0, 1, 0, 1, 0]
    assert (one.min, one.stddev) == (None, None)


async def test_one_device_s_huge_numbers_stop_nobody_s_aggregates(engine: sa.Engine) -> None:
    huge, sane = register(engine, 2)
    values = [1.7e308, 1.7e308, -1e200, 1e160, 5.0, 7.0]
    drain(engine, [Reading(time=START + timedelta(minutes=n), device_id=huge, value=v) for n, v in enumerate(values)])
    drain(engine, [Reading(time=START, device_id=sane, value=3.0)])
    history = async_engine(engine)
    for is_refreshed in (False, True):
        if is_refreshed:
            refresh(engine, START + LENGTH)
        query = SeriesQuery(
            device_ids=(huge, sane),
            event_types=("temperature",),
            since=START,
            until=START + HOUR,
            step="1h",
            functions=("avg", "count", "stddev"),
        )
        async with reading(history) as work:
            one, other = (await series(work, NoHistoryCache(), query)).series
        assert (one.avg, one.count, one.stddev) == ([6.0], [6], [1.0])
        assert (other.avg, other.count, other.stddev) == ([3.0], [1], [0.0])
    await history.dispose()


async def test_the_newest_of_each_type_is_found_wherever_it_lies(engine: sa.Engine) -> None:
    first, second, silent = register(engine, 3)
    now = datetime.now(UTC)
    long_ago, recent = now - 40 * DAY, now - 5 * HOUR
    drain(
        engine,
        [
            Reading(time=long_ago, device_id=first, value=1.0, event_type="door"),
            Reading(time=recent, device_id=first, value=2.0, event_type="power"),
            Reading(time=recent + timedelta(seconds=1), device_id=first, value=3.0, event_type="power", unit="W"),
            Reading(time=recent, device_id=second, value=4.0, event_type="power"),
        ],
    )
    refresh(engine, now.replace(minute=0, second=0, microsecond=0))
    drain(
        engine,
        [
            Reading(time=now, device_id=second, value=5.0, event_type="power"),
            # It lay in a journal, and nothing but its mark tells of it.
            Reading(time=now - 20 * DAY, device_id=second, value=6.0, event_type="door"),
        ],
    )
    history = async_engine(engine)
    async with reading(history) as work:
        found = await queries.latest(work, [second, silent, first])
        only = await queries.latest(work, [first, second], ["door"])
    await history.dispose()
    assert [(one.device_id, one.event_type, one.value, one.unit) for one in found] == [
        (second, "door", 6.0, None),
        (second, "power", 5.0, None),
        (first, "door", 1.0, None),
        (first, "power", 3.0, "W"),
    ]
    assert [(one.device_id, one.value) for one in only] == [(first, 1.0), (second, 6.0)]


@pytest.mark.parametrize("is_ascending", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 7, 200])
async def test_pages_of_events_go_through_all_of_them_once(engine: sa.Engine, limit: int, is_ascending: bool) -> None:
    (device,) = register(engine, 1)
    # Many at one time, some of them equal in everything, and a long silence.
    times = [START, START, START, START, START + HOUR, START + 3 * DAY, START + 3 * DAY, START + 40 * DAY]
    events = [
        Reading(time=time, device_id=device, value=float(number // 2), event_type=("a", "b")[number % 2])
        for number, time in enumerate(times * 2)
    ]
    drain(engine, events)
    history = async_engine(engine)
    for types in ((), ("a",), ("a", "b")):
        seen: list[tuple[datetime, str, float | None]] = []
        cursor = None
        while True:
            query = EventQuery(
                device_id=device, event_types=types, cursor=cursor, limit=limit, is_ascending=is_ascending
            )
            async with reading(history) as work:
                page = await queries.events(work, query)
            assert len(page.items) <= limit
            seen += [(one.time, one.event_type, one.value) for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        expected = [(one.time, one.event_type, one.value) for one in events if not types or one.event_type in types]
        assert sorted(seen, key=str) == sorted(expected, key=str)
        assert [one[0] for one in seen] == sorted((one[0] for one in seen), reverse=not is_ascending)
    await history.dispose()


async def test_what_cannot_be_answered_is_refused(engine: sa.Engine) -> None:
    devices = register(engine, 2, "America/Santiago") + register(engine, 1, "Europe/Madrid")
    history = async_engine(engine)

    async def ask(**changes: object) -> None:
        asked: dict[str, object] = {
            "device_ids": (devices[0],),
            "event_types": ("power",),
            "since": START,
            "until": START + DAY,
            **changes,
        }
        async with reading(history) as work:
            await series(work, NoHistoryCache(), SeriesQuery(**asked))  # type: ignore[arg-type]

    await ask()
    await ask(device_ids=tuple(devices), timezone="UTC")
    for changes, refusal in (
        ({"device_ids": ()}, Invalid),
        ({"device_ids": (devices[0], uuid4())}, NotFound),
        ({"device_ids": tuple(devices)}, Invalid),
        ({"event_types": ()}, Invalid),
        ({"event_types": ("a\0b",)}, Invalid),
        ({"event_types": tuple("abcdefghijk")}, Invalid),
        ({"until": START}, Invalid),
        ({"since": START.replace(tzinfo=None)}, Invalid),
        ({"since": datetime(1900, 1, 1, tzinfo=UTC)}, Invalid),
        ({"step": "2h"}, Invalid),
        ({"step": "1s"}, Invalid),
        ({"points": 2001}, Invalid),
        ({"functions": ("median",)}, Invalid),
        ({"functions": ()}, Invalid),
        ({"timezone": "../UTC"}, Invalid),
        ({"step": "30m", "until": START + 40 * DAY, "points": 2000}, TooMuchHistory),
        ({"step": "1h", "until": START + 80 * DAY, "points": 2000, "event_types": tuple("abcdefghij")}, None),
    ):
        if refusal is None:
            await ask(**changes)
        else:
            with pytest.raises(refusal):
                await ask(**changes)
    await history.dispose()
    assert CELLS_MAX >= 2000 * 10


def stored_late_hours(engine: sa.Engine, device: UUID) -> int:
    with engine.connect() as connection:
        count = sa.text("select count(*) from late_hours where device_id = :id")
        return int(connection.execute(count, {"id": device}).scalar_one())


def test_late_hours_are_forgotten_once_they_are_counted_and_nobody_can_have_kept_them(plain_engine: sa.Engine) -> None:
    (device,) = register(plain_engine, 1)
    age = sa.text("update late_hours set marked_at = marked_at - interval '11 minutes' where device_id = :id")
    drain(plain_engine, [Reading(time=START, device_id=device, value=1.0)])
    maintenance.run_maintenance(plain_engine, now=datetime.now(UTC), retention_days=730)
    assert stored_late_hours(plain_engine, device) == 1
    with plain_engine.begin() as connection:
        connection.execute(age, {"id": device})
        before = connection.execute(sa.text("select pg_current_snapshot()::text")).scalar_one()
    # What was marked after the refresh began stays, whatever its age.
    drain(plain_engine, [Reading(time=START, device_id=device, value=2.0)])
    with plain_engine.begin() as connection:
        connection.execute(age, {"id": device})
        forget = sa.text("select forget_late_hours(cast(:before as pg_snapshot))")
        assert connection.execute(forget, {"before": before}).scalar_one() == 1
    report = maintenance.run_maintenance(plain_engine, now=datetime.now(UTC), retention_days=730)
    assert report.late_hours_forgotten == 1
    assert stored_late_hours(plain_engine, device) == 0


def test_late_hours_are_remembered_while_a_run_leaves_some_uncounted(
    plain_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MARKS_PER_TRANSACTION_MAX", 2)
    monkeypatch.setattr(maintenance, "BITES_PER_RUN_MAX", 1)
    devices = register(plain_engine, 3)
    drain(plain_engine, [Reading(time=START, device_id=device, value=1.0) for device in devices])
    with plain_engine.begin() as connection:
        connection.execute(sa.text("update late_hours set marked_at = marked_at - interval '11 minutes'"))
    runs = [maintenance.run_maintenance(plain_engine, now=datetime.now(UTC), retention_days=730) for _ in range(2)]
    assert [report.late_hours_forgotten for report in runs] == [0, 3]
