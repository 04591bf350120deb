"""Try an operation as somebody, and say what he got in the words of the table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from litestar import Litestar
from litestar.testing import AsyncTestClient

from hse.adapters.limits import Limit, LocalRateLimiter, Verdict
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.entrance import PostgresEntranceWork
from hse.adapters.postgres.work import Origin, PostgresWork
from hse.api.problems import STATUS_OF_KIND
from hse.domain.errors import ErrorKind
from hse.domain.identity.principals import Principal
from tests.api.permissions.rest import Call
from tests.api.world import Person

Client = AsyncTestClient[Litestar]


class NothingIsKept(Database):
    """Does everything and keeps nothing, so that one world serves every try."""

    @asynccontextmanager
    async def work(self, principal: Principal, origin: Origin, now: datetime) -> AsyncIterator[PostgresWork]:
        async with super().work(principal, origin, now) as work:
            work.commit = work.connection.rollback  # type: ignore[method-assign]
            yield work

    @asynccontextmanager
    async def entrance(self, origin: Origin, now: datetime) -> AsyncIterator[PostgresEntranceWork]:
        async with super().entrance(origin, now) as work:
            work.commit = work.connection.rollback  # type: ignore[method-assign]
            yield work


class NeverFull(LocalRateLimiter):
    """Counts nothing: everybody is tried more often than people try."""

    async def take(self, *limits: Limit) -> tuple[Verdict, ...]:
        """Look only."""
        return await self.look(*limits)


async def rest_outcome(client: Client, operation: str, call: Call, person: Person | None) -> str:
    """What somebody gets over REST."""
    method, path = operation.split(" ", 1)
    response = await client.request(
        method,
        path.format(**call.path),
        headers=_headers(person),
        params=call.params,
        json=call.body,
        content=call.content,
    )
    if response.status_code != 200 or response.headers["content-type"] != "application/json":
        return f"{response.status_code}"
    content: Any = response.json()
    items = content if isinstance(content, list) else content.get("items")
    return "200" if items is None else f"200:{len(items)}"


async def graphql_outcome(client: Client, document: str, person: Person | None, *path: str) -> str:
    """What somebody gets at the end of a path through the answer to a GraphQL operation."""
    response = await client.post("/graphql", headers=_headers(person), json={"query": document})
    if response.status_code != 200:
        return f"{response.status_code}"
    answer = response.json()
    for error in answer.get("errors", ()):
        kind = error["extensions"]["kind"]
        return "500" if kind == "defect" else f"{STATUS_OF_KIND[ErrorKind(kind)]}"
    found = answer["data"]
    for index, name in enumerate(path):
        found = found[name]
        if index < len(path) - 1:
            items = _items(found)
            if items == []:
                return "hidden"
            found = found if items is None else items[0]
    if found is None:
        return "null"
    shown = _items(found)
    return "200" if shown is None else f"200:{len(shown)}"


def _items(found: Any) -> list[Any] | None:
    """What is in a list or a connection; None for what is neither. A total counts nothing that is not shown."""
    if isinstance(found, list):
        return found
    if not isinstance(found, dict) or "edges" not in found:
        return None
    assert found.get("totalCount", len(found["edges"])) == len(found["edges"]), found
    return [edge["node"] for edge in found["edges"]]


def _headers(person: Person | None) -> dict[str, str]:
    return {} if person is None else person.headers
