"""What people do to devices: ACK p99 at a steady rate, alone and while dashboards are looked at and fifty people a second sign in.

Signing in is what costs: argon2id takes some 25 ms of a core each time, so fifty a second are more than one core of the two that
ingest, database and load share. The two variants take turns within each round.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benches.callers import UNLIMITED, Caller, Connection, Milliseconds, add_callers, quantiles
from benches.context import Context
from benches.fleet import Fleet
from benches.report import Result, Wanted, check, figure_of
from benches.scenarios.dashboard import DEVICES_OF_SCREEN
from benches.stack import Stack, running
from hse.adapters.passwords import Argon2Passwords
from hse.simulation.identities import load_identities

NAME = "beside"
EVENTS_PER_S = 20_000
EVENTS_PER_FRAME = 10
CONNECTIONS = 100
# An account can be tried ten times at once, so there are many.
PEOPLE, VIEWERS, LOOKS_PER_S = 100, 5, 20
LOGINS_PER_S = 50
PASSWORD = "correct horse battery staple, twice"  # noqa: S105 (of nobody)
WARM_UP_SECONDS = 2


def measure(context: Context) -> Result:
    """Measure all rounds."""
    rounds = []
    with running(context.data_root, UNLIMITED) as stack, context.task(NAME, 2 * context.rounds) as steps:
        fleet = stack.add_devices(NAME, CONNECTIONS)
        viewers = add_callers(stack, PEOPLE)[:VIEWERS]
        emails = _give_passwords(stack)
        for number in range(context.rounds):
            one: dict[str, Any] = {}
            for variant in ("alone", "beside"):
                steps.next(f"round {number + 1}: {variant}")
                stack.empty_events()
                people = People(viewers, emails, fleet) if variant == "beside" else None
                one |= asyncio.run(_variant(context, stack, fleet, people, variant))
            rounds.append({**one, "p99_ratio": one["beside_p99_ms"] / one["alone_p99_ms"]})
    return Result(
        scenario=NAME,
        figures=(
            figure_of("ACK p99 beside people / alone", "x", rounds, "p99_ratio", Wanted(text="<= 1.2", at_most=1.2)),
            *(
                figure_of(f"ACK {quantile}, {variant}", "ms", rounds, f"{variant}_{quantile}_ms")
                for quantile in ("p50", "p99")
                for variant in ("alone", "beside")
            ),
            figure_of("sign-ins", "/s", rounds, "logins_per_s"),
            figure_of("sign-ins refused as too many", "/s", rounds, "refused_per_s"),
            figure_of("a sign-in, p50", "ms", rounds, "login_p50"),
            figure_of("a dashboard's request, p50", "ms", rounds, "look_p50"),
        ),
        rounds=tuple(rounds),
        notes=(
            f"{EVENTS_PER_S:,} events/s, {EVENTS_PER_FRAME} a frame, from {CONNECTIONS} connections, open loop;"
            f" {LOGINS_PER_S} sign-ins/s"
            f" and {LOOKS_PER_S} requests/s of dashboards are begun at even times",
        ),
    )


async def _variant(
    context: Context, stack: Stack, fleet: Fleet, people: "People | None", variant: str
) -> dict[str, Any]:
    options = {
        "address": stack.hdp,
        "devices": fleet.path,
        "connections": fleet.num_connections,
        "events_per_frame": EVENTS_PER_FRAME,
        "rate": EVENTS_PER_S,
        "seconds": context.seconds,
        "warm_up": WARM_UP_SECONDS,
    }
    busy = None if people is None else asyncio.create_task(people.come())
    load = await asyncio.to_thread(context.loadgen.run, "acks", options)
    check(load["events_unanswered"] == 0, f"{load['events_unanswered']} events were never answered")
    found: dict[str, Any] = {f"{variant}_{q}_ms": load["latency"][f"{q}_us"] / 1e3 for q in ("p50", "p99")}
    if people is not None and busy is not None:
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        found |= people.report(context.seconds + WARM_UP_SECONDS)
    stack.wait_until_drained()
    return found


class People:
    """Who signs in and who looks at dashboards, each begun at even times whatever became of the ones before."""

    def __init__(self, viewers: Sequence[Caller], emails: Sequence[str], fleet: Fleet) -> None:
        ids = "&".join(f"device_id={one.device_id}" for one in load_identities(fleet.path)[:DEVICES_OF_SCREEN])
        self._port = viewers[0].port
        self._looks = [one.get(f"/api/v1/telemetry/{what}?{ids}") for one in viewers for what in ("latest", "states")]
        self._logins = [viewers[0].post("/api/v1/auth/login", {"email": one, "password": PASSWORD}) for one in emails]
        self._statuses: Counter[int] = Counter()
        self._taken: dict[str, Milliseconds] = {"login": [], "look": []}

    async def come(self) -> None:
        """Come until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._at_even_times("login", self._logins, LOGINS_PER_S))
            group.create_task(self._at_even_times("look", self._looks, LOOKS_PER_S))

    async def _at_even_times(self, name: str, requests: Sequence[bytes], per_second: int) -> None:
        start, number = time.perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(start + number / per_second - time.perf_counter())
                group.create_task(self._ask(name, requests[number % len(requests)]))
                number += 1

    async def _ask(self, name: str, request: bytes) -> None:
        start = time.perf_counter()
        connection = await Connection.open(self._port)
        try:
            status, body = await connection.ask(request)
        finally:
            connection.close()
        check(status in (200, 429, 503), f"{status}: {body[:300].decode()}")
        if name == "login":
            self._statuses[status] += 1
        if status == 200:
            self._taken[name].append((time.perf_counter() - start) * 1e3)

    def report(self, seconds: float) -> dict[str, float]:
        """What became of them."""
        return {
            **quantiles("login", self._taken["login"]),
            **quantiles("look", self._taken["look"]),
            "logins_per_s": self._statuses[200] / seconds,
            "refused_per_s": (self._statuses[429] + self._statuses[503]) / seconds,
        }


def _give_passwords(stack: Stack) -> list[str]:
    """Let everybody sign in with a password; returns their addresses."""
    password_hash = asyncio.run(Argon2Passwords().hash(PASSWORD))
    with stack.connect() as connection:
        connection.execute("insert into credentials (user_id, password_hash) select id, %s from users", [password_hash])
        return [str(email) for (email,) in connection.execute("select email from users order by email").fetchall()]
