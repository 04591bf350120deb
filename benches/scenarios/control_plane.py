"""An authenticated list of 20 devices, beside the same SQL and the same bytes served with FastAPI and uvicorn.

All are one process, all look the actor up and scope the rows by the same statements in one transaction, on the same database;
they take turns within each round. FastAPI runs twice: once with nothing but the token, the SQL and the bytes, and once with what
`hse api` does beside that for each request (limits counted in Redis, headers, numbers, a line in the log). Processor time is
that of the processes while they are asked. What the permission check costs is measured apart, without HTTP: a transaction that
looks its actor up and sets his scope, beside one that asks for nothing.
"""

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa

from benches.context import Context
from benches.counters import cpu_of, cpu_of_tree
from benches.report import NotMeasured, Result, Wanted, check, figure_of
from benches.stack import Stack, running, wait_until
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.mail import Outbox
from hse.adapters.postgres.work import Origin
from hse.adapters.sealing import Sealer
from hse.adapters.tokens import AccessTokens
from hse.domain.identity.principals import SessionPrincipal
from hse.embedded.ports import free_ports

NAME = "control-plane"
CONNECTIONS = 32
DEVICES_OF_CALLER = 20
OTHER_ORGANIZATIONS = 200
POOL_SIZE = 10
CHECK_ITERATIONS = 2000
SQL = (
    "select id, organization_id, establishment_id, area_id, gateway_id, name, device_type, manufacturer, model,"
    " serial_number, mac_address, host(ip_address) as ip_address, protocol, status, is_enabled,"
    " token_hash is not null as has_token, metadata, version, created_at, updated_at from devices"
    " where (organization_id = any(cast(:organization_ids as uuid[]))"
    " or establishment_id = any(cast(:establishment_ids as uuid[]))) order by name, id limit :limit"
)


TITLES = {"hse": "HSE", "fastapi": "FastAPI", "bare": "FastAPI without limits, headers, log"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A list of devices, and the process that serves it."""

    url: str
    pid: int


def measure(context: Context) -> Result:
    """Measure all rounds."""
    if shutil.which("wrk") is None:
        raise NotMeasured("wrk is not installed: apt-get install wrk")
    rounds = []
    # No limit on requests: what is measured is the request, not the limit.
    unlimited = {"HSE_RATE_LIMIT_ADDRESS_PER_MINUTE": "100000000", "HSE_RATE_LIMIT_USER_PER_MINUTE": "100000000"}
    with running(context.data_root, unlimited) as stack, context.task(NAME, 4 * context.rounds) as steps:
        session_id, user_id = _seed(stack)
        tokens = AccessTokens(_secret_key(stack))

        def token() -> str:
            return tokens.issue(user_id, session_id, datetime.now(UTC))

        with _fastapi(stack) as bare, _fastapi(stack, has_duties=True) as dutiful:
            own = Served(
                url=f"http://127.0.0.1:{stack.ports['api']}/api/v1/devices?limit={DEVICES_OF_CALLER}",
                pid=stack.pid("api"),
            )
            served = {"hse": own, "fastapi": dutiful, "bare": bare}
            for peer in (bare, dutiful):
                _check_same(own.url, peer.url, token())
            for number in range(context.rounds):
                one: dict[str, Any] = {}
                for name, who in served.items():
                    steps.next(f"round {number + 1}: {name}")
                    figures = _measured(stack, who, token(), context.seconds)
                    one |= {f"{name}_{key}": value for key, value in figures.items()}
                steps.next(f"round {number + 1}: the permission")
                one |= asyncio.run(_permission_cost(_api_url(stack), session_id))
                for name in ("fastapi", "bare"):
                    one[f"{name}_ratio"] = one["hse_requests_per_s"] / one[f"{name}_requests_per_s"]
                    one[f"{name}_p99_ratio"] = one["hse_p99_ms"] / one[f"{name}_p99_ms"]
                rounds.append(one)
    return _result(rounds)


def _result(rounds: list[dict[str, Any]]) -> Result:
    return Result(
        scenario=NAME,
        figures=(
            figure_of("HSE / FastAPI", "x", rounds, "fastapi_ratio", Wanted(text=">= 1.5", at_least=1.5)),
            figure_of(
                "HSE / FastAPI without limits, headers, log",
                "x",
                rounds,
                "bare_ratio",
                Wanted(text=">= 1.5", at_least=1.5),
            ),
            *(
                figure
                for name, title in TITLES.items()
                for figure in (
                    figure_of(title, "requests/s", rounds, f"{name}_requests_per_s"),
                    figure_of(f"{title}, p99", "ms", rounds, f"{name}_p99_ms"),
                    figure_of(f"{title}, its process", "ms/request", rounds, f"{name}_cpu_ms"),
                    figure_of(f"{title}, PostgreSQL", "ms/request", rounds, f"{name}_postgres_cpu_ms"),
                )
            ),
            figure_of("HSE p99 / FastAPI p99", "x", rounds, "fastapi_p99_ratio"),
            figure_of("a transaction that asks for nothing", "ms", rounds, "plain_ms"),
            figure_of("a transaction that looks its actor up", "ms", rounds, "entered_ms"),
            figure_of("the permission check", "ms", rounds, "permission_ms"),
        ),
        rounds=tuple(rounds),
        notes=(
            f"{CONNECTIONS} connections, closed loop (wrk, one thread); one process each, {POOL_SIZE} connections to the database",
            f"{DEVICES_OF_CALLER} devices of an organisation among {OTHER_ORGANIZATIONS}; load and database on the same cores",
        ),
    )


def _seed(stack: Stack) -> tuple[UUID, UUID]:
    """Make organisations with devices, and an administrator of one with a session; returns the ids of session and user."""
    session_id = uuid4()
    with stack.connect() as connection:
        connection.execute(
            "insert into organizations (name) select 'Tenant ' || n from generate_series(0, %s) n",
            [OTHER_ORGANIZATIONS],
        )
        connection.execute(
            "insert into establishments (organization_id, name, timezone) select id, 'Site', 'UTC' from organizations"
        )
        connection.execute(
            "insert into devices (organization_id, establishment_id, name, serial_number, manufacturer, model, ip_address,"
            " metadata) select e.organization_id, e.id, 'Meter ' || n, e.id || '-' || n, 'Acme', 'M1', '10.0.0.1', '{\"floor\": 3}'"
            " from establishments e, generate_series(1, %s) n",
            [DEVICES_OF_CALLER],
        )
        row = connection.execute(
            "insert into users (email, first_name, last_name, role_id, organization_id, has_all_establishments)"
            " select 'chief@example.com', 'Ana', 'Soto', r.id, o.id, true from roles r, organizations o"
            " where r.name = 'admin' and r.type = 'system' and o.name = 'Tenant 7' returning id"
        ).fetchone()
        check(row is not None, "the administrator was not made")
        user_id = UUID(str(row[0])) if row else uuid4()
        connection.execute(
            "insert into sessions (id, user_id, expires_at) values (%s, %s, now() + interval '1 day')",
            [session_id, user_id],
        )
        connection.execute("analyze")
    return session_id, user_id


def _secret(stack: Stack, name: str) -> str:
    return (stack.data_dir / "secrets" / name).read_text(encoding="ascii").strip()


def _secret_key(stack: Stack) -> str:
    return _secret(stack, "key")


def _api_url(stack: Stack) -> str:
    """The database as the api signs in to it."""
    url = sa.make_url(stack.database_url).set(username="hse_api_login", password=_secret(stack, "postgres-api"))
    return url.render_as_string(hide_password=False)


@contextmanager
def _fastapi(stack: Stack, *, has_duties: bool = False) -> Iterator[Served]:
    """Run the peer."""
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        "HSE_SECRET_KEY": _secret_key(stack),
        "HSE_API_DATABASE_URL": _api_url(stack),
        "HSE_API_POOL_SIZE": str(POOL_SIZE),
        "HSE_BENCH_SQL": SQL,
    }
    if has_duties:
        environment["HSE_BENCH_REDIS_URL"] = stack.redis_url
        environment["HSE_BENCH_LOG"] = str(stack.data_dir / "fastapi.log")
    command = [sys.executable, "-m", "uvicorn", "benches.peers.fastapi_devices:app", "--port", str(port)]
    process = subprocess.Popen([*command, "--no-access-log", "--log-level", "warning"], env=environment)
    try:
        url = f"http://127.0.0.1:{port}/api/v1/devices?limit={DEVICES_OF_CALLER}"
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/openapi.json"), "FastAPI answers", timeout_seconds=60)
        yield Served(url=url, pid=process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310 (our own address)
            return True
    except OSError:
        return False


def _get(url: str, token: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 (our own address)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read()
    return body


def _check_same(ours: str, peer: str, token: str) -> None:
    """Hold the two answers against each other: the same length within the spelling of times and spaces."""
    first, second = _get(ours, token), _get(peer, token)
    check(first.count(b'"id"') == DEVICES_OF_CALLER, "the list does not have the caller's devices")
    check(second.count(b'"id"') == DEVICES_OF_CALLER, "the peer's list does not have the caller's devices")
    check(abs(len(first) - len(second)) < len(first) * 0.05, f"answers differ: {len(first)} and {len(second)} bytes")


def _measured(stack: Stack, who: Served, token: str, seconds: int) -> dict[str, float]:
    """What a load finds, and the processor time that each request took in the process itself and in PostgreSQL."""
    # Connections are opened and statements prepared before.
    _wrk(who.url, token, 1)
    postgres = stack.pid("postgres")
    own_before, postgres_before = cpu_of(who.pid).total, cpu_of_tree(postgres)
    found = _wrk(who.url, token, seconds)
    own, others = cpu_of(who.pid).total - own_before, cpu_of_tree(postgres) - postgres_before
    return {
        **found,
        "cpu_ms": own * 1e3 / found["requests"],
        "postgres_cpu_ms": others * 1e3 / found["requests"],
    }


def _wrk(url: str, token: str, seconds: int) -> dict[str, float]:
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "--latency",
        "-H",
        f"Authorization: Bearer {token}",
        url,
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    check("Non-2xx" not in said, f"not every request was answered: {said}")
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    requests = re.search(r"(\d+) requests in", said)
    if rate is None or p99 is None or requests is None:
        raise NotMeasured(f"wrk said something else: {said}")
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99.group(2)]
    return {
        "requests": float(requests.group(1)),
        "requests_per_s": float(rate.group(1)),
        "p99_ms": float(p99.group(1)) * scale,
    }


async def _permission_cost(database_url: str, session_id: UUID) -> dict[str, float]:
    """A transaction that looks its actor up, and one that asks for nothing; medians of interleaved iterations, in milliseconds."""
    outbox = Outbox(sealer=Sealer("a secret key that this scenario seals nothing with"), public_url="http://localhost")
    database = Database(database_url, pool_size=1, outbox=outbox)
    principal, origin = SessionPrincipal(session_id=session_id), Origin()

    async def entered() -> None:
        async with database.work(principal, origin, datetime.now(UTC)) as work:
            work.actor.require("read_device")

    async def plain() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(sa.text("select 1"))

    spent: dict[str, list[float]] = {"entered": [], "plain": []}
    try:
        for _ in range(CHECK_ITERATIONS):
            for name, run in (("entered", entered), ("plain", plain)):
                start = time.perf_counter()
                await run()
                spent[name].append(time.perf_counter() - start)
    finally:
        await database.close()
    entered_ms, plain_ms = (statistics.median(spent[name]) * 1e3 for name in ("entered", "plain"))
    return {"entered_ms": entered_ms, "plain_ms": plain_ms, "permission_ms": entered_ms - plain_ms}
