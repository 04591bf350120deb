"""Read a live stream as a browser does, through the application itself."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import psycopg
from litestar import Litestar

from hse.adapters.ingest import IngestNodes, NodeCredentials
from hse.adapters.link import NodeLink
from hse.adapters.nodes import NodeDirectory
from hse.api.live import LiveStreams
from tests.api.live_node import TOKEN
from tests.api.world import Person, World

SECONDS = 30.0


class Screen:
    """A reader of `GET /api/v1/live`. While `is_reading` is false the connection takes nothing more, as when a network is slow."""

    def __init__(
        self, app: Litestar, person: Person | None, *, last_event_id: str | None = None, **params: Any
    ) -> None:
        headers = {} if person is None else dict(person.headers)
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        self.status = 0
        self.last_id: str | None = None
        self.told: list[tuple[str, Any]] = []
        self._reading = asyncio.Event()
        self._reading.set()
        self._left = asyncio.Event()
        self._changed = asyncio.Condition()
        self._text = ""
        self._body = b""
        self._is_over = False
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": "/api/v1/live",
            "raw_path": b"/api/v1/live",
            "query_string": urlencode(params, doseq=True).encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("testserver", 80),
            "scheme": "http",
            "root_path": "",
            "state": {},
        }
        self._task = asyncio.ensure_future(app(scope, self._receive, self._send))  # type: ignore[arg-type]
        self._num_received = 0

    @property
    def problem(self) -> Any:
        """What was answered instead of a stream."""
        return json.loads(self._body)

    @property
    def is_over(self) -> bool:
        """Whether the application has ended the stream."""
        return self._is_over

    def stop_reading(self) -> None:
        """Take nothing more."""
        self._reading.clear()

    def go_on_reading(self) -> None:
        """Take what comes again."""
        self._reading.set()

    async def opened(self) -> "Screen":
        """Wait until it is answered with a stream, and the nodes that are there are heard."""
        await self._until(lambda: self.status != 0)
        assert self.status == 200, self._body
        await self._until(lambda: ("sources", 0) in [(name, one.get("num_away")) for name, one in self.told])
        self.told = [one for one in self.told if one[0] != "sources"]
        return self

    async def refused(self) -> int:
        """Wait until it is answered with something else; the status."""
        await self._until(lambda: self._is_over)
        return self.status

    async def next(self, name: str, fits: Any = lambda _: True) -> Any:
        """The next message of this name that fits, wherever it stands among others; those before it are passed over."""

        def find() -> int | None:
            for place, (known, data) in enumerate(self.told):
                if known == name and fits(data):
                    return place
            return None

        await self._until(lambda: find() is not None)
        place = find()
        assert place is not None
        data = self.told[place][1]
        del self.told[: place + 1]
        return data

    async def value(self, value: float, name: str = "event") -> list[tuple[str, Any]]:
        """Wait for the event with this value; everything that was told before it, and it."""

        def is_it(one: tuple[str, Any]) -> bool:
            return one[0] == name and one[1]["value"] == value

        await self._until(lambda: any(is_it(one) for one in self.told))
        place = next(place for place, one in enumerate(self.told) if is_it(one))
        found = self.told[: place + 1]
        del self.told[: place + 1]
        return found

    async def position(self) -> str:
        """Wait until it is told where it stands, now that nothing is left to be read."""
        await self._until(lambda: self.last_id is not None)
        assert self.last_id is not None
        return self.last_id

    async def close(self) -> None:
        """Leave."""
        self._left.set()
        self._reading.set()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(self._task, SECONDS)

    async def _receive(self) -> dict[str, Any]:
        self._num_received += 1
        if self._num_received == 1:
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self._reading.wait()
        async with self._changed:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            else:
                self._body += message.get("body", b"") if self.status != 200 else b""
                self._read(message.get("body", b"").decode())
                if not message.get("more_body"):
                    self._is_over = True
                    self._left.set()
            self._changed.notify_all()

    def _read(self, text: str) -> None:
        self._text += text
        while "\r\n\r\n" in self._text:
            block, self._text = self._text.split("\r\n\r\n", 1)
            fields = dict(line.split(": ", 1) for line in block.split("\r\n") if line and not line.startswith(":"))
            if "id" in fields:
                self.last_id = fields["id"]
            if "data" in fields:
                self.told.append((fields["event"], json.loads(fields["data"])))

    async def _until(self, holds: Any) -> None:
        async with asyncio.timeout(SECONDS), self._changed:
            await self._changed.wait_for(holds)


Open = Callable[..., Screen]


def link_to(valkey_url: str) -> NodeLink:
    return NodeLink(directory=NodeDirectory(valkey_url), ingest=IngestNodes(NodeCredentials(token=TOKEN)))


def streams_of(app: Litestar) -> LiveStreams:
    streams: LiveStreams = app.state.live
    return streams


def execute(world: World, statement: str, *values: object) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(statement.encode(), values)


def devices_of(told: list[tuple[str, dict[str, object]]], name: str = "event") -> set[str]:
    return {str(one["device_id"]) for known, one in told if known == name}


def device(world: World, site: int = 0) -> UUID:
    return world.tenant.sites[site].device_id


def add_watcher(world: World) -> tuple[Person, UUID]:
    """Somebody who sees what the devices of the first site report and not their alarms, and his role."""
    actions = ["read_establishment", "read_device", "read_telemetry"]
    role = world.add_role_now("watcher", actions, organization_id=world.tenant.id)
    person = world.add_person_now(
        "watcher@example.com", role, organization_id=world.tenant.id, sites=[world.tenant.sites[0]]
    )
    return person, role
