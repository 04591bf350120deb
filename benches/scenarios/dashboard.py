"""A replayed dashboard: people of one site look at the same screens, each of which asks again every few seconds, as time goes on.

Time is replayed: each refresh asks for ranges that end some seconds later than the ones before. What the cache of the history was
asked for, and what it had, is read from the api's own metrics.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from benches.callers import UNLIMITED, Caller, Connection, Milliseconds, add_callers, quantiles
from benches.context import Context
from benches.long_history import load
from benches.report import Result, Wanted, check, figure_of
from benches.stack import Stack, running
from hse.simulation.identities import load_identities

NAME = "dashboard"
DEVICES, DAYS, EVENTS = 40, 40, 400_000
VIEWERS, SCREENS, DEVICES_OF_SCREEN = 5, 5, 8
REFRESHES, REFRESH_SECONDS = 36, 10
# Days, and in which steps.
CHARTS = ((1, "auto"), (7, "1h"), (30, "1d"))
LOOKUPS = "hse_api_history_cache_lookups_total{result="


def measure(context: Context) -> Result:
    """Replay it once; its rounds are its refreshes."""
    refreshes = REFRESHES // 6 if context.is_quick else REFRESHES
    with running(context.data_root, UNLIMITED) as stack, context.task(NAME, 2) as steps:
        steps.next(f"loading {EVENTS:,} events")
        fleet = stack.add_devices(NAME, DEVICES)
        viewers = add_callers(stack, VIEWERS)
        load(stack, EVENTS, steps.say, days=DAYS)
        steps.next(f"{refreshes} refreshes")
        devices = [one.device_id for one in load_identities(fleet.path)]
        one = asyncio.run(_replay(stack, viewers, devices, refreshes))
    return Result(
        scenario=NAME,
        figures=(
            figure_of("lookups that were hits", "%", [one], "hit_percent", Wanted(text="> 80 %", at_least=80)),
            figure_of("a request, p50", "ms", [one], "request_p50"),
            figure_of("a request, p99", "ms", [one], "request_p99"),
            figure_of("requests/s", "/s", [one], "requests_per_s"),
        ),
        rounds=(one,),
        notes=(
            f"{VIEWERS} people; {SCREENS} screens of {DEVICES_OF_SCREEN} devices, {len(CHARTS)} charts, newest events and states;"
            f" {refreshes} refreshes, {REFRESH_SECONDS} s of replayed time apart",
        ),
    )


async def _replay(stack: Stack, viewers: Sequence[Caller], devices: Sequence[UUID], refreshes: int) -> dict[str, Any]:
    connections = [await Connection.open(one.port) for one in viewers]
    before, begun_at, started = await _lookups(stack, viewers[0]), time.monotonic(), datetime.now(UTC)
    taken: Milliseconds = []

    async def look(viewer: Caller, connection: Connection, now: datetime) -> None:
        for screen in range(SCREENS):
            for path in _screen(devices[screen * DEVICES_OF_SCREEN :][:DEVICES_OF_SCREEN], now):
                taken.append(await connection.timed(viewer.get(path)))

    for refresh in range(refreshes):
        now = started + timedelta(seconds=refresh * REFRESH_SECONDS)
        await asyncio.gather(*(look(who, where, now) for who, where in zip(viewers, connections, strict=True)))
    seconds = time.monotonic() - begun_at
    after = await _lookups(stack, viewers[0])
    for one in connections:
        one.close()
    counted = {name: number - before.get(name, 0.0) for name, number in after.items()}
    check(counted.get("away", 0.0) == 0, "Redis was away")
    return {
        **quantiles("request", taken),
        "requests_per_s": len(taken) / seconds,
        "hit_percent": 100 * counted["hit"] / max(1.0, sum(counted.values())),
        "lookups": counted,
    }


def _screen(devices: Sequence[UUID], now: datetime) -> list[str]:
    """What one screen asks for."""
    ids = [("device_id", str(one)) for one in devices]
    charts = [
        urlencode([
            *ids, ("type", "power"), ("function", "avg"), ("function", "max"), ("step", step),
            ("from", (now - timedelta(days=days)).isoformat()), ("to", now.isoformat()),
        ])
        for days, step in CHARTS
    ]  # fmt: skip
    others = [f"/api/v1/telemetry/{name}?{urlencode(ids)}" for name in ("latest", "states")]
    return [*(f"/api/v1/telemetry/series?{one}" for one in charts), *others]


async def _lookups(stack: Stack, caller: Caller) -> dict[str, float]:
    """What the cache was asked for so far."""
    connection = await Connection.open(stack.ports["api"])
    _, body = await connection.ask(caller.get("/metrics"))
    connection.close()
    counted = (
        line.removeprefix(LOOKUPS).split("} ") for line in body.decode().splitlines() if line.startswith(LOOKUPS)
    )
    return {result.strip('"'): float(number) for result, number in counted}
