"""Series out of a long history: cached, from the database, and the same month by hours from the events themselves.

The history is loaded with COPY, a day a transaction, straight into `device_events`, and its aggregates are made as the worker makes
them, before anything is measured. Requests go over HTTP to one `hse api`, one after the other. Then a dashboard is replayed: some
people look at the same charts, each of which asks again every few seconds, and its range moves on with the clock.

With HSE_TEST_TIMESCALE_URL the whole is done for both forms of storage.
"""

import secrets
import statistics
import time
import urllib.parse
import urllib.request
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import redis

from benches.context import Context, Steps
from benches.report import Result, Wanted, check, figure_of
from benches.scenarios.columnstore import own_database
from benches.stack import Stack, running
from hse.adapters.history_cache import PREFIX
from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.maintenance import refresh_rollups
from hse.adapters.tokens import AccessTokens

NAME = "history"
# Of a history of ten million events and more; a smaller one is of less.
DEVICES, DAYS = 1000, 400
FEW_DEVICES, FEW_DAYS = 50, 60
MANY_EVENTS = 10_000_000
# What a request is repeated for.
REPEATS = 40
VIEWERS, REFRESHES, REFRESH_SECONDS = 5, 12, 10
API_LOGIN = "hse_bench_api"
COPY = "copy device_events (time, device_id, event_type, value, unit, source) {} (format binary)"
ONE_DAY = (
    "select cast(%(day)s as timestamptz) + n * (interval '1 day' / cast(%(count)s as integer)), id, 'power',"
    " 1000 * random(), 'kW', 'bench' from devices, generate_series(0, cast(%(count)s as integer) - 1) n order by id, n"
)
BY_HOURS_FROM_EVENTS = (
    "select date_trunc('hour', time, 'UTC') as hour, avg(value), max(value), count(*) from device_events"
    " where device_id = any(%s) and event_type = 'power' and time >= %s and time < %s group by 1 order by 1"
)

Milliseconds = list[float]


def measure(context: Context) -> Result:
    """Measure each form of storage once: what takes time is the loading, and requests are repeated."""
    rounds, notes = [], []
    forms = ["partitions"] if context.timescale_url is None else ["partitions", "timescaledb"]
    with context.task(NAME, 5 * len(forms)) as steps:
        for form in forms:
            with own_database(context.timescale_url or "") if form == "timescaledb" else nullcontext(None) as url:
                # No limit on requests: what is measured is the request, not the limit.
                environment = {
                    "HSE_RATE_LIMIT_ADDRESS_PER_MINUTE": "100000000",
                    "HSE_RATE_LIMIT_USER_PER_MINUTE": "100000000",
                }
                if url is not None:
                    environment |= {"HSE_DATABASE_URL": url, "HSE_API_DATABASE_URL": _api_login(url)}
                with running(context.data_root, environment) as stack:
                    one = _measure_form(stack, steps, form, context.history_events)
            rounds.append(one)
            notes.append(f"{form}: {one}")
    cached, stored = Wanted(text="< 50 ms", at_most=50), Wanted(text="< 200 ms", at_most=200)
    return Result(
        scenario=NAME,
        figures=(
            figure_of("a month by hours, cached, p99", "ms", rounds, "month_cached_p99", cached),
            figure_of("a month by hours, from the database, p99", "ms", rounds, "month_stored_p99", stored),
            figure_of("a year by days of 10 devices, cached, p99", "ms", rounds, "year_cached_p99", cached),
            figure_of("a year by days of 10 devices, from the database, p99", "ms", rounds, "year_stored_p99", stored),
            figure_of("the same month from the events, SQL alone, p50", "ms", rounds, "month_events_p50"),
            figure_of("hits of the replayed dashboard", "%", rounds, "hit_percent", Wanted(text="> 80 %", at_least=80)),
            figure_of("a device's state, p99", "ms", rounds, "state_p99"),
            figure_of("events loaded", "", rounds, "events"),
        ),
        rounds=tuple(rounds),
        notes=tuple(notes),
    )


def _measure_form(stack: Stack, steps: Steps, form: str, num_events: int) -> dict[str, Any]:
    steps.next(f"{form}: loading {num_events:,} events")
    session_id, user_id = _seed(stack, DEVICES if num_events >= MANY_EVENTS else FEW_DEVICES)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    num_days = DAYS if num_events >= MANY_EVENTS else FEW_DAYS
    loaded = _load(stack, today, num_days, num_events)
    steps.next(f"{form}: aggregates")
    _aggregate(stack, form, today)
    caller = _Caller(stack, session_id, user_id)
    devices = _device_ids(stack)
    month = _query(devices[:1], today - timedelta(days=35), today - timedelta(days=5), "1h")
    year = _query(devices[:10], today - timedelta(days=min(365, num_days)), today, "1d")
    found: dict[str, Any] = {"form": form, "events": loaded}
    for name, query in (("month", month), ("year", year)):
        steps.next(f"{form}: {name}")
        found |= _p50_p99(f"{name}_stored", [_timed(caller, query, forget=True) for _ in range(REPEATS)])
        _timed(caller, query)
        found |= _p50_p99(f"{name}_cached", [_timed(caller, query) for _ in range(REPEATS)])
    found |= _p50_p99("month_events", _from_events(stack, devices[:1], today))
    found |= _p50_p99("state", [caller.milliseconds(f"/api/v1/devices/{devices[0]}/state") for _ in range(REPEATS)])
    steps.next(f"{form}: a dashboard")
    found["hit_percent"] = _replay(caller, devices)
    return found


class _Caller:
    """Somebody who asks one `hse api`."""

    def __init__(self, stack: Stack, session_id: UUID, user_id: UUID) -> None:
        self.stack = stack
        self._tokens = AccessTokens((stack.data_dir / "secrets" / "key").read_text(encoding="ascii").strip())
        self._ids = (user_id, session_id)
        self.redis = redis.Redis.from_url(_redis_url(stack))

    def get(self, path: str) -> bytes:
        """What is answered."""
        token = self._tokens.issue(*self._ids, datetime.now(UTC))
        url = f"http://127.0.0.1:{self.stack.ports['api']}{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            body: bytes = answer.read()
        return body

    def milliseconds(self, path: str) -> float:
        """How long the answer takes."""
        start = time.perf_counter()
        self.get(path)
        return (time.perf_counter() - start) * 1e3

    def forget(self) -> None:
        """Empty the cache of the history."""
        for key in self.redis.scan_iter(f"{PREFIX}*"):
            self.redis.delete(key)

    def lookups(self) -> dict[str, float]:
        """What the cache was asked for so far."""
        lines = self.get("/metrics").decode().splitlines()
        name = "hse_api_history_cache_lookups_total{result="
        counted = (line.removeprefix(name).split("} ") for line in lines if line.startswith(name))
        return {result.strip('"'): float(number) for result, number in counted}


def _redis_url(stack: Stack) -> str:
    secret = (stack.data_dir / "secrets" / "valkey").read_text(encoding="ascii").strip()
    return f"redis://:{secret}@127.0.0.1:{stack.ports['redis']}/0"


def _seed(stack: Stack, num_devices: int) -> tuple[UUID, UUID]:
    """Make a site with devices, and an administrator with a session; returns the ids of session and user."""
    session_id = uuid4()
    with stack.connect() as connection:
        connection.execute("insert into organizations (name) values ('History')")
        connection.execute(
            "insert into establishments (organization_id, name, timezone)"
            " select id, 'Site', 'America/Santiago' from organizations where name = 'History'"
        )
        connection.execute(
            "insert into devices (organization_id, establishment_id, name)"
            " select organization_id, id, 'Meter ' || n from establishments, generate_series(1, %s) n",
            [num_devices],
        )
        row = connection.execute(
            "insert into users (email, first_name, last_name, role_id, organization_id, has_all_establishments)"
            " select 'chief@example.com', 'Ana', 'Soto', r.id, o.id, true from roles r, organizations o"
            " where r.name = 'admin' and r.type = 'system' and o.name = 'History' returning id"
        ).fetchone()
        check(row is not None, "the administrator was not made")
        user_id = UUID(str(row[0])) if row else uuid4()
        connection.execute(
            "insert into sessions (id, user_id, expires_at) values (%s, %s, now() + interval '1 day')",
            [session_id, user_id],
        )
    return session_id, user_id


def _api_login(url: str) -> str:
    """See to it that the server has a login for the api, which no superuser may be; returns the database as it signs in."""
    parts = urllib.parse.urlsplit(url)
    password = secrets.token_urlsafe(24)
    with psycopg.connect(url, autocommit=True) as connection:
        for role in ("hse_api", API_LOGIN):
            if connection.execute("select from pg_roles where rolname = %s", [role]).fetchone() is None:
                connection.execute(f"create role {role} nologin")
        connection.execute(f"alter role {API_LOGIN} login noinherit password '{password}'")
        connection.execute(f"grant hse_api to {API_LOGIN}")
    address = f"{API_LOGIN}:{password}@{parts.hostname}:{parts.port}"
    return urllib.parse.urlunsplit(parts._replace(netloc=address))


def _load(stack: Stack, today: datetime, num_days: int, num_events: int) -> int:
    """COPY a day after the other; the server makes the rows up. Returns how many."""
    with stack.connect() as source, psycopg.connect(stack.database_url) as target:
        row = source.execute("select count(*) from devices").fetchone()
        count = max(1, num_events // (num_days * int(row[0]) if row else 1))
        for day in (today - timedelta(days=number) for number in range(1, num_days + 1)):
            target.execute("select ensure_event_partitions(%s, %s)", [day, day])
            target.commit()
            made = psycopg.ClientCursor(source).mogrify(ONE_DAY, {"day": day, "count": count})
            rows = source.cursor().copy(f"copy ({made}) to stdout (format binary)")
            with rows as blocks, target.cursor().copy(COPY.format("from stdin")) as copy:
                for block in blocks:
                    copy.write(block)
            target.commit()
        return num_days * count * int(row[0]) if row else 0


def _aggregate(stack: Stack, form: str, today: datetime) -> None:
    """What the worker, or TimescaleDB's own jobs, would have done in the meantime."""
    with stack.connect() as connection:
        if form == "timescaledb":
            for name in ("device_events_hourly", "device_events_daily"):
                connection.execute(f"call refresh_continuous_aggregate('{name}', null, %s)", [today])
        else:
            connection.execute(
                "insert into rollup_dirty select id, hour from devices,"
                " (select distinct date_trunc('hour', time, 'UTC') as hour from device_events"
                "   where device_id = (select id from devices limit 1)) hours"
            )
            engine = create_engine(stack.database_url)
            refresh_rollups(engine, before=datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
            engine.dispose()
        connection.execute("analyze")


def _device_ids(stack: Stack) -> list[UUID]:
    with stack.connect() as connection:
        return [row[0] for row in connection.execute("select id from devices order by name").fetchall()]


def _query(devices: list[UUID], since: datetime, until: datetime, step: str) -> str:
    parameters = [
        *(("device_id", str(device)) for device in devices),
        *(("function", name) for name in ("avg", "max", "count")),
        ("type", "power"),
        ("from", since.isoformat()),
        ("to", until.isoformat()),
        ("step", step),
        ("points", "1000"),
    ]
    return f"/api/v1/telemetry/series?{urllib.parse.urlencode(parameters)}"


def _timed(caller: _Caller, path: str, *, forget: bool = False) -> float:
    if forget:
        caller.forget()
    return caller.milliseconds(path)


def _from_events(stack: Stack, devices: list[UUID], today: datetime) -> Milliseconds:
    """The month by hours, grouped from the events: what it would cost without aggregates."""
    found = []
    with stack.connect() as connection:
        for _ in range(REPEATS):
            start = time.perf_counter()
            connection.execute(
                BY_HOURS_FROM_EVENTS, [devices, today - timedelta(days=35), today - timedelta(days=5)]
            ).fetchall()
            found.append((time.perf_counter() - start) * 1e3)
    return found


def _replay(caller: _Caller, devices: list[UUID]) -> float:
    """People who look at the same charts, which move on with the clock; returns the hits in percent."""
    caller.forget()
    before = caller.lookups()
    started = datetime.now(UTC)
    for refresh in range(REFRESHES):
        now = started + timedelta(seconds=refresh * REFRESH_SECONDS)
        for _ in range(VIEWERS):
            for span, step in ((1, "auto"), (7, "1h"), (30, "1d")):
                caller.get(_query(devices[:8], now - timedelta(days=span), now, step))
    after = caller.lookups()
    counted = {name: number - before.get(name, 0.0) for name, number in after.items()}
    return 100 * counted["hit"] / max(1.0, sum(counted.values()))


def _p50_p99(name: str, milliseconds: Milliseconds) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {
        f"{name}_p50": statistics.median(ordered),
        f"{name}_p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    }
