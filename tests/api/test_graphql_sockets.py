"""GraphQL over a WebSocket: what holds for a request holds for each operation of a connection."""

from dataclasses import replace

from litestar import Litestar

from hse.api.app import Parts, create_app
from hse.api.limits import RequestLimits
from tests.api.conftest import living
from tests.api.graphql import Socket
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
