"""Live changes over graphql-transport-ws: the same streams as over REST, for the same people."""

from dataclasses import replace
from typing import Any

import pytest
from litestar import Litestar

from hse.api.app import Parts, create_app
from hse.api.limits import RequestLimits
from tests.api.conftest import Client, client_of, living
from tests.api.graphql import Socket, refusal
from tests.api.live import device, execute, streams_of
from tests.api.live_node import LiveNode
from tests.api.world import Person, World
from tests.faults.conditions import until

# grpc.aio wants one event loop a process.
pytestmark = pytest.mark.asyncio(loop_scope="session")

FOLLOW = """subscription ($kinds: [LiveKind!], $devices: [UUID!], $after: String) {
  live(kinds: $kinds, deviceIds: $devices, resumeAfter: $after) {
    states { deviceId isConnected lastEvent { value } device { name } }
    events { deviceId type value metadata }
    missed { numMissed }
    sources { numNodes numAway }
    ended
    position
  }
}"""


async def opened(app: Litestar, person: Person) -> Socket:
    """A socket of somebody who has proved who he is by its opening request."""
    socket = Socket(app, person.headers)
    assert (await socket.open())["type"] == "websocket.accept"
    assert (await socket.say(type="connection_init"))["type"] == "connection_ack"
    return socket


async def followed(socket: Socket, **variables: Any) -> list[dict[str, Any]]:
    """Subscribe; the batches up to the one that says that the node is heard."""
    first = await socket.say(id="live", type="subscribe", payload={"query": FOLLOW, "variables": variables})
    batches = [batch_of(first)]
    while (batches[-1]["sources"] or {"numAway": 1})["numAway"]:
        batches.append(batch_of(await socket.hear()))
    return batches


def batch_of(message: dict[str, Any]) -> dict[str, Any]:
    """What a message tells."""
    assert message["type"] == "next", message
    assert "errors" not in message["payload"], message
    batch: dict[str, Any] = message["payload"]["data"]["live"]
    return batch


async def until_told(socket: Socket, field: str) -> dict[str, Any]:
    """The next batch that has something there."""
    while not (batch := batch_of(await socket.hear()))[field]:
        pass
    return batch


async def test_a_subscription_is_told_what_its_owner_reaches(live_app: Litestar, world: World, node: LiveNode) -> None:
    socket = await opened(live_app, world.user)
    await followed(socket)
    node.event(world.other_tenant.sites[0].device_id, 1)
    node.event(device(world, 1), 2)
    node.event(device(world), 3, room="B")
    batch = await until_told(socket, "events")
    assert batch["events"] == [
        {"deviceId": str(device(world)), "type": "temperature", "value": 3.0, "metadata": {"room": "B"}}
    ]
    states = batch["states"] or (await until_told(socket, "states"))["states"]
    assert [(one["deviceId"], one["device"]["name"]) for one in states] == [(str(device(world)), "Acme 1 meter")]
    await socket.close()
    await until(lambda: not streams_of(live_app)._streams, "the stream is forgotten")


async def test_a_subscription_ends_with_the_session(live_app: Litestar, world: World) -> None:
    socket = await opened(live_app, world.user)
    await followed(socket)
    execute(world, "update sessions set revoked_at = now() where user_id = %s", world.user.id)
    assert (await until_told(socket, "ended"))["ended"] == "session-ended"
    assert (await socket.hear())["type"] == "complete"
    await socket.close()


async def test_a_subscription_that_is_completed_costs_nothing_more(live_app: Litestar, world: World) -> None:
    socket = await opened(live_app, world.user)
    await followed(socket)
    await socket.send(id="live", type="complete")
    await until(lambda: not streams_of(live_app)._streams, "the stream is forgotten")
    await socket.close()


async def test_a_subscription_goes_on_where_another_stopped(live_app: Litestar, world: World, node: LiveNode) -> None:
    first = await opened(live_app, world.user)
    await followed(first, kinds=["EVENT"])
    node.event(device(world), 1)
    position = (await until_told(first, "events"))["position"]
    await first.close()
    node.event(device(world), 2)
    second = await opened(live_app, world.user)
    batches = await followed(second, kinds=["EVENT"], after=position)
    events = [one for batch in batches for one in batch["events"]] or (await until_told(second, "events"))["events"]
    assert [one["value"] for one in events] == [2.0]
    await second.close()


@pytest.mark.parametrize(
    ("variables", "code"),
    [({"devices": ["of another tenant"]}, "resource.not-found"), ({"after": "nonsense"}, "request.invalid")],
)
async def test_what_cannot_be_followed_is_refused(
    live_app: Litestar, world: World, variables: dict[str, Any], code: str
) -> None:
    if "devices" in variables:
        variables = {"devices": [str(world.other_tenant.sites[0].device_id)]}
    socket = await opened(live_app, world.user)
    answer = await socket.say(id="1", type="subscribe", payload={"query": FOLLOW, "variables": variables})
    errors = answer["payload"] if answer["type"] == "error" else answer["payload"]["errors"]
    assert errors[0]["extensions"]["code"] == code
    await socket.close()


async def test_a_socket_may_prove_who_opened_it_with_its_first_message(live_app: Litestar, world: World) -> None:
    for payload in (
        {"authorization": f"Bearer {world.user.token}"},
        {"Authorization": f"bearer {world.user.token}"},
        {"x-api-key": world.add_api_key(world.user, ["read_device", "read_telemetry"])},
    ):
        socket = Socket(live_app, {})
        assert (await socket.open())["type"] == "websocket.accept"
        assert (await socket.say(type="connection_init", payload=payload))["type"] == "connection_ack", payload
        await followed(socket)
        await socket.close()


async def test_a_socket_that_proves_nothing_does_nothing(live_app: Litestar, world: World) -> None:
    world.revoke(world.second_user)
    for payload in (
        {},
        {"authorization": "Bearer nonsense"},
        {"authorization": 7},
        {"authorization": f"Bearer {world.second_user.token}"},
        {"x-api-key": "hse_no_key"},
    ):
        socket = Socket(live_app, {})
        await socket.open()
        answer = await socket.say(type="connection_init", payload=payload)
        assert (answer["type"], answer["code"]) == ("websocket.close", 4403), payload
    socket = Socket(live_app, {})
    await socket.open()
    answer = await socket.say(id="1", type="subscribe", payload={"query": "{ areas { totalCount } }"})
    assert (answer["type"], answer["code"]) == ("websocket.close", 4401)


async def test_a_page_of_another_site_opens_none_with_the_session_s_cookie(live_app: Litestar, world: World) -> None:
    cookie = {"Cookie": f"hse_access={world.user.token}", "Host": "here"}
    for origin, answer in (("http://elsewhere.example", "websocket.close"), ("http://here", "websocket.accept")):
        socket = Socket(live_app, {**cookie, "Origin": origin})
        assert (await socket.open())["type"] == answer


async def test_the_first_message_counts_as_a_request(parts: Parts, world: World) -> None:
    app = create_app(replace(parts, limits=RequestLimits(address_per_minute=100, user_per_minute=2)))
    async with living(app):
        answers = []
        for _ in range(3):
            socket = Socket(app, {})
            await socket.open()
            answer = await socket.say(type="connection_init", payload={"authorization": f"Bearer {world.user.token}"})
            answers.append(answer["type"])
        assert answers == ["connection_ack", "connection_ack", "websocket.close"]


async def test_a_subscription_is_not_a_request_over_http(live_app: Litestar, world: World) -> None:
    api: Client
    async with client_of(live_app) as api:
        await refusal(api, world.user, "subscription { live { position } }", "request.invalid")
    assert not streams_of(live_app)._streams
