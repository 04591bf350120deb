"""What a stranger can send is bounded: each size has an answer that says so, and a server that keeps no more than that."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from litestar import Litestar
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from hse.api.app import Parts, create_app
from hse.api.bounds import (
    ADDRESS_BYTES_MAX,
    HEAD_BYTES_MAX,
    JSON_DEPTH_MAX,
    QUERY_PARAMETERS_MAX,
    REQUEST_BYTES_MAX,
    BoundedHttpProtocol,
)
from hse.domain.metadata import METADATA_BYTES_MAX, METADATA_DEPTH_MAX, is_deeper_than
from tests.api.conftest import Client, problem_of
from tests.api.served import served
from tests.api.world import World

SECONDS_MAX = 60.0
BYTES_SENT_MAX = 64 << 20
DEPTHS = [JSON_DEPTH_MAX + 1, 500, 900, 990, 1000, 5_000, 200_000]


def nested(depth: int) -> str:
    """JSON that nests so deep."""
    return "[" * depth + "]" * depth


# --- judged by the application ---


async def test_an_address_has_its_length(api: Client, world: World) -> None:
    path = "/api/v1/areas?q="
    fits = path + "x" * (ADDRESS_BYTES_MAX - len(path))
    problem_of(await api.get(fits, headers=world.chief.headers), 422, "request.invalid")
    problem_of(await api.get(fits + "x", headers=world.chief.headers), 414, "request.address-too-long")
    problem_of(await api.get("/api/v1/areas/" + "x" * ADDRESS_BYTES_MAX), 404, "resource.not-found")


async def test_an_address_has_so_many_parameters(api: Client, world: World) -> None:
    many = ["limit=1", *(f"p{number}=" for number in range(QUERY_PARAMETERS_MAX - 1))]
    assert (await api.get(f"/api/v1/areas?{'&'.join(many)}", headers=world.chief.headers)).status_code == 200
    more = await api.get(f"/api/v1/areas?{'&'.join([*many, 'x'])}", headers=world.chief.headers)
    assert str(QUERY_PARAMETERS_MAX) in str(problem_of(more, 400, "request.malformed")["detail"])


@pytest.mark.parametrize("num_headers", [1, 200])
async def test_headers_have_their_size_together(api: Client, world: World, num_headers: int) -> None:
    async def ask(num_bytes: int) -> Any:
        large = {f"x-{number}": "x" * (num_bytes // num_headers) for number in range(num_headers)}
        return await api.get("/api/v1/areas", headers={**world.chief.headers, **large})

    assert (await ask(HEAD_BYTES_MAX // 2)).status_code == 200
    problem_of(await ask(HEAD_BYTES_MAX), 431, "request.headers-too-large")


@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_body_nests_so_deep_and_no_deeper(api: Client, world: World, depth: int) -> None:
    body = f'{{"establishment_id": "{world.tenant.sites[0].id}", "name": "x", "type": "office", "metadata": {nested(depth)}}}'
    headers = {**world.chief.headers, "Content-Type": "application/json"}
    problem_of(await api.post("/api/v1/areas", headers=headers, content=body), 400, "request.malformed")
    refused = await api.post("/api/v1/auth/login", content=body, headers={"Content-Type": "application/json"})
    problem_of(refused, 400, "request.malformed")


@pytest.mark.parametrize("depth", DEPTHS)
async def test_variables_of_graphql_nest_no_deeper(api: Client, world: World, depth: int) -> None:
    query = "mutation($input: NewArea!) { createArea(input: $input) { id } }"
    body = f'{{"query": "{query}", "variables": {{"input": {nested(depth)}}}}}'
    headers = {**world.chief.headers, "Content-Type": "application/json"}
    problem_of(await api.post("/graphql", headers=headers, content=body), 400, "request.malformed")


@pytest.mark.parametrize("way", ["rest", "graphql"])
async def test_metadata_nests_so_deep(api: Client, world: World, way: str) -> None:
    async def create(depth: int) -> Any:
        metadata = {"tree": json.loads(nested(depth - 1))}
        site = str(world.tenant.sites[0].id)
        if way == "rest":
            body = {"establishment_id": site, "name": f"Room {depth}", "type": "office", "metadata": metadata}
            answer = await api.post("/api/v1/areas", headers=world.chief.headers, json=body)
            return answer.status_code, answer.json().get("code")
        wanted = {"establishmentId": site, "name": f"Room {depth}", "type": "office", "metadata": metadata}
        query = "mutation($input: NewArea!) { createArea(input: $input) { id } }"
        content = {"query": query, "variables": {"input": wanted}}
        answer = await api.post("/graphql", headers=world.chief.headers, json=content)
        errors = answer.json().get("errors")
        return (201, None) if errors is None else (422, errors[0]["extensions"]["code"])

    assert await create(METADATA_DEPTH_MAX) == (201, None)
    assert await create(METADATA_DEPTH_MAX + 1) == (422, "request.invalid")


async def test_metadata_has_its_size(api: Client, world: World) -> None:
    path = f"/api/v1/areas/{world.tenant.sites[0].area_id}"
    for size, status in ((METADATA_BYTES_MAX - 100, 200), (METADATA_BYTES_MAX, 422)):
        body = {"metadata": {"text": "x" * size}}
        assert (await api.patch(path, headers=world.chief.headers, json=body)).status_code == status


@pytest.mark.parametrize(
    ("depth", "value"),
    [(0, 1), (0, "[[["), (1, []), (1, {"a": 1}), (2, [[]]), (2, [1, {"a": None}]), (3, {"a": [[1]]})],
)
def test_how_deep_json_nests(depth: int, value: object) -> None:
    assert not is_deeper_than(depth, value)
    assert depth == 0 or is_deeper_than(depth - 1, value)


# --- judged by the server ---


class Impatient(BoundedHttpProtocol):
    """Waits no time for a head."""

    head_seconds_max = 0.2


class ImpatientForBodies(BoundedHttpProtocol):
    """Waits no time for a body."""

    body_seconds_max = 0.2


@pytest.fixture
async def port(parts: Parts, world: World) -> AsyncIterator[int]:  # noqa: ARG001 (made first)
    async with served(create_app(parts)) as port:
        yield port


@pytest.fixture
def app_of(parts: Parts) -> Litestar:
    return create_app(parts)


async def exchange(port: int, *pieces: bytes, is_endless: bool = False) -> tuple[bytes, int]:
    """Send the pieces, with `is_endless` the last one again and again; what is answered, and how many bytes were sent."""
    async with asyncio.timeout(SECONDS_MAX):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answered = asyncio.create_task(reader.read())
        num_sent = 0
        try:
            for piece in pieces:
                writer.write(piece)
                num_sent += len(piece)
            while is_endless and num_sent < BYTES_SENT_MAX and not answered.done():
                writer.write(pieces[-1])
                await writer.drain()
                num_sent += len(pieces[-1])
        except ConnectionError:
            pass
        try:
            return await answered, num_sent
        except ConnectionError:
            # It hung up on us while we talked, and the answer was lost with it.
            return b"", num_sent
        finally:
            writer.close()


def problem_in(answer: bytes) -> tuple[int, str]:
    """Status and code of a raw answer that is a problem."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == int(head.split(b" ")[1])
    return problem["status"], problem["code"]


START = b"GET /health/liveness HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (START, b"X-Endless: ", b"x" * 65_536),
        (START, b"x" * 65_536),
        (START, b"X-A: 1\r\n" * 8_000),
        (b"GET /", b"x" * 65_536),
        (b"x" * 65_536,),
    ],
    ids=["a value", "a name", "many headers", "an address", "no http"],
)
async def test_a_head_that_never_ends_is_cut_off(port: int, pieces: tuple[bytes, ...]) -> None:
    answer, num_sent = await exchange(port, *pieces, is_endless=True)
    assert num_sent < BYTES_SENT_MAX
    if answer:
        assert problem_in(answer)[0] in (400, 431)
    assert (await exchange(port, START + b"Connection: close\r\n\r\n"))[0].startswith(b"HTTP/1.1 200")


async def test_a_head_that_is_too_large_is_answered_so(port: int) -> None:
    large = b"X-Large: " + b"x" * (HEAD_BYTES_MAX + 1)
    assert problem_in((await exchange(port, START + large))[0]) == (431, "request.headers-too-large")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n"])
async def test_what_is_no_http_is_answered_with_a_problem(port: int, garbage: bytes) -> None:
    assert problem_in((await exchange(port, garbage))[0]) == (400, "request.malformed")


async def test_requests_one_after_the_other_each_have_their_own_head(port: int) -> None:
    body = b"x" * (HEAD_BYTES_MAX * 2)
    post = b"POST /api/v1/auth/logout HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    head = START + b"X-Large: " + b"x" * (HEAD_BYTES_MAX // 2) + b"\r\n"
    last = START + b"Connection: close\r\n\r\n"
    answer, _ = await exchange(port, post + body, head + b"\r\n", head + b"\r\n", last)
    assert re.findall(rb"HTTP/1\.1 ([0-9]{3})", answer)[1:] == [b"200"] * 3


@pytest.mark.parametrize("beginning", [b"", b"GET / HT", START])
async def test_a_head_that_does_not_come_is_not_waited_for(app_of: Litestar, world: World, beginning: bytes) -> None:  # noqa: ARG001
    async with served(app_of, protocol=Impatient) as port:
        assert problem_in((await exchange(port, beginning))[0]) == (408, "request.timed-out")


async def test_a_body_may_take_longer_than_a_head(app_of: Litestar, world: World) -> None:  # noqa: ARG001
    async with served(app_of, protocol=Impatient) as port:
        head = b"POST /api/v1/auth/logout HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        # A second connection's patience ends after this one's would have ended.
        await exchange(port, b"")
        writer.write(b"{}")
        answer = await asyncio.wait_for(reader.read(), SECONDS_MAX)
        writer.close()
        assert b" 408 " not in answer.split(b"\r\n")[0]


BEGUN = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"


async def test_a_body_that_does_not_come_is_not_waited_for(app_of: Litestar, world: World) -> None:  # noqa: ARG001
    async with served(app_of, protocol=ImpatientForBodies) as port:
        assert problem_in((await exchange(port, BEGUN))[0]) == (408, "request.timed-out")
        # Nor is it long after the one before that the next request may come.
        assert (await exchange(port, START + b"Connection: close\r\n\r\n"))[0].startswith(b"HTTP/1.1 200")


async def test_a_body_that_breaks_off_is_no_defect(logged: io.StringIO, port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(BEGUN)
    await writer.drain()
    writer.close()
    async with asyncio.timeout(SECONDS_MAX):
        while '"route": "/api/v1/auth/login"' not in logged.getvalue():  # noqa: ASYNC110 (a log tells of no event)
            await asyncio.sleep(0.02)
    assert '"level": "error"' not in logged.getvalue()
    assert '"status": 400' in logged.getvalue()


async def test_a_message_of_a_websocket_has_the_size_of_a_body(port: int, world: World) -> None:
    headers = {**world.chief.headers, "Origin": f"http://127.0.0.1:{port}"}
    address = f"ws://127.0.0.1:{port}/graphql"
    protocol = Subprotocol("graphql-transport-ws")
    async with connect(address, subprotocols=[protocol], additional_headers=headers) as socket:
        await socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        await socket.send("x" * (REQUEST_BYTES_MAX + 1))
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == CloseCode.MESSAGE_TOO_BIG


async def test_a_body_that_is_too_large_is_cut_off_on_the_wire(port: int) -> None:
    head = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    assert len(chunk) * 8 < REQUEST_BYTES_MAX
    answer, num_sent = await exchange(port, head, chunk, is_endless=True)
    assert num_sent < BYTES_SENT_MAX
    assert not answer or problem_in(answer)[0] == 413
