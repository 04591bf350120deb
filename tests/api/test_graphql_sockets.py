"""GraphQL over a WebSocket: what holds for a request holds for each operation of a connection."""

from dataclasses import replace
from typing import Any

import pytest
from litestar import Litestar

from hse.api.app import Parts, create_app
from hse.api.graphql import sockets
from hse.api.limits import RequestLimits
from hse.api.sockets import SOCKETS_OF_USER_MAX
from tests.api.conftest import living
from tests.api.graphql import Socket
from tests.api.live import execute
from tests.api.world import World

AREAS = "{ areas { edges { node { name establishment { name } } } } }"


async def test_a_connection_takes_operations_one_after_the_other_and_each_sees_what_is_now(
    app: Litestar, world: World
) -> None:
    socket = Socket(app, world.admin.headers)
    assert (await socket.open())["type"] == "websocket.accept"
    assert (await socket.say(type="connection_init"))["type"] == "connection_ack"
    first = await socket.ask(AREAS)
    assert first["payload"]["data"]["areas"]["edges"] == [
        {"node": {"name": "Hall", "establishment": {"name": "Acme 1"}}}
    ]
    world.rename(world.tenant.sites[0], "Elsewhere")
    second = await socket.ask(AREAS)
    assert second["payload"]["data"]["areas"]["edges"] == [
        {"node": {"name": "Hall", "establishment": {"name": "Elsewhere"}}}
    ]
    world.revoke(world.admin)
    third = await socket.ask(AREAS)
    assert third["payload"]["data"] == {"areas": None}
    assert third["payload"]["errors"][0]["extensions"]["code"] == "identity.unauthenticated"
    await socket.close()


async def test_the_limits_hold_there_too(app: Litestar, world: World) -> None:
    socket = Socket(app, world.root.headers)
    await socket.open()
    await socket.say(type="connection_init")
    for query, code in (
        (
            "{ areas(first: 200) { edges { node { devices(first: 200) { edges { node { id } } } } } } }",
            "graphql.too-costly",
        ),
        ("{ nothing }", "request.invalid"),
        ("subscription { areas }", "request.invalid"),
    ):
        answer = await socket.ask(query)
        assert answer["type"] == "error", answer
        assert answer["payload"][0]["extensions"]["code"] == code
    await socket.close()


async def test_nobody_and_no_foreign_page_opens_one(app: Litestar, world: World) -> None:
    world.revoke(world.user)
    for headers in (
        world.user.headers,
        {**world.admin.headers, "Host": "here", "Origin": "https://elsewhere.example"},
    ):
        socket = Socket(app, headers)
        assert (await socket.open())["type"] == "websocket.close", headers


async def opened(app: Litestar, headers: dict[str, str], **payload: str) -> tuple[Socket, dict[str, Any]]:
    """A socket, and what its first message is answered with."""
    socket = Socket(app, headers)
    await socket.open()
    return socket, await socket.say(type="connection_init", payload=payload)


def is_refused(answer: dict[str, Any]) -> bool:
    return (answer["type"], answer.get("code")) == ("websocket.close", 4403)


@pytest.mark.parametrize("way", ["header", "first message"])
async def test_nobody_holds_more_than_so_many_open_and_asks_for_nothing(app: Litestar, world: World, way: str) -> None:
    person = world.user.headers
    proof: tuple[dict[str, str], dict[str, str]] = (person, {}) if way == "header" else ({}, person)
    held = [await opened(app, proof[0], **proof[1]) for _ in range(SOCKETS_OF_USER_MAX)]
    assert {answer["type"] for _, answer in held} == {"connection_ack"}
    key = {"x-api-key": world.add_api_key(world.user, ["read_area"])}
    for headers, payload in (proof, ({}, key)):
        beyond, answer = await opened(app, headers, **payload)
        assert is_refused(answer), "his keys are his, too"
        await beyond.close()
    other, answer = await opened(app, world.second_user.headers)
    assert answer["type"] == "connection_ack"
    await held.pop()[0].close()
    held.append(await opened(app, proof[0], **proof[1]))
    assert held[-1][1]["type"] == "connection_ack", "there is room again"
    for socket in (other, *(socket for socket, _ in held)):
        await socket.close()
    assert len(app.state.sockets) == 0


@pytest.mark.parametrize("ending", ["session revoked", "key revoked", "user disabled"])
async def test_a_socket_on_which_nothing_is_asked_ends_with_what_opened_it(
    app: Litestar, world: World, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "LAST_WORDS_SECONDS", 0.0)
    proof = (
        {"x-api-key": world.add_api_key(world.user, ["read_area"])} if ending == "key revoked" else world.user.headers
    )
    socket, answer = await opened(app, {}, **proof)
    assert answer["type"] == "connection_ack"
    other, _ = await opened(app, world.second_user.headers)
    execute(
        world,
        {
            "session revoked": "update sessions set revoked_at = now() where user_id = %s",
            "key revoked": "update api_keys set revoked_at = now() where user_id = %s",
            "user disabled": "update users set is_active = false where id = %s",
        }[ending],
        world.user.id,
    )
    answer = await socket.hear()
    assert is_refused(answer)
    assert answer["reason"] == "session-ended"
    assert (await other.ask(AREAS))["type"] == "next", "nothing has happened to him"
    for one in (socket, other):
        await one.close()


async def test_it_ends_also_when_nobody_tells_of_changes(
    parts: Parts, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "LAST_WORDS_SECONDS", 0.0)
    monkeypatch.setattr("hse.api.sockets.SCOPE_SECONDS_MAX", 0.0)
    app = create_app(replace(parts, open_listener=None))
    async with living(app):
        socket, _ = await opened(app, world.user.headers)
        world.revoke(world.user)
        assert is_refused(await socket.hear())
        await socket.close()


async def test_who_asks_too_often_is_refused_before_what_he_asks_is_looked_at(parts: Parts, world: World) -> None:
    app = create_app(replace(parts, limits=RequestLimits(address_per_minute=100, user_per_minute=1)))
    async with living(app):
        socket, _ = await opened(app, world.admin.headers)
        answer = await socket.ask("no GraphQL")
        assert (answer["type"], answer["payload"][0]["extensions"]["code"]) == ("error", "request.too-many")
        await socket.close()


async def test_each_operation_counts_as_a_request(parts: Parts, world: World) -> None:
    app = create_app(replace(parts, limits=RequestLimits(address_per_minute=100, user_per_minute=3)))
    async with living(app):
        socket = Socket(app, world.admin.headers)
        await socket.open()
        await socket.say(type="connection_init")
        answers = [await socket.ask("{ areas { totalCount } }") for _ in range(5)]
        assert [answer["type"] for answer in answers] == ["next", "next", "error", "error", "error"]
        extensions = answers[-1]["payload"][0]["extensions"]
        assert (extensions["code"], extensions["kind"]) == ("request.too-many", "too-many")
        assert extensions["retryAfterSeconds"] >= 1
        await socket.close()
