"""Changing one's own password."""

import pytest

from tests.api.conftest import Client, problem_of
from tests.api.mailboxes import letters_to
from tests.api.test_auth import LOGIN, audited, log_in
from tests.api.world import PASSWORD, World

NEW = "nine badgers paint fences"


async def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(api: Client, world: World) -> None:
    world.give_password(world.chief)
    here, there = [(await log_in(api, world.chief)).json() for _ in range(2)]
    headers = [{"Authorization": f"Bearer {one['access_token']}"} for one in (here, there)]
    body = {"password": PASSWORD, "new_password": NEW}
    changed = await api.post("/api/v1/me/password", headers=headers[0], json=body)
    assert changed.status_code == 204, changed.text
    answers = [(await api.get("/api/v1/establishments", headers=one)).status_code for one in headers]
    assert answers == [200, 401]
    again = await api.post("/api/v1/auth/refresh", json={"refresh_token": there["refresh_token"]})
    problem_of(again, 401, "identity.unauthenticated")
    problem_of(await log_in(api, world.chief), 401, "identity.wrong-credentials")
    assert (await api.post(LOGIN, json={"email": world.chief.email, "password": NEW})).status_code == 200
    assert ("user.password_change", str(world.chief.id), None) in audited(world)


async def test_the_letter_says_how_many_keys_act_for_you(api: Client, world: World) -> None:
    world.give_password(world.chief)
    for person in (world.chief, world.chief, world.admin):
        world.new_api_key(person)
    body = {"password": PASSWORD, "new_password": NEW}
    assert (await api.post("/api/v1/me/password", headers=world.chief.headers, json=body)).status_code == 204
    (text,) = letters_to(world.database_url, world.chief.email)
    assert "2 API keys" in text


@pytest.mark.parametrize(
    ("password", "new_password", "code"),
    [
        ("wrong", NEW, "identity.wrong-password"),
        (PASSWORD, "short", "identity.weak-password"),
        (PASSWORD, "chief chief chief", "identity.weak-password"),
    ],
)
async def test_the_old_password_must_be_right_and_the_new_one_strong(
    api: Client, world: World, password: str, new_password: str, code: str
) -> None:
    world.give_password(world.chief)
    body = {"password": password, "new_password": new_password}
    problem_of(await api.post("/api/v1/me/password", headers=world.chief.headers, json=body), 422, code)
    assert (await log_in(api, world.chief)).status_code == 200
