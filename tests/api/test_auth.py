"""Signing in over REST: passwords, cookies, forged requests, and what an access token must be."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from litestar import Litestar

from hse.adapters.passwords import Argon2Passwords
from hse.adapters.sealing import derived_key
from hse.adapters.tokens import AUDIENCE, ISSUER, TYPE
from hse.api.app import Parts, create_app
from hse.wiring.api import compose_doorkeeping
from tests.api.conftest import Client, living, problem_of
from tests.api.world import PASSWORD, SECRET_KEY, Person, World

LOGIN = "/api/v1/auth/login"
WEEK_SECONDS = 7 * 86400


async def log_in(api: Client, person: Person, **more: Any) -> httpx.Response:
    return await api.post(LOGIN, json={"email": person.email, "password": PASSWORD, **more})


def audited(world: World) -> list[tuple[str, str, str | None]]:
    """What, who and why, of all entries of the audit log in their order."""
    with psycopg.connect(world.database_url) as connection:
        rows = connection.execute(
            "select action, actor_id::text, after ->> 'reason' from audit_entries order by id"
        ).fetchall()
    return [(row[0], row[1], row[2]) for row in rows]


async def test_a_program_gets_its_tokens_in_the_body_and_no_cookies(api: Client, world: World) -> None:
    world.give_password(world.chief)
    response = await log_in(api, world.chief)
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["token_type"], body["expires_in"], body["refresh_expires_in"]) == ("Bearer", 900, WEEK_SECONDS)
    assert body["csrf_token"] is None
    assert "set-cookie" not in response.headers
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await api.get("/api/v1/organizations", headers=headers)).status_code == 200
    assert audited(world) == [("session.sign_in", str(world.chief.id), "password")]


async def test_a_browser_gets_its_tokens_in_cookies_that_scripts_cannot_read(api: Client, world: World) -> None:
    world.give_password(world.chief)
    response = await log_in(api, world.chief, in_cookies=True)
    body = response.json()
    assert (body["access_token"], body["refresh_token"]) == (None, None)
    cookies = {}
    for line in response.headers.get_list("set-cookie"):
        for name, one in SimpleCookie(line).items():
            flags = (bool(one["httponly"]), bool(one["secure"]), one["samesite"].lower())
            cookies[name] = (*flags, one["path"], int(one["max-age"]))
    assert cookies == {
        "hse_access": (True, True, "lax", "/", 900),
        "hse_refresh": (True, True, "strict", "/api/v1/auth", WEEK_SECONDS),
        "hse_csrf": (False, True, "strict", "/", WEEK_SECONDS),
    }


@pytest.mark.parametrize(
    ("public_url", "is_secure"),
    [
        (None, True),
        ("https://localhost:8443", True),
        ("http://hse.example.com", True),
        ("http://localhost:8080", False),
        ("http://127.0.0.1:8080", False),
    ],
)
def test_cookies_go_without_tls_on_ones_own_machine_only(public_url: str | None, is_secure: bool) -> None:
    assert compose_doorkeeping(SECRET_KEY, public_url=public_url).has_secure_cookies is is_secure


class CountingPasswords(Argon2Passwords):
    """Counts how often it hashes."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the password."""
        self.count += 1
        return await super().verify(password_hash, password)

    async def hash(self, password: str) -> str:
        """What is kept of a password."""
        self.count += 1
        return await super().hash(password)


@asynccontextmanager
async def client_of(parts: Parts, address: str = "192.0.2.1") -> AsyncIterator[Client]:
    app = create_app(parts)
    async with living(app), client_at(app, address) as client:
        yield client


def client_at(app: Litestar, address: str) -> Client:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 40000))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="https://testserver")


async def test_unknown_wrong_and_disabled_are_one_answer_after_the_same_work(parts: Parts, world: World) -> None:
    for person in (world.chief, world.admin, world.other_chief):
        world.give_password(person)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update users set is_active = false where id = %s", [world.admin.id])
        connection.execute("update organizations set is_active = false where id = %s", [world.other_tenant.id])
    passwords = CountingPasswords()
    answers, counts = [], []
    async with client_of(replace(parts, doorkeeping=replace(parts.doorkeeping, passwords=passwords))) as api:
        for email, password in (
            ("nobody@example.com", PASSWORD),
            (world.chief.email, "wrong"),
            (world.user.email, PASSWORD),
            (world.admin.email, PASSWORD),
            (world.other_chief.email, PASSWORD),
        ):
            response = await api.post(LOGIN, json={"email": email, "password": password})
            problem = problem_of(response, 401, "identity.wrong-credentials")
            del problem["correlation_id"]
            answers.append(problem)
            counts.append(passwords.count)
    assert all(answer == answers[0] for answer in answers)
    assert counts == [1, 2, 3, 4, 5]
    reasons = [reason for action, _, reason in audited(world) if action == "session.sign_in_failed"]
    assert reasons == ["unknown", "password", "password", "disabled", "disabled"]


async def test_an_address_is_found_however_it_is_spelt(api: Client, world: World) -> None:
    world.give_password(world.chief)
    response = await api.post(LOGIN, json={"email": world.chief.email.upper(), "password": PASSWORD})
    assert response.status_code == 200, response.text


async def test_a_hash_of_older_parameters_is_made_anew_at_the_next_login(api: Client, world: World) -> None:
    world.give_password(world.chief)
    old = await Argon2Passwords(memory_kib=8 * 1024).hash(PASSWORD)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update credentials set password_hash = %s", [old])
    for _ in range(2):
        assert (await log_in(api, world.chief)).status_code == 200
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute("select password_hash from credentials").fetchone()
    assert row is not None
    assert "m=19456,t=2,p=1" in row[0]


async def test_disabling_and_demotion_count_on_the_next_request(api: Client, world: World) -> None:
    world.give_password(world.chief)
    body = (await log_in(api, world.chief)).json()
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    partners = "/api/v1/establishments"
    new = {"organization_id": str(world.tenant.id), "name": "Before", "timezone": "UTC"}
    assert (await api.post(partners, headers=headers, json=new)).status_code == 201
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update users set role_id = (select id from roles where name = 'user'), has_all_establishments = false where id = %s",
            [world.chief.id],
        )
    problem_of(await api.post(partners, headers=headers, json={**new, "name": "After"}), 403, "permission.missing")
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update users set is_active = false where id = %s", [world.chief.id])
    problem_of(await api.get(partners, headers=headers), 401, "identity.unauthenticated")
    again = await api.post("/api/v1/auth/refresh", json={"refresh_token": body["refresh_token"]})
    problem_of(again, 401, "identity.unauthenticated")


# --- forged requests ---


@pytest.fixture
def new_site(world: World) -> dict[str, str]:
    """A change that a foreign page might want."""
    return {"organization_id": str(world.tenant.id), "name": "New", "timezone": "UTC"}


async def browser(api: Client, world: World) -> dict[str, str]:
    """Somebody in a browser: his session's cookies as a header, and the token that his page reads."""
    world.give_password(world.chief)
    response = await log_in(api, world.chief, in_cookies=True)
    jar = {
        name: one.value for line in response.headers.get_list("set-cookie") for name, one in SimpleCookie(line).items()
    }
    api.cookies.clear()
    return {"cookie": "; ".join(f"{name}={value}" for name, value in jar.items()), "x-csrf-token": jar["hse_csrf"]}


async def test_what_changes_something_and_came_with_a_cookie_needs_the_csrf_token(
    api: Client, world: World, new_site: dict[str, str]
) -> None:
    headers = await browser(api, world)
    cookie = {"cookie": headers["cookie"]}
    foreign = compose_doorkeeping(SECRET_KEY).csrf_tokens.token_of(uuid4())
    assert (await api.get("/api/v1/establishments", headers=cookie)).status_code == 200
    for token in ({}, {"x-csrf-token": ""}, {"x-csrf-token": foreign}):
        response = await api.post("/api/v1/establishments", headers={**cookie, **token}, json=new_site)
        problem_of(response, 403, "request.forged")
    assert (await api.post("/api/v1/establishments", headers=headers, json=new_site)).status_code == 201


@pytest.mark.parametrize(
    ("sent", "is_taken"),
    [
        ({"sec-fetch-site": "same-origin", "origin": "http://testserver"}, True),
        ({"sec-fetch-site": "same-site", "origin": "http://app.testserver"}, True),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "https://app.example.com"}, True),
    ],
)
async def test_a_page_of_another_site_is_refused_even_with_the_csrf_token(
    parts: Parts, world: World, new_site: dict[str, str], sent: dict[str, str], is_taken: bool
) -> None:
    async with client_of(replace(parts, trusted_origins=frozenset({"https://app.example.com"}))) as api:
        headers = {**await browser(api, world), "host": "testserver"}
        response = await api.post("/api/v1/establishments", headers={**headers, **sent}, json=new_site)
        login = await api.post(LOGIN, headers=sent, json={"email": world.chief.email, "password": PASSWORD})
    assert (response.status_code, login.status_code) == ((201, 200) if is_taken else (403, 403)), response.text


async def test_a_token_in_a_header_needs_no_csrf_token(api: Client, world: World, new_site: dict[str, str]) -> None:
    headers = {**world.chief.headers, "sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert (await api.post("/api/v1/establishments", headers=headers, json=new_site)).status_code == 201


async def test_going_on_and_signing_out_with_cookies_need_the_csrf_token(api: Client, world: World) -> None:
    headers = await browser(api, world)
    cookie = {"cookie": headers["cookie"]}
    for path in ("refresh", "logout"):
        problem_of(await api.post(f"/api/v1/auth/{path}", headers=cookie, json={}), 403, "request.forged")
    gone_on = await api.post("/api/v1/auth/refresh", headers=headers)
    assert gone_on.status_code == 200, gone_on.text
    assert gone_on.json()["access_token"] is None
    assert len(gone_on.headers.get_list("set-cookie")) == 3
    out = await api.post("/api/v1/auth/logout", headers=headers)
    assert out.status_code == 204, out.text
    assert all("Max-Age=0" in line for line in out.headers.get_list("set-cookie"))
    problem_of(await api.get("/api/v1/establishments", headers=cookie), 401, "identity.unauthenticated")


# --- access tokens ---

KEY = derived_key(SECRET_KEY, "access tokens")


def claims_of(person: Person, **changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(person.id),
        "sid": str(person.session_id),
        "iat": int(now.timestamp()),
        "exp": int((now + timedelta(minutes=5)).timestamp()),
        "jti": uuid4().hex,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims: dict[str, Any], *, algorithm: str = "HS256", key: Any = KEY, typ: str | None = TYPE) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"typ": typ})


def tampered(token: str) -> str:
    header, payload, signature = token.split(".")
    text = base64.urlsafe_b64decode(payload + "==").replace(b'"hse-api"', b'"hse-api" ')
    return ".".join((header, base64.urlsafe_b64encode(text).decode().rstrip("="), signature))


def header_says_none(token: str) -> str:
    """A token that was signed well, whose header then says that it was not signed."""
    _, payload, signature = token.split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=")
    return f"{header}.{payload}.{signature}"


OLD = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
BAD_TOKENS: dict[str, Callable[[Person], str]] = {
    "alg none": lambda one: signed(claims_of(one), algorithm="none", key=None),
    "alg none with a signature": lambda one: header_says_none(signed(claims_of(one))),
    "alg HS512 with the right key": lambda one: signed(claims_of(one), algorithm="HS512"),
    "alg RS256": lambda one: signed(claims_of(one), algorithm="RS256", key=rsa.generate_private_key(65537, 2048)),
    "another key": lambda one: signed(claims_of(one), key=derived_key(SECRET_KEY, "sealing")),
    "another audience": lambda one: signed(claims_of(one, aud="other")),
    "no audience": lambda one: signed(claims_of(one, aud=None)),
    "another issuer": lambda one: signed(claims_of(one, iss="other")),
    "no expiry": lambda one: signed(claims_of(one, exp=None)),
    "expired": lambda one: signed(claims_of(one, exp=OLD)),
    "of the future": lambda one: signed(claims_of(one, iat=int(datetime.now(UTC).timestamp()) + 3600)),
    "an ID token": lambda one: signed(claims_of(one), typ="JWT"),
    "no type": lambda one: signed(claims_of(one), typ=None),
    "no session": lambda one: signed(claims_of(one, sid=None)),
    "a session that is no id": lambda one: signed(claims_of(one, sid="1")),
    "an unknown session": lambda one: signed(claims_of(one, sid=str(uuid4()))),
    "tampered": lambda one: tampered(signed(claims_of(one))),
    "no token": lambda _: "abc",
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("make", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_token_that_is_not_ours_to_the_letter_is_refused(
    api: Client, world: World, make: Callable[[Person], str]
) -> None:
    good = {"Authorization": f"Bearer {signed(claims_of(world.chief))}"}
    assert (await api.get("/api/v1/establishments", headers=good)).status_code == 200
    bad = {"Authorization": f"Bearer {make(world.chief)}"}
    problem_of(await api.get("/api/v1/establishments", headers=bad), 401, "identity.unauthenticated")
