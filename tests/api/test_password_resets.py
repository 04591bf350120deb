"""A forgotten password: a link by letter, good once, for an hour; and nobody learns who has an account."""

import json
import re
from typing import Any

import httpx
import psycopg
import pytest
from litestar import Litestar

from hse.adapters.sealing import Sealer
from tests.api.conftest import Client, problem_of
from tests.api.test_auth import LOGIN, audited, client_at, log_in
from tests.api.world import PASSWORD, SECRET_KEY, World

ASK = "/api/v1/auth/password-reset"
NEW = "nine badgers paint fences"


def letters(world: World) -> list[dict[str, Any]]:
    """The letters that wait to be sent, in the clear."""
    with psycopg.connect(world.database_url) as connection:
        rows = connection.execute("select kind, recipient, sealed from outgoing_mail order by id").fetchall()
    return [
        {"kind": kind, "recipient": recipient, **json.loads(Sealer(SECRET_KEY).unseal(sealed))}
        for kind, recipient, sealed in rows
    ]


async def ask(api: Client, world: World) -> str:
    """Ask for a link; the token of the letter that came."""
    world.give_password(world.chief)
    asked = await api.post(ASK, json={"email": world.chief.email})
    assert asked.status_code == 202, asked.text
    (letter,) = letters(world)
    assert (letter["kind"], letter["recipient"]) == ("password_reset", world.chief.email)
    found = re.search(r"^https?://\S+#token=([A-Za-z0-9_-]+)$", letter["text"], re.MULTILINE)
    assert found is not None, letter["text"]
    return found[1]


async def confirm(api: Client, token: str, password: str = NEW) -> httpx.Response:
    return await api.post(f"{ASK}/confirm", json={"token": token, "new_password": password})


async def test_a_link_gives_a_new_password_once_and_ends_all_sessions(api: Client, world: World) -> None:
    token = await ask(api, world)
    session = (await log_in(api, world.chief)).json()
    done = await confirm(api, token)
    assert done.status_code == 204, done.text
    problem_of(await confirm(api, token, "eight badgers paint fences"), 422, "identity.reset-link-invalid")
    for headers in (world.chief.headers, {"Authorization": f"Bearer {session['access_token']}"}):
        problem_of(await api.get("/api/v1/me", headers=headers), 401, "identity.unauthenticated")
    problem_of(await log_in(api, world.chief), 401, "identity.wrong-credentials")
    assert (await api.post(LOGIN, json={"email": world.chief.email, "password": NEW})).status_code == 200
    assert [letter["kind"] for letter in letters(world)] == ["password_reset", "password_changed"]
    told = [action for action, _, _ in audited(world)]
    assert [action for action in told if action.startswith("user.")] == [
        "user.password_reset_ask",
        "user.password_reset",
    ]


async def test_another_password_ends_the_links_that_were_sent_before(api: Client, world: World) -> None:
    token = await ask(api, world)
    body = {"password": PASSWORD, "new_password": "eight badgers paint fences"}
    changed = await api.post("/api/v1/me/password", headers=world.chief.headers, json=body)
    assert changed.status_code == 204, changed.text
    problem_of(await confirm(api, token), 422, "identity.reset-link-invalid")
    assert (await api.post(ASK, json={"email": world.chief.email})).status_code == 202
    later = re.findall(r"#token=(\S+)", letters(world)[-1]["text"])
    assert (await confirm(api, later[0])).status_code == 204


async def test_the_letter_says_which_keys_a_new_password_leaves(api: Client, world: World) -> None:
    key = world.add_api_key(world.chief, ["read_device"])
    token = await ask(api, world)
    assert (await confirm(api, token)).status_code == 204
    assert "1 API key" in letters(world)[-1]["text"]
    assert (await api.get("/api/v1/devices", headers={"X-API-Key": key})).status_code == 200


async def test_unknown_and_known_are_one_answer(api: Client, world: World) -> None:
    world.give_password(world.chief)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update users set is_active = false where id = %s", [world.admin.id])
    answers = []
    for email in (world.chief.email, "nobody@example.com", world.admin.email):
        answer = await api.post(ASK, json={"email": email})
        answers.append((answer.status_code, answer.content, sorted(answer.headers)))
    assert answers == [answers[0]] * 3
    assert answers[0][0] == 202
    assert [letter["recipient"] for letter in letters(world)] == [world.chief.email]


async def test_a_link_is_good_for_an_hour(api: Client, world: World) -> None:
    token = await ask(api, world)
    with psycopg.connect(world.database_url) as connection:
        kept = connection.execute(
            "update password_resets set expires_at = expires_at - interval '1 hour'"
            " returning expires_at <= now(), expires_at > now() - interval '1 minute'"
        ).fetchall()
    assert kept == [(True, True)]
    problem_of(await confirm(api, token), 422, "identity.reset-link-invalid")


async def test_a_weak_password_does_not_use_the_link_up(api: Client, world: World) -> None:
    token = await ask(api, world)
    problem_of(await confirm(api, token, "password1234"), 422, "identity.weak-password")
    assert (await confirm(api, token)).status_code == 204


async def test_of_two_links_one_use_ends_both(api: Client, world: World) -> None:
    first = await ask(api, world)
    assert (await api.post(ASK, json={"email": world.chief.email})).status_code == 202
    assert len(letters(world)) == 2
    assert (await confirm(api, first)).status_code == 204
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select count(*) from password_resets where used_at is null").fetchone() == (0,)


async def test_a_disabled_account_gets_no_new_password(api: Client, world: World) -> None:
    token = await ask(api, world)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update organizations set is_active = false where id = %s", [world.tenant.id])
    problem_of(await confirm(api, token), 422, "identity.reset-link-invalid")


async def test_the_database_does_not_know_the_token(api: Client, world: World) -> None:
    token = await ask(api, world)
    with psycopg.connect(world.database_url) as connection:
        kept = connection.execute("select token_hash, sealed from password_resets, outgoing_mail").fetchall()
    assert token.encode() not in b"".join(part for row in kept for part in row)


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_stranger_asks_a_few_times_and_the_owner_still_may(app: Litestar, world: World, is_known: bool) -> None:
    email = world.chief.email if is_known else "nobody@example.com"
    async with client_at(app, "198.51.100.7") as stranger, client_at(app, "192.0.2.1") as owner:
        asked = [(await stranger.post(ASK, json={"email": email})).status_code for _ in range(5)]
        assert asked == [202] * 4 + [429]
        assert (await owner.post(ASK, json={"email": email})).status_code == 202


async def test_after_too_many_guesses_a_new_password_opens_the_door_again(api: Client, world: World) -> None:
    token = await ask(api, world)
    wrong = {"email": world.chief.email, "password": "wrong"}
    assert [(await api.post(LOGIN, json=wrong)).status_code for _ in range(11)] == [401] * 10 + [429]
    assert (await confirm(api, token)).status_code == 204
    assert (await api.post(LOGIN, json={"email": world.chief.email, "password": NEW})).status_code == 200
