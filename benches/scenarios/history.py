"""Series out of a long history: cached, from the database, and the same month by hours from the events themselves.

What is measured are whole requests over HTTP to one `hse api`, by one client and by eight at once, each of which asks again as soon
as it was answered. What comes from the database is asked for devices that nobody asked for before, so that neither the api nor
PostgreSQL has just seen it. With HSE_TEST_TIMESCALE_URL all of it is done for both forms of storage.
"""

import asyncio
import secrets
import time
import urllib.parse
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from benches.callers import UNLIMITED, Caller, Milliseconds, add_callers, quantiles, timed
from benches.context import Context, Steps
from benches.devices import connected
from benches.fleet import Fleet
from benches.long_history import DAYS, LongHistory, load, num_devices_for
from benches.report import Figure, Result, Wanted, figure_of
from benches.scenarios.columnstore import own_database
from benches.stack import Stack, running
from hse.simulation.identities import load_identities

NAME = "history"
CLIENTS = (1, 8)
# Requests of one measurement; of quick ones so many that the p99 is not that of a handful.
MANY, FEW, RAW = 2000, 60, 20
# More than the api has connections to the database, each of which prepares its statements for itself.
WARM_UP = 60
DEVICES_OF_YEAR = 10
MONTH = timedelta(days=30)
API_LOGIN = "hse_bench_api"
BY_HOURS_FROM_EVENTS = (
    "select date_trunc('hour', time, 'UTC') as hour, avg(value), max(value), count(*) from device_events"
    " where device_id = %s and event_type = 'power' and time >= %s and time < %s group by 1 order by 1"
)
STATE, CACHED, STORED = (Wanted(text=f"< {most} ms", at_most=most) for most in (5, 50, 200))
TITLES = {
    "state": ("a device's state", STATE),
    "month_cached": ("a month by hours, cached", CACHED),
    "month_stored": ("a month by hours, from the database", STORED),
    "year_cached": (f"a year by days of {DEVICES_OF_YEAR} devices, cached", CACHED),
    "year_stored": (f"a year by days of {DEVICES_OF_YEAR} devices, from the database", STORED),
}


def measure(context: Context) -> Result:
    """Measure each form of storage once: what takes time is the loading, and requests are repeated."""
    rounds: list[dict[str, Any]] = []
    forms = ["partitions"] if context.timescale_url is None else ["partitions", "timescaledb"]
    with context.task(NAME, (2 + len(TITLES) * len(CLIENTS)) * len(forms)) as steps:
        for form in forms:
            with own_database(context.timescale_url or "") if form == "timescaledb" else nullcontext(None) as url:
                environment = dict(UNLIMITED)
                if url is not None:
                    environment |= {"HSE_DATABASE_URL": url, "HSE_API_DATABASE_URL": _api_login(url)}
                with running(context.data_root, environment) as stack:
                    rounds.append({"form": form, **_measure_form(stack, steps, form, context.history_events)})
    return Result(
        scenario=NAME,
        figures=tuple(figure for one in rounds for figure in _figures(one)),
        rounds=tuple(rounds),
        notes=(
            "the closed loop of 8 clients waits for one api process: its time is 8 requests long, not one",
            "the same month from the events is SQL alone, without api; the state is one that the core keeps in Redis",
        ),
    )


def _figures(one: dict[str, Any]) -> list[Figure]:
    form, found = one["form"], [figure_of(f"{one['form']}: events loaded", "", [one], "events")]
    for name, (title, wanted) in TITLES.items():
        for clients in CLIENTS:
            by = "" if clients == 1 else f", {clients} clients"
            found.append(figure_of(f"{form}: {title}{by}, p50", "ms", [one], f"{name}_{clients}_p50"))
            found.append(figure_of(f"{form}: {title}{by}, p99", "ms", [one], f"{name}_{clients}_p99", wanted))
    found.append(figure_of(f"{form}: the same month from the events, p50", "ms", [one], "month_events_p50"))
    found.append(figure_of(f"{form}: seconds of loading", "s", [one], "loading_s"))
    return found


def _measure_form(stack: Stack, steps: Steps, form: str, num_events: int) -> dict[str, Any]:
    steps.next(f"{form}: loading {num_events:,} events")
    started = time.monotonic()
    fleet = stack.add_devices(NAME, num_devices_for(num_events))
    (caller,) = add_callers(stack, 1)
    history = load(stack, num_events, steps.say)
    found: dict[str, Any] = {"events": history.num_events, "loading_s": time.monotonic() - started}
    devices = [one.device_id for one in load_identities(fleet.path)]
    asyncio.run(_measure_requests(stack, steps, found, caller, fleet, _Paths(history, devices)))
    steps.next(f"{form}: from the events")
    return found | quantiles("month_events", _from_events(stack, devices, history.today))


class _Paths:
    """What is asked for. `stored` paths are never the same twice, as long as there are devices and days."""

    def __init__(self, history: LongHistory, devices: Sequence[UUID]) -> None:
        self._today = history.today
        self._devices = devices
        self._num_asked = 0

    def of(self, name: str) -> list[str]:
        """The paths of one measurement."""
        if name == "state":
            return [f"/api/v1/devices/{self._devices[number % len(CLIENTS)]}/state" for number in range(MANY)]
        number = MANY if name == "month_cached" else FEW
        ask = self._month if name.startswith("month") else self._year
        if name.endswith("_cached"):
            return [ask(0)] * number
        paths = [ask(self._num_asked + 1 + one) for one in range(number)]
        self._num_asked += number
        return paths

    def _month(self, number: int) -> str:
        shift, device = divmod(number, len(self._devices))
        until = self._today - timedelta(days=5 + shift)
        return _path([self._devices[device]], until - MONTH, until, "1h")

    def _year(self, number: int) -> str:
        num_groups = len(self._devices) // DEVICES_OF_YEAR
        shift, group = divmod(number, num_groups)
        devices = self._devices[group * DEVICES_OF_YEAR :][:DEVICES_OF_YEAR]
        until = self._today - timedelta(days=shift % (DAYS - 365))
        return _path(devices, until - timedelta(days=365), until, "1d")


async def _measure_requests(
    stack: Stack, steps: Steps, found: dict[str, Any], caller: Caller, fleet: Fleet, paths: _Paths
) -> None:
    async with connected(stack, fleet, len(CLIENTS)) as devices:
        for device in devices:
            await device.send("power", 1.0)
        for name, (title, _) in TITLES.items():
            for clients in CLIENTS:
                steps.next(f"{title}, {clients} clients")
                requests = [caller.get(path) for path in paths.of(name)]
                if not name.endswith("_stored"):
                    # Connections are opened, statements prepared and entries made before.
                    await timed(caller.port, (requests * WARM_UP)[:WARM_UP], clients=clients)
                found |= quantiles(f"{name}_{clients}", await timed(caller.port, requests, clients=clients))


def _path(devices: Sequence[UUID], since: datetime, until: datetime, step: str) -> str:
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


def _from_events(stack: Stack, devices: Sequence[UUID], today: datetime) -> Milliseconds:
    """The month by hours, grouped from the events: what it would cost without aggregates."""
    found = []
    until = today - timedelta(days=5)
    with stack.connect() as connection:
        for device in devices[-RAW:]:
            start = time.perf_counter()
            connection.execute(BY_HOURS_FROM_EVENTS, [device, until - MONTH, until], prepare=False).fetchall()
            found.append((time.perf_counter() - start) * 1e3)
    return found


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
