"""Open connections are bounded: who comes beyond that is told so, requests find room beside streams, and health always answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from hse.api.app import Parts, create_app
from hse.api.crowding import REFUSED_AT_ONCE_MAX
from tests.api.served import served
from tests.api.world import World

MAX = 12
SECONDS_MAX = 60.0
KEPT = b"GET /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n"
ME = b"GET /api/v1/me HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def port(parts: Parts, world: World) -> AsyncIterator[int]:  # noqa: ARG001 (made first)
    async with served(create_app(parts), connections_max=MAX) as port:
        yield port


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        async with asyncio.timeout(SECONDS_MAX):
            self._writer.write(request)
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            return int(head[0].split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def begin(self, request: bytes) -> int:
        """The status of an answer that does not end."""
        async with asyncio.timeout(SECONDS_MAX):
            self._writer.write(request)
            return int((await self._reader.readuntil(b"\r\n\r\n")).split()[1])

    async def hears_the_end(self) -> bool:
        """Whether it is hung up."""
        async with asyncio.timeout(SECONDS_MAX):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def callers(port: int) -> AsyncIterator["Crowd"]:
    crowd = Crowd(port)
    try:
        yield crowd
    finally:
        for caller in crowd.callers:
            caller.close()


class Crowd:
    """Connections that are opened one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.callers: list[Caller] = []

    async def come(self) -> Caller:
        self.callers.append(Caller(*await asyncio.open_connection("127.0.0.1", self._port)))
        return self.callers[-1]

    async def fill(self, count: int) -> None:
        """Let so many come, each of whom was answered and stays."""
        for _ in range(count):
            status, _, _ = await (await self.come()).ask(KEPT)
            assert status == 200


async def test_who_comes_to_a_full_house_is_refused_and_health_is_not(port: int) -> None:
    async with callers(port) as crowd:
        await crowd.fill(MAX)
        late = await crowd.come()
        assert (await late.ask(KEPT))[0] == 200, "who watches is answered"
        status, headers, body = await late.ask(ME)
        assert (status, headers["content-type"]) == (503, "application/problem+json")
        assert int(headers["retry-after"]) > 0
        assert json.loads(body)["code"] == "service.unavailable"
        assert await late.hears_the_end()
        crowd.callers[0].close()
        while (await (next_one := await crowd.come()).ask(ME))[0] == 503:
            assert await next_one.hears_the_end()
        assert (await next_one.ask(ME))[0] == 401, "there is room again"


async def test_a_refused_body_is_no_defect(port: int) -> None:
    async with callers(port) as crowd:
        await crowd.fill(MAX)
        post = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        assert (await (await crowd.come()).ask(post))[0] == 503


async def test_far_beyond_that_nobody_is_listened_to(port: int) -> None:
    async with callers(port) as crowd:
        for _ in range(MAX + REFUSED_AT_ONCE_MAX):
            await crowd.come()
        # The last of them has been taken in once it was answered.
        assert (await crowd.callers[-1].ask(KEPT))[0] == 200
        assert await (await crowd.come()).hears_the_end()


# One handler answers all of them.
@pytest.mark.parametrize(
    "path",
    ["/api/v1/live", "/api/v1/live/", "//api//v1/live", "/api/v1/%6Cive", "http://x/api/v1/live", "/api/v1/live#"],
)
async def test_streams_leave_room_for_requests(live_parts: Parts, world: World, path: str) -> None:
    head = f"GET {path}?kinds=state HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.user.token}\r\n\r\n"
    live = head.encode()
    async with (
        served(create_app(live_parts), connections_max=MAX) as port,
        callers(port) as crowd,
        AsyncExitStack() as sockets,
    ):
        for _ in range(MAX // 2 - 1):
            assert await (await crowd.come()).begin(live) == 200
        await sockets.enter_async_context(_socket(port, world))
        assert (await (await crowd.come()).ask(live))[0] == 503
        with pytest.raises(InvalidStatus) as refused:
            await sockets.enter_async_context(_socket(port, world))
        assert refused.value.response.status_code == 503
        assert (await (await crowd.come()).ask(ME))[0] == 401, "requests find room"


@asynccontextmanager
async def _socket(port: int, world: World) -> AsyncIterator[ClientConnection]:
    headers = {**world.user.headers, "Origin": f"http://127.0.0.1:{port}"}
    address, protocol = f"ws://127.0.0.1:{port}/graphql", Subprotocol("graphql-transport-ws")
    async with connect(address, subprotocols=[protocol], additional_headers=headers) as socket:
        yield socket
