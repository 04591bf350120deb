"""Creations of bookings: the insert that the database compares with all others, beside a check before a plain insert.

Both are the same rows in the same table with the same other triggers, by the same clients, in turns within each round; for the
check the exclusion constraint and the lock of the area are taken off, and an index that serves it is there. Spread: every client
books slots of its own, which is what throughput is about. Crowded: all clients want the same slots at once, and what is counted is
how many slots were given twice. The api's own creations go over HTTP, with everything that a request is.
"""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from benches.context import Context
from benches.report import NotMeasured, Result, Wanted, check, figure_of
from benches.stack import Stack, running
from hse.adapters.tokens import AccessTokens

NAME = "bookings"
CLIENTS = 8
AREAS = 200
CROWDED_SLOTS = 200
EMPTYING_TRIES_MAX = 10
FIRST_SLOT = datetime(2031, 1, 1, tzinfo=UTC)
# Apart from the others: what the api still has in hand when its round is over falls into no slot of the next one.
FIRST_SLOT_OVER_HTTP = datetime(2029, 1, 1, tzinfo=UTC)
SLOT, GAP = timedelta(hours=4), timedelta(hours=1)
# How far apart the slots of one area lie.
STEP = SLOT + GAP

COLUMNS = "(organization_id, establishment_id, area_id, guest_id, check_in, check_out, free_from, confirmation_code)"
ROW = "%(organization)s, %(establishment)s, %(area)s, %(guest)s, %(check_in)s, %(check_out)s, %(free_from)s, %(code)s"
GUARDED = f"insert into bookings {COLUMNS} values ({ROW}) on conflict on constraint bookings_do_not_overlap do nothing"
PLAIN = f"insert into bookings {COLUMNS} values ({ROW})"
LOOK = (
    "select 1 from bookings where area_id = %(area)s and status <> 'cancelled'"
    " and check_in < %(free_from)s and free_from > %(check_in)s limit 1"
)
UNGUARD = (
    "alter table bookings drop constraint bookings_do_not_overlap",
    "drop trigger bookings_lock_area on bookings",
    "create index bookings_checked on bookings (area_id, free_from)",
)
GUARD = (
    "drop index bookings_checked",
    "alter table bookings add constraint bookings_do_not_overlap exclude using gist"
    " (area_id with =, tstzrange(check_in, free_from) with &&) where (status <> 'cancelled')",
    "create trigger bookings_lock_area before insert or update of area_id, check_in, check_out, free_from, status on bookings"
    " for each row execute function lock_booked_area()",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hotel:
    """Where is booked, by whom, and with whose session."""

    organization_id: UUID
    establishment_id: UUID
    area_ids: tuple[UUID, ...]
    guest_id: UUID
    session_id: UUID
    user_id: UUID

    def values(self, area: int, slot: int) -> dict[str, Any]:
        """A booking of a slot."""
        check_in = FIRST_SLOT + slot * STEP
        return {
            "organization": self.organization_id,
            "establishment": self.establishment_id,
            "area": self.area_ids[area % len(self.area_ids)],
            "guest": self.guest_id,
            "check_in": check_in,
            "check_out": check_in + SLOT,
            "free_from": check_in + STEP,
            "code": uuid4().hex[:16],
        }


def measure(context: Context) -> Result:
    """Measure all rounds."""
    if shutil.which("wrk") is None:
        raise NotMeasured("wrk is not installed: apt-get install wrk")
    rounds = []
    unlimited = {"HSE_RATE_LIMIT_ADDRESS_PER_MINUTE": "100000000", "HSE_RATE_LIMIT_USER_PER_MINUTE": "100000000"}
    with running(context.data_root, unlimited) as stack, context.task(NAME, 3 * context.rounds) as steps:
        hotel = _furnish(stack)
        for number in range(context.rounds):
            one: dict[str, Any] = {}
            for name in ("guarded", "checked"):
                steps.next(f"round {number + 1}: {name}")
                with _guarded(stack, is_guarded=name == "guarded"):
                    one[f"{name}_per_s"] = _spread(stack, hotel, context.seconds, name)
                    one[f"{name}_twice"] = _crowd(stack, hotel, name)
            check(one["guarded_twice"] == 0, "a slot was given twice")
            one["ratio"] = one["guarded_per_s"] / one["checked_per_s"]
            steps.next(f"round {number + 1}: over HTTP")
            _empty(stack)
            one |= _over_http(stack, hotel, context.seconds)
            rounds.append(one)
    return Result(
        scenario=NAME,
        figures=(
            figure_of("guarded / checked", "x", rounds, "ratio", Wanted(text=">= 0.8", at_least=0.8)),
            figure_of("guarded by the database", "bookings/s", rounds, "guarded_per_s"),
            figure_of("checked before the insert", "bookings/s", rounds, "checked_per_s"),
            figure_of("slots given twice, guarded", "slots", rounds, "guarded_twice", Wanted(text="0", at_most=0)),
            figure_of("slots given twice, checked", "slots", rounds, "checked_twice"),
            figure_of("over HTTP", "bookings/s", rounds, "http_per_s"),
            figure_of("over HTTP, p99", "ms", rounds, "http_p99_ms"),
        ),
        rounds=tuple(rounds),
        notes=(
            f"{CLIENTS} clients, closed loop, a transaction each; {AREAS} areas; load, database and worker on the same cores",
            f"crowded: {CROWDED_SLOTS} slots, each wanted by all clients at once",
        ),
    )


def _furnish(stack: Stack) -> Hotel:
    session_id = uuid4()

    with stack.connect() as connection:

        def one(statement: str, *values: object) -> UUID:
            row = connection.execute(statement.encode(), values).fetchone()
            check(row is not None, statement)
            return UUID(str(row[0])) if row else uuid4()

        owner = one("insert into organizations (name) values ('Hotel') returning id")
        site = one(
            "insert into establishments (organization_id, name, timezone) values (%s, 'Beach', 'UTC') returning id",
            owner,
        )
        areas = connection.execute(
            "insert into areas (organization_id, establishment_id, name, type)"
            " select %s, %s, 'Room ' || n, 'room' from generate_series(1, %s) n returning id",
            [owner, site, AREAS],
        ).fetchall()
        guest = one(
            "insert into guests (organization_id, first_name, last_name) values (%s, 'Ana', 'Soto') returning id", owner
        )
        user = one(
            "insert into users (email, first_name, last_name, role_id, organization_id, has_all_establishments)"
            " select 'desk@example.com', 'Ana', 'Soto', id, %s, true from roles where name = 'admin' and type = 'system'"
            " returning id",
            owner,
        )
        connection.execute(
            "insert into sessions (id, user_id, expires_at) values (%s, %s, now() + interval '1 day')",
            [session_id, user],
        )
    return Hotel(
        organization_id=owner,
        establishment_id=site,
        area_ids=tuple(UUID(str(area)) for (area,) in areas),
        guest_id=guest,
        session_id=session_id,
        user_id=user,
    )


@contextmanager
def _guarded(stack: Stack, *, is_guarded: bool) -> Iterator[None]:
    """An empty table, with what keeps slots apart or without it."""
    _empty(stack)
    if is_guarded:
        yield
        return
    _run(stack, UNGUARD)
    try:
        yield
    finally:
        _empty(stack)
        _run(stack, GUARD)


def _empty(stack: Stack) -> None:
    # The worker has rows of both in hand now and then: what waits for it is waited for, and of two that wait for each other one
    # gives way.
    for _ in range(EMPTYING_TRIES_MAX):
        try:
            return _run(stack, ("truncate bookings, booking_history, booking_queue cascade",))
        except psycopg.errors.DeadlockDetected:
            continue
    raise NotMeasured("the worker never let go of the bookings")


def _run(stack: Stack, statements: tuple[str, ...]) -> None:
    with stack.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _book(connection: psycopg.Connection[Any], name: str, values: dict[str, Any]) -> bool:
    """One creation; whether it got its slot."""
    with connection.transaction():
        if name == "guarded":
            return connection.execute(GUARDED.encode(), values).rowcount == 1
        if connection.execute(LOOK.encode(), values).fetchone() is not None:
            return False
        connection.execute(PLAIN.encode(), values)
        return True


def _spread(stack: Stack, hotel: Hotel, seconds: int, name: str) -> float:
    """Creations a second when every client books slots of its own."""
    counts = [0] * CLIENTS
    ends_at = time.monotonic() + seconds

    def client(number: int) -> None:
        with stack.connect() as connection:
            connection.autocommit = True
            while time.monotonic() < ends_at:
                # Areas by turns; a client has its own slots in each.
                turn = counts[number]
                got = _book(connection, name, hotel.values(turn, (turn // AREAS) * CLIENTS + number))
                check(got, "a slot of its own was refused")
                counts[number] += 1

    started = time.monotonic()
    _in_threads(client)
    return sum(counts) / (time.monotonic() - started)


def _crowd(stack: Stack, hotel: Hotel, name: str) -> int:
    """How many slots are given twice when all clients want the same ones at once."""
    together, first = threading.Barrier(CLIENTS), 1_000_000 // int(STEP.total_seconds() // 3600)
    given = [0] * CROWDED_SLOTS
    lock = threading.Lock()

    def client(_: int) -> None:
        with stack.connect() as connection:
            connection.autocommit = True
            for slot in range(CROWDED_SLOTS):
                together.wait(60)
                if _book(connection, name, hotel.values(0, first + slot)):
                    with lock:
                        given[slot] += 1

    _in_threads(client)
    check(min(given) >= 1, "a slot was given to nobody")
    return sum(1 for count in given if count > 1)


def _in_threads(work: Any) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _over_http(stack: Stack, hotel: Hotel, seconds: int) -> dict[str, float]:
    """Creations a second through the api, each of a slot of its own."""
    key = (stack.data_dir / "secrets" / "key").read_text(encoding="ascii").strip()
    token = AccessTokens(key).issue(hotel.user_id, hotel.session_id, datetime.now(UTC))
    areas = ", ".join(f'"{area}"' for area in hotel.area_ids)
    script = stack.data_dir / "bookings.lua"
    script.write_text(
        f"""local areas = {{{areas}}}
local turn = -1
wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer {token}"
wrk.headers["Content-Type"] = "application/json"
request = function()
  turn = turn + 1
  local begin = {int(FIRST_SLOT_OVER_HTTP.timestamp())} + math.floor(turn / #areas) * {int(STEP.total_seconds())}
  return wrk.format(nil, nil, nil, string.format(
    '{{"area_id": "%s", "guest_id": "{hotel.guest_id}", "check_in": "%s", "check_out": "%s"}}',
    areas[turn %% #areas + 1], os.date("!%Y-%m-%dT%H:%M:%SZ", begin),
    os.date("!%Y-%m-%dT%H:%M:%SZ", begin + {int(SLOT.total_seconds())})))
end
""".replace("%%", "%"),
        encoding="ascii",
    )
    url = f"http://127.0.0.1:{stack.ports['api']}/api/v1/bookings"
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    check("Non-2xx" not in said, f"not every booking was made: {said}")
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    if rate is None or p99 is None:
        raise NotMeasured(f"wrk said something else: {said}")
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99.group(2)]
    return {"http_per_s": float(rate.group(1)), "http_p99_ms": float(p99.group(1)) * scale}
