"""People who ask `hse api`: a site with somebody who may read it, and requests over connections that are kept open.

A request is written as bytes beforehand, and its answer is read and not decoded: what is measured is the api and not its caller.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg

from benches.fleet import ORGANIZATION
from benches.report import check
from benches.stack import Stack
from hse.adapters.tokens import AccessTokens

# No limit on requests: what is measured is the request, not the limit.
UNLIMITED = {"HSE_RATE_LIMIT_ADDRESS_PER_MINUTE": "100000000", "HSE_RATE_LIMIT_USER_PER_MINUTE": "100000000"}
TIMEZONE = "America/Santiago"
LENGTH = re.compile(rb"^content-length: (\d+)\r$", re.IGNORECASE | re.MULTILINE)

Milliseconds = list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody with a session."""

    port: int
    user_id: UUID
    session_id: UUID
    tokens: AccessTokens

    def get(self, path: str) -> bytes:
        """A GET as it is sent."""
        return self._request("GET", path, b"")

    def post(self, path: str, body: object) -> bytes:
        """A POST of JSON as it is sent."""
        return self._request("POST", path, json.dumps(body).encode())

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        token = self.tokens.issue(self.user_id, self.session_id, datetime.now(UTC))
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Authorization: Bearer {token}"]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """One connection to the api: one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 22))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        check(length is not None, f"an answer without a length: {head.decode()}")
        body = await self._reader.readexactly(int(length.group(1)) if length else 0)
        return int(head[9:12]), body

    async def timed(self, request: bytes) -> float:
        """How many milliseconds the answer takes; it must be a good one."""
        start = time.perf_counter()
        status, body = await self.ask(request)
        taken = (time.perf_counter() - start) * 1e3
        check(status in (200, 202), f"{status}: {body[:500].decode()}")
        return taken

    def close(self) -> None:
        """Close it."""
        self._writer.close()


async def timed(port: int, requests: Sequence[bytes], *, clients: int) -> Milliseconds:
    """How long each request takes when so many ask at once, each again as soon as it is answered (a closed loop)."""
    waiting = iter(requests)
    found: Milliseconds = []

    async def ask(connection: Connection) -> None:
        for request in waiting:
            found.append(await connection.timed(request))

    connections = [await Connection.open(port) for _ in range(clients)]
    try:
        await asyncio.gather(*(ask(one) for one in connections))
    finally:
        for one in connections:
            one.close()
    return found


def quantiles(name: str, milliseconds: Iterable[float]) -> dict[str, float]:
    """The median and the 99th percentile, under the names that a round has them by."""
    ordered = sorted(milliseconds)
    check(bool(ordered), f"nothing was measured of {name}")
    return {
        f"{name}_p50": ordered[len(ordered) // 2],
        f"{name}_p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    }


def add_callers(stack: Stack, count: int) -> list[Caller]:
    """Put the devices of the benches onto one site, and make administrators of it, each with a session."""
    tokens = AccessTokens((stack.data_dir / "secrets" / "key").read_text(encoding="ascii").strip())
    with stack.connect() as connection:
        connection.execute(
            "insert into establishments (organization_id, name, timezone)"
            " select id, 'Site', %s from organizations where name = %s and not exists (select from establishments)",
            [TIMEZONE, ORGANIZATION],
        )
        connection.execute("update devices set establishment_id = (select id from establishments limit 1)")
        found = [_administrator(connection, number) for number in range(count)]
    return [
        Caller(port=stack.ports["api"], user_id=user_id, session_id=session_id, tokens=tokens)
        for user_id, session_id in found
    ]


def _administrator(connection: psycopg.Connection[tuple[object, ...]], number: int) -> tuple[UUID, UUID]:
    session_id = uuid4()
    row = connection.execute(
        "insert into users (email, first_name, last_name, role_id, organization_id, has_all_establishments)"
        " select %s, 'Ana', 'Soto', r.id, o.id, true from roles r, organizations o"
        " where r.name = 'admin' and r.type = 'system' and o.name = %s returning id",
        [f"chief{number}@example.com", ORGANIZATION],
    ).fetchone()
    check(row is not None, "the administrator was not made")
    user_id = UUID(str(row[0])) if row else uuid4()
    connection.execute(
        "insert into sessions (id, user_id, expires_at) values (%s, %s, now() + interval '1 day')",
        [session_id, user_id],
    )
    return user_id, session_id
