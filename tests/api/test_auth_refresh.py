"""Refresh tokens: each is good for one use, its answer may be lost once, and a copy ends the session."""

import asyncio
from typing import Any

import httpx
import psycopg
import pytest

from tests.api.conftest import Client, problem_of
from tests.api.test_auth import audited, log_in
from tests.api.world import World

REFRESH = "/api/v1/auth/refresh"


@pytest.fixture
async def session(api: Client, world: World) -> dict[str, Any]:
    """A program's session."""
    world.give_password(world.chief)
    body: dict[str, Any] = (await log_in(api, world.chief)).json()
    return body


async def refresh(api: Client, token: str) -> httpx.Response:
    return await api.post(REFRESH, json={"refresh_token": token})


def execute(world: World, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(world.database_url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def used_long_ago(world: World) -> None:
    execute(world, "update refresh_tokens set used_at = used_at - interval '11 seconds' where used_at is not null")


async def is_alive(api: Client, session: dict[str, Any]) -> bool:
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    return (await api.get("/api/v1/establishments", headers=headers)).status_code == 200


async def test_a_session_goes_on_from_token_to_token(api: Client, world: World, session: dict[str, Any]) -> None:
    tokens = [session["refresh_token"]]
    for _ in range(3):
        response = await refresh(api, tokens[-1])
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["session_id"] == session["session_id"]
        assert await is_alive(api, body)
        tokens.append(body["refresh_token"])
    assert len(set(tokens)) == 4
    kept = execute(world, "select encode(token_hash, 'escape') from refresh_tokens")
    assert len(kept) == 4
    assert not {token for token in tokens if (token,) in kept}


async def all_connections_wait(world: World) -> None:
    """Wait until every connection of the api's pool wants a row that somebody else holds."""
    waiting = (
        "select count(*) from pg_stat_activity"
        " where application_name = 'hse api' and datname = current_database() and wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20):
        while execute(world, waiting) != [(5,)]:  # noqa: ASYNC110 (the condition is the database's)
            await asyncio.sleep(0.01)


async def test_fifty_at_once_rotate_once_and_log_nobody_out(api: Client, world: World, session: dict[str, Any]) -> None:
    with psycopg.connect(world.database_url) as held:
        held.execute("select from sessions where id = %s for update", [session["session_id"]])
        refreshing = asyncio.gather(*(refresh(api, session["refresh_token"]) for _ in range(50)))
        await all_connections_wait(world)
    answers = await refreshing
    assert {answer.status_code for answer in answers} == {200}
    successors = {answer.json()["refresh_token"] for answer in answers}
    assert len(successors) == 1
    assert execute(world, "select count(*), count(used_at) from refresh_tokens") == [(2, 1)]
    assert (await refresh(api, successors.pop())).status_code == 200
    assert await is_alive(api, session)


async def test_a_lost_answer_is_given_again(api: Client, session: dict[str, Any]) -> None:
    first, second = await refresh(api, session["refresh_token"]), await refresh(api, session["refresh_token"])
    assert first.json()["refresh_token"] == second.json()["refresh_token"]


async def test_a_token_that_is_used_again_later_ends_the_session_for_both(
    api: Client, world: World, session: dict[str, Any]
) -> None:
    successor = (await refresh(api, session["refresh_token"])).json()["refresh_token"]
    used_long_ago(world)
    problem_of(await refresh(api, session["refresh_token"]), 401, "identity.unauthenticated")
    problem_of(await refresh(api, successor), 401, "identity.unauthenticated")
    assert not await is_alive(api, session)
    assert ("session.refresh_reused", str(world.chief.id), None) in audited(world)


async def test_a_token_that_is_used_again_after_its_successor_ends_the_session(
    api: Client, session: dict[str, Any]
) -> None:
    successor = (await refresh(api, session["refresh_token"])).json()["refresh_token"]
    last = (await refresh(api, successor)).json()["refresh_token"]
    problem_of(await refresh(api, session["refresh_token"]), 401, "identity.unauthenticated")
    problem_of(await refresh(api, last), 401, "identity.unauthenticated")
    assert not await is_alive(api, session)


async def test_other_sessions_of_the_same_user_outlive_a_reuse(
    api: Client, world: World, session: dict[str, Any]
) -> None:
    other = (await log_in(api, world.chief)).json()
    await refresh(api, session["refresh_token"])
    used_long_ago(world)
    problem_of(await refresh(api, session["refresh_token"]), 401, "identity.unauthenticated")
    assert await is_alive(api, other)


async def test_a_session_that_ended_does_not_go_on(api: Client, world: World, session: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    assert (await api.post("/api/v1/auth/logout", headers=headers)).status_code == 204
    problem_of(await refresh(api, session["refresh_token"]), 401, "identity.unauthenticated")
    assert [entry[0] for entry in audited(world)] == ["session.sign_in", "session.sign_out"]


async def test_signing_out_takes_a_refresh_token_too_and_can_be_repeated(api: Client, session: dict[str, Any]) -> None:
    for _ in range(2):
        out = await api.post("/api/v1/auth/logout", json={"refresh_token": session["refresh_token"]})
        assert out.status_code == 204, out.text
    assert not await is_alive(api, session)


async def test_a_session_ends_after_a_week_without_use_and_after_ninety_days_anyway(
    api: Client, world: World, session: dict[str, Any]
) -> None:
    execute(world, "update sessions set created_at = created_at - interval '89 days'")
    near_end = (await refresh(api, session["refresh_token"])).json()
    assert 0 < near_end["refresh_expires_in"] <= 86400
    execute(world, "update sessions set expires_at = now()")
    problem_of(await refresh(api, near_end["refresh_token"]), 401, "identity.unauthenticated")
    assert not await is_alive(api, near_end)


@pytest.mark.parametrize("body", [{}, {"refresh_token": "unknown"}, None])
async def test_an_unknown_token_is_refused(api: Client, body: dict[str, str] | None) -> None:
    problem_of(await api.post(REFRESH, json=body), 401, "identity.unauthenticated")
