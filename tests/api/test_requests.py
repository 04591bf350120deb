"""What stands around every request: its line in the log, its numbers, its headers, its size; and what health says."""

import asyncio
import errno
import io
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import Mock

import httpx
import psycopg
import pytest
from litestar import Litestar

from hse.adapters.limits import RedisRateLimiter
from hse.adapters.postgres.database import Condition, Database
from hse.api import health
from hse.api.app import Parts, create_app
from hse.api.bounds import REQUEST_BYTES_MAX
from hse.api.limits import RequestLimits
from hse.embedded.ports import free_ports
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.conftest import OUTBOX, Client, client_of, living, problem_of, serving
from tests.api.world import PASSWORD, World


def requests_in(stream: io.StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "request"]


# --- the log ---


async def test_a_request_leaves_one_line_that_says_what_who_and_how_it_ended(
    logged: io.StringIO, api: Client, world: World
) -> None:
    headers = {**world.chief.headers, "X-Correlation-Id": "find-me"}
    answer = await api.get(f"/api/v1/areas/{world.tenant.sites[0].area_id}?note=private", headers=headers)
    (line,) = requests_in(logged)
    assert line["correlation_id"] == "find-me"
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/v1/areas/{area_id}", 200)
    assert line["bytes"] == len(answer.content)
    assert line["user_id"] == str(world.chief.id)
    assert line["address"] == "127.0.0.1"
    assert line["ms"] > 0
    assert "private" not in logged.getvalue()


async def test_refusals_and_unknown_paths_have_their_line_and_health_has_none(logged: io.StringIO, api: Client) -> None:
    await api.get("/api/v1/areas")
    await api.get("/no/such/path")
    await api.get("/health/liveness")
    assert [(line["route"], line["status"]) for line in requests_in(logged)] == [("/api/v1/areas", 401), ("none", 404)]


async def test_a_log_that_cannot_be_written_changes_no_answer(logged: io.StringIO, parts: Parts, world: World) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(logged, "write", full := Mock(side_effect=OSError(errno.ENOSPC, "no space left")))
        async with serving(replace(parts, open_database=partial(Database, url, pool_size=1, outbox=OUTBOX))) as api:
            problem_of(await api.get("/api/v1/areas", headers=world.chief.headers), 503, "service.unavailable")
    assert full.called


async def test_no_secret_comes_into_the_log(logged: io.StringIO, api: Client, world: World) -> None:
    world.give_password(world.chief)
    credentials = {"email": world.chief.email, "password": PASSWORD}
    signed_in = (await api.post("/api/v1/auth/login", json=credentials)).json()
    wrong = "a wrong password of mine"
    await api.post("/api/v1/auth/login", json={**credentials, "password": wrong})
    bearer = {"Authorization": f"Bearer {signed_in['access_token']}"}
    made = await api.post("/api/v1/api-keys", headers=bearer, json={"name": "x", "actions": ["read_area"]})
    key = made.json()["key"]
    for headers in ({"X-API-Key": key}, {"X-API-Key": key + "0"}, bearer, {"Cookie": f"hse_access={bearer}"}):
        await api.get(f"/api/v1/areas?key={key}&cursor={key}", headers=headers)
        await api.get(f"/{key}", headers=headers)
    # A body that cannot be read, and one that does not fit.
    await api.post(
        "/api/v1/auth/login", content=f'{{"password": "{wrong}"', headers={"Content-Type": "application/json"}
    )
    await api.post("/api/v1/auth/login", json={"password": wrong, "email": 1})
    text = logged.getvalue()
    assert len(requests_in(logged)) >= 12
    secrets = [PASSWORD, wrong, signed_in["access_token"], signed_in["refresh_token"], key, key.rsplit("_", 1)[1]]
    assert [secret for secret in secrets if secret in text] == []


async def test_a_defect_is_logged_without_what_was_to_be_stored(logged: io.StringIO, api: Client, world: World) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute("alter table areas rename column floor to storey")
    body = {"establishment_id": str(world.tenant.sites[0].id), "name": "a private name", "type": "office"}
    problem_of(await api.post("/api/v1/areas", headers=world.chief.headers, json=body), 500, "service.defect")
    assert "UndefinedColumn" in logged.getvalue()
    assert "a private name" not in logged.getvalue()


async def test_a_mistake_is_told_with_its_place(api: Client, world: World) -> None:
    refused = await api.get("/api/v1/areas?limit=0", headers=world.chief.headers)
    problem_of(refused, 422, "request.invalid")
    (mistake,) = refused.json()["errors"]
    assert (mistake["field"], mistake["in"]) == ("limit", "query")


# --- numbers ---


@pytest.fixture
async def with_token(parts: Parts, world: World) -> AsyncIterator[Client]:  # noqa: ARG001 (made first)
    async with serving(replace(parts, metrics_token="a token", limits=RequestLimits(user_per_minute=2))) as client:
        yield client


async def test_requests_are_counted_by_route_and_not_by_path(with_token: Client, world: World) -> None:
    for site in world.tenant.sites:
        await with_token.get(f"/api/v1/areas/{site.area_id}", headers=world.chief.headers)
    await with_token.get("/api/v1/areas", headers=world.chief.headers)
    await with_token.request("BREW", "/somewhere")
    text = (await with_token.get("/metrics", headers={"Authorization": "Bearer a token"})).text
    assert 'hse_api_requests_total{method="GET",route="/api/v1/areas/{area_id}",status="200"} 2.0' in text
    assert 'hse_api_requests_total{method="other",route="none",status="404"} 1.0' in text
    assert 'hse_api_rate_limited_total{limit="user"} 1.0' in text
    assert "hse_api_permission_seconds_count 2.0" in text
    assert 'hse_api_request_seconds_count{method="GET",route="/api/v1/areas"} 1.0' in text
    assert 'hse_api_database_connections{state="in_use"} 0.0' in text
    assert "hse_api_requests_in_flight 1.0" in text
    assert str(world.tenant.sites[0].area_id) not in text


async def test_tries_to_sign_in_are_counted_by_how_they_end(parts: Parts, world: World) -> None:
    world.give_password(world.chief)
    right = {"email": world.chief.email, "password": PASSWORD}
    wrong = {**right, "password": "wrong"}
    found: Counter[str] = Counter()
    async with serving(replace(parts, metrics_token="a token")) as api:
        for body in (right, {**wrong, "email": "nobody@example.com"}, right, *[wrong] * 12):
            answer = await api.post("/api/v1/auth/login", json=body)
            found[answer.json().get("code", "identity.ok").removeprefix("identity.")] += 1
        # What has not the form of a try is none.
        await api.post("/api/v1/auth/login", json={"email": world.chief.email})
        text = (await api.get("/metrics", headers={"Authorization": "Bearer a token"})).text
    counted = re.findall(r'^hse_api_sign_ins_total\{result="([^"]+)"\} (\S+)$', text, re.MULTILINE)
    assert {name: float(count) for name, count in counted} == found
    assert found.keys() == {"ok", "wrong-credentials", "too-many-attempts"}


async def test_with_a_token_the_numbers_are_for_who_has_it(with_token: Client) -> None:
    for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": "Basic a token"}):
        problem_of(await with_token.get("/metrics", headers=headers), 403, "permission.missing")


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("192.0.2.7", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 403),
        ("127.0.0.1", {"Via": "1.1 proxy"}, 403),
    ],
)
async def test_without_a_token_the_numbers_are_for_this_machine(
    parts: Parts,
    world: World,  # noqa: ARG001 (made first)
    address: str,
    headers: dict[str, str],
    status: int,
) -> None:
    app = create_app(parts)
    transport = httpx.ASGITransport(app, client=(address, 1))  # type: ignore[arg-type]
    async with living(app), httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        assert (await client.get("/metrics", headers=headers)).status_code == status


# --- headers, origins, sizes ---


@pytest.mark.parametrize(
    "path", ["/health/liveness", "/api/v1/areas", "/no/such/path", "/docs/openapi.json", "/graphql"]
)
async def test_every_answer_has_its_security_headers_and_correlation_id(api: Client, path: str) -> None:
    answer = await api.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.headers["x-correlation-id"]) == 32
    if answer.status_code >= 400:
        assert answer.json()["correlation_id"] == answer.headers["x-correlation-id"]


@pytest.mark.parametrize("given", ["a b" * 50, "ümlaut", "tab\there"])
async def test_a_correlation_id_that_cannot_be_logged_is_replaced(api: Client, given: str) -> None:
    answer = await api.get("/health/liveness", headers=[(b"X-Correlation-Id", given.encode())])
    assert answer.headers["x-correlation-id"] != given
    assert len(answer.headers["x-correlation-id"]) == 32


PREFLIGHT = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "if-match,content-type"}


async def test_pages_of_other_sites_may_read_nothing_by_default(api: Client, world: World) -> None:
    origin = {"Origin": "https://console.example.com"}
    for answer in (
        await api.get("/api/v1/areas", headers={**world.chief.headers, **origin}),
        await api.options("/api/v1/areas", headers={**origin, **PREFLIGHT}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_an_origin_that_is_named_may_read_and_its_like_may_not(parts: Parts, world: World) -> None:
    async with serving(replace(parts, cors_origins=("https://console.example.com",))) as api:
        path = f"/api/v1/areas/{world.tenant.sites[0].area_id}"
        named = {"Origin": "https://console.example.com"}
        answer = await api.get(path, headers={**world.chief.headers, **named})
        assert answer.headers["access-control-allow-origin"] == "https://console.example.com"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "ETag" in answer.headers["access-control-expose-headers"]
        assert "origin" in answer.headers["vary"].lower()
        assert (await api.options(path, headers={**named, **PREFLIGHT})).status_code == 204
        # A refusal can be read, too.
        refused = await api.get("/api/v1/areas", headers=named)
        assert refused.headers["access-control-allow-origin"] == "https://console.example.com"
        for origin in (
            "http://console.example.com",
            "https://console.example.com.evil.example",
            "https://consoleXexample.com",
            "null",
        ):
            answer = await api.get(path, headers={**world.chief.headers, "Origin": origin})
            assert "access-control-allow-origin" not in answer.headers, origin
            assert (await api.options(path, headers={"Origin": origin, **PREFLIGHT})).status_code == 400


async def test_a_body_that_is_too_large_is_cut_off_with_and_without_a_declared_length(
    api: Client, world: World
) -> None:
    num_read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal num_read
        for _ in range(64):
            num_read += 1
            yield b" " * (REQUEST_BYTES_MAX // 8)

    headers = {**world.chief.headers, "Content-Type": "application/json"}
    declared = await api.post("/api/v1/areas", headers=headers, content=b" " * (REQUEST_BYTES_MAX + 1))
    problem_of(declared, 413, "request.too-large")
    chunked = await api.post("/api/v1/areas", headers=headers, content=chunks())
    problem_of(chunked, 413, "request.too-large")
    assert num_read < 12


# --- health ---


async def test_with_its_database_the_api_is_ready(api: Client) -> None:
    answer = await api.get("/health/readiness")
    found = {"status": "ready", "database": "up", "redis": "not set", "ingest_nodes": "not set"}
    assert (answer.status_code, answer.json()) == (200, found)


async def test_many_who_ask_whether_it_is_ready_have_the_database_asked_once(
    app: Litestar, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Counter[str]()
    examine = app.state.database.examine

    async def counted() -> Condition:
        looks["database"] += 1
        condition: Condition = await examine()
        return condition

    monkeypatch.setattr(app.state.database, "examine", counted)
    monkeypatch.setattr(health, "REMEMBERED_SECONDS", 60)
    answers = await asyncio.gather(*(api.get("/health/readiness") for _ in range(20)))
    assert {answer.json()["status"] for answer in answers} == {"ready"}
    assert looks["database"] == 1
    monkeypatch.setattr(app.state.readings, "_good_until", 0.0)
    assert (await api.get("/health/readiness")).json()["status"] == "ready"
    assert looks["database"] == 2


async def test_without_redis_it_is_degraded_and_works_on(parts: Parts, world: World) -> None:
    away = RedisRateLimiter(f"redis://127.0.0.1:{free_ports(1)[0]}/0")
    async with serving(replace(parts, limiter=away)) as api:
        answer = await api.get("/health/readiness")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert (await api.get("/api/v1/areas", headers=world.chief.headers)).status_code == 200


@pytest.mark.parametrize(
    ("change", "status"), [("0005", 503), ("9999 of the next release", 200)], ids=["older", "newer"]
)
async def test_an_older_schema_is_refused_and_a_newer_one_is_not(
    api: Client, world: World, change: str, status: int
) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update alembic_version set version_num = coalesce((select %s where %s like '9999%%'), version_num)",
            [change[:32], change],
        )
        if status == 503:
            connection.execute("delete from alembic_version")
    answer = await api.get("/health/readiness")
    assert answer.status_code == status
    assert ("hse migrate" in answer.text) == (status == 503)


async def test_a_login_that_row_level_security_does_not_bind_is_refused(
    parts: Parts, postgres_server: EmbeddedPostgres, world: World
) -> None:
    url = postgres_server.url(world.database_url.rsplit("/", 1)[1])
    async with serving(replace(parts, open_database=partial(Database, url, pool_size=1, outbox=OUTBOX))) as api:
        answer = await api.get("/health/readiness")
        assert answer.status_code == 503
        assert answer.json()["status"] == "not_ready"
        assert "superuser" in answer.json()["reason"]


async def test_without_its_database_it_is_not_ready_and_lives(parts: Parts, world: World) -> None:  # noqa: ARG001
    url = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    app = create_app(replace(parts, open_database=partial(Database, url, pool_size=1, outbox=OUTBOX)))
    async with living(app), client_of(app) as api:
        answer = await api.get("/health/readiness")
        assert (answer.status_code, answer.json()["database"]) == (503, "away")
        assert (await api.get("/health/liveness")).status_code == 200


# --- what can be asked ---


async def test_a_path_names_all_its_methods(api: Client, world: World) -> None:
    path, headers = f"/api/v1/areas/{world.tenant.sites[0].area_id}", world.chief.headers
    methods = {"GET", "PATCH", "DELETE", "OPTIONS"}
    asked = await api.options(path, headers=headers)
    assert (asked.status_code, set(asked.headers["allow"].split(", "))) == (204, methods)
    refused = await api.put(path, headers=headers)
    problem_of(refused, 405, "request.method-not-allowed")
    assert set(refused.headers["allow"].split(", ")) == methods


async def test_an_empty_idempotency_key_is_none(api: Client, world: World) -> None:
    headers = {**world.chief.headers, "Idempotency-Key": ""}
    path = f"/api/v1/devices/{world.tenant.sites[0].device_id}/token"
    problem_of(await api.post(path, headers=headers), 422, "request.invalid")


async def test_null_is_no_filter_and_a_number_no_time(api: Client, world: World) -> None:
    for name in ("organization_id", "is_active"):
        refused = await api.get(f"/api/v1/establishments?{name}=null", headers=world.chief.headers)
        assert problem_of(refused, 422, "request.invalid")["field"] == name
    for name in ("from", "to"):
        for value in ("Null", "0.5"):
            refused = await api.get(f"/api/v1/audit-entries?{name}={value}", headers=world.chief.headers)
            assert problem_of(refused, 422, "request.invalid")["field"] == name
    # A text can be anything.
    found = await api.get("/api/v1/establishments?q=null", headers=world.chief.headers)
    assert found.json()["items"] == []
