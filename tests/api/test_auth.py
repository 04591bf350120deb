"""Signing in and out over REST: passwords, cookies, forged requests, and what an access token must be."""

from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from hse.adapters.sealing import derived_key
from hse.adapters.tokens import AUDIENCE, ISSUER, TYPE
from tests.api.conftest import problem_of
from tests.api.world import PASSWORD, SECRET_KEY, TOKENS, Person, World

Client = AsyncTestClient[Litestar]


async def log_in(api: Client, person: Person, **more: Any) -> httpx.Response:
    return await api.post("/api/v1/auth/login", json={"email": person.email, "password": PASSWORD, **more})


async def test_a_program_gets_its_tokens_in_the_body_and_no_cookies(api: Client, world: World) -> None:
    world.give_password(world.chief)
    response = await log_in(api, world.chief)
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["token_type"], body["expires_in"], body["refresh_expires_in"]) == ("Bearer", 900, 7 * 86400)
    assert body["csrf_token"] is None
    assert "set-cookie" not in response.headers
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await api.get("/api/v1/organizations", headers=headers)).status_code == 200


async def test_a_browser_gets_its_tokens_in_cookies_that_scripts_cannot_read(api: Client, world: World) -> None:
    world.give_password(world.chief)
    response = await log_in(api, world.chief, in_cookies=True)
    body = response.json()
    assert body["access_token"] is None
    assert body["refresh_token"] is None
    cookies = {}
    for line in response.headers.get_list("set-cookie"):
        for name, morsel in SimpleCookie(line).items():
            cookies[name] = (
                bool(morsel["httponly"]), bool(morsel["secure"]), morsel["samesite"].lower(), morsel["path"], morsel["max-age"]
            )  # fmt: skip
    assert cookies == {
        "hse_access": (True, True, "lax", "/", "900"),
        "hse_refresh": (True, True, "strict", "/api/v1/auth", str(7 * 86400)),
        "hse_csrf": (False, True, "strict", "/", str(7 * 86400)),
    }


async def test_unknown_wrong_and_disabled_are_one_answer(api: Client, world: World) -> None:
    for person in (world.chief, world.admin, world.other_chief):
        world.give_password(person)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update users set is_active = false where id = %s", [world.admin.id])
        connection.execute("update organizations set is_active = false where id = %s", [world.other_tenant.id])
    answers = []
    for email, password in (
        ("nobody@example.com", PASSWORD),
        (world.chief.email, "wrong"),
        (world.user.email, PASSWORD),
        (world.admin.email, PASSWORD),
        (world.other_chief.email, PASSWORD),
    ):
        response = await api.post("/api/v1/auth/login", json={"email": email, "password": password})
        problem = problem_of(response, 401, "identity.wrong-credentials")
        del problem["correlation_id"]
        answers.append(problem)
    assert all(answer == answers[0] for answer in answers)
