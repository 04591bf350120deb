"""GraphQL over a WebSocket: what holds for a request holds for each operation of a connection."""

from litestar import Litestar

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
        {},
        world.user.headers,
        {**world.admin.headers, "Host": "here", "Origin": "https://elsewhere.example"},
    ):
        socket = Socket(app, headers)
        assert (await socket.open())["type"] == "websocket.close", headers
