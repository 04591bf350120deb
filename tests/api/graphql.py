"""Ask GraphQL and look at what it answers."""

import asyncio
import json
from typing import Any

from litestar import Litestar

from tests.api.conftest import Client
from tests.api.world import Person


async def ask(api: Client, person: Person, query: str, **variables: Any) -> dict[str, Any]:
    """The whole answer, errors included."""
    body = {"query": query, "variables": variables}
    response = await api.post("/graphql", headers=person.headers, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def data(api: Client, person: Person, query: str, **variables: Any) -> Any:
    """The data of an answer without errors."""
    answer = await ask(api, person, query, **variables)
    assert "errors" not in answer, answer
    return answer["data"]


async def refusal(api: Client, person: Person, query: str, code: str, **variables: Any) -> dict[str, Any]:
    """The extensions of the first error, which must have this code."""
    answer = await ask(api, person, query, **variables)
    assert answer.get("errors"), answer
    error: dict[str, Any] = answer["errors"][0]
    assert error["extensions"]["code"] == code, error
    assert error["extensions"]["correlationId"]
    extensions: dict[str, Any] = error["extensions"]
    return extensions


def nodes(connection: dict[str, Any]) -> list[dict[str, Any]]:
    """The things in a connection."""
    return [edge["node"] for edge in connection["edges"]]


def names(connection: dict[str, Any]) -> list[str]:
    """The names in a connection."""
    return [node["name"] for node in nodes(connection)]


# How long a message may take on a machine that has much to do.
SECONDS = 30.0


class Socket:
    """A WebSocket to /graphql, as a server would hold it, that speaks graphql-transport-ws."""

    def __init__(self, app: Litestar, headers: dict[str, str]) -> None:
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/graphql",
            "raw_path": b"/graphql",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "subprotocols": ["graphql-transport-ws"],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
            "scheme": "ws",
            "root_path": "",
            "state": {},
        }
        self._task = asyncio.ensure_future(app(scope, self._to_app.get, self._from_app.put))  # type: ignore[arg-type]

    async def open(self) -> dict[str, Any]:
        """Knock; what the application answers."""
        await self._to_app.put({"type": "websocket.connect"})
        return await self._from_app.get()

    async def say(self, **message: Any) -> dict[str, Any]:
        """Send a message, and return the next one that comes."""
        await self.send(**message)
        return await self.hear()

    async def send(self, **message: Any) -> None:
        """Send a message."""
        await self._to_app.put({"type": "websocket.receive", "text": json.dumps(message)})

    async def hear(self) -> dict[str, Any]:
        """The next message that comes."""
        async with asyncio.timeout(SECONDS):
            answer = await self._from_app.get()
        told: dict[str, Any] = json.loads(answer["text"]) if answer["type"] == "websocket.send" else answer
        return told

    async def ask(self, query: str) -> dict[str, Any]:
        """Run an operation to its end; its answer."""
        answer = await self.say(id="1", type="subscribe", payload={"query": query})
        if answer["type"] == "next":
            assert json.loads((await self._from_app.get())["text"])["type"] == "complete"
        return answer

    async def close(self) -> None:
        """Leave."""
        await self._to_app.put({"type": "websocket.disconnect", "code": 1000})
        await self._task
