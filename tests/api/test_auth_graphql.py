"""GraphQL is behind the same guard: what comes with a cookie must not be forged, over a WebSocket neither."""

from contextlib import nullcontext

import pytest
from litestar.exceptions import WebSocketDisconnect
from litestar.testing import TestClient

from hse.api.app import Parts, create_app
from tests.api.conftest import Client, problem_of
from tests.api.test_auth import browser, client_of
from tests.api.world import World

BODY = {"query": "{ __typename }"}


async def test_a_query_with_a_cookie_needs_the_csrf_token(api: Client, world: World) -> None:
    headers = await browser(api, world)
    refused = await api.post("/graphql", headers={"cookie": headers["cookie"]}, json=BODY)
    problem_of(refused, 403, "request.forged")
    answered = await api.post("/graphql", headers=headers, json=BODY)
    assert answered.json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize(
    ("sent", "is_taken"),
    [
        ({"origin": "http://testserver.local"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "https://evil.example", "sec-fetch-site": "same-site"}, False),
        ({"origin": "http://app.testserver.local", "sec-fetch-site": "same-site"}, False),
    ],
)
async def test_a_websocket_with_a_cookie_is_for_pages_of_this_origin(
    parts: Parts, world: World, sent: dict[str, str], is_taken: bool
) -> None:
    async with client_of(parts) as api:
        cookie = (await browser(api, world))["cookie"]
    headers = {"cookie": cookie, **sent}
    with TestClient(create_app(parts)) as client:
        connecting = client.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"], headers=headers)
        with nullcontext() if is_taken else pytest.raises(WebSocketDisconnect), connecting as socket:
            socket.send_json({"type": "connection_init"})
            assert socket.receive_json() == {"type": "connection_ack"}
