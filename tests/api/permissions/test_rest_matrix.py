"""Every REST operation, tried by everybody on things that are his and that are not, against the reviewed table."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from litestar import Litestar
from litestar.testing import AsyncTestClient

from hse.adapters.limits import Limit, LocalRateLimiter, Verdict
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.entrance import PostgresEntranceWork
from hse.adapters.postgres.work import Origin, PostgresWork
from hse.api.app import Parts, create_app
from hse.domain.identity.principals import Principal
from tests.api.conftest import OUTBOX
from tests.api.permissions import matrix
from tests.api.permissions.actors import ACTORS, PLACES, Place, place
from tests.api.permissions.rest import RECIPES
from tests.api.world import Person, World

METHODS = ("get", "post", "put", "patch", "delete")


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


@pytest_asyncio.fixture
async def client(parts: Parts, world: World, api_database_url: str) -> AsyncIterator[AsyncTestClient[Litestar]]:  # noqa: ARG001
    def open_database() -> Database:
        return NothingIsKept(api_database_url, pool_size=5, outbox=OUTBOX)

    async with AsyncTestClient(create_app(replace(parts, open_database=open_database, limiter=NeverFull()))) as client:
        yield client


def operations(app: Litestar) -> Iterator[str]:
    """Every operation below /api/v1 that the OpenAPI document shows."""
    for path, item in app.openapi_schema.to_schema()["paths"].items():
        if path.startswith("/api/v1"):
            yield from (f"{method.upper()} {path}" for method in METHODS if method in item)


async def outcome(client: AsyncTestClient[Litestar], operation: str, person: Person | None, where: Place) -> str:
    """What somebody gets."""
    method, path = operation.split(" ", 1)
    call = RECIPES[operation](where)
    response = await client.request(
        method,
        path.format(**call.path),
        headers={} if person is None else person.headers,
        params=call.params,
        json=call.body,
        content=call.content,
    )
    items: Any = response.json().get("items") if response.status_code == 200 else None
    return f"{response.status_code}" if items is None else f"{response.status_code}:{len(items)}"


def test_every_operation_has_a_recipe(parts: Parts) -> None:
    assert sorted(operations(create_app(parts))) == sorted(RECIPES)


@pytest.mark.timeout(300)
async def test_everybody_may_do_what_the_table_says_and_nothing_else(
    client: AsyncTestClient[Litestar], world: World
) -> None:
    found: matrix.Table = {}
    for operation in RECIPES:
        for name in PLACES:
            where = place(world, name)
            found[operation, name] = [await outcome(client, operation, of(world), where) for of in ACTORS.values()]
    if os.environ.get("HSE_WRITE_MATRIX"):
        matrix.write("rest.csv", found)
    assert list(matrix.differences(found, matrix.read("rest.csv"))) == []
