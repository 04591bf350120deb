"""An application that does everything and keeps nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest_asyncio
from litestar import Litestar
from litestar.testing import AsyncTestClient

from hse.api.app import Parts, create_app
from tests.api.conftest import OUTBOX
from tests.api.permissions.trying import NeverFull, NothingIsKept
from tests.api.world import World


@pytest_asyncio.fixture
async def client(parts: Parts, world: World, api_database_url: str) -> AsyncIterator[AsyncTestClient[Litestar]]:  # noqa: ARG001
    """A client of it."""

    def open_database() -> NothingIsKept:
        return NothingIsKept(api_database_url, pool_size=5, outbox=OUTBOX)

    async with AsyncTestClient(create_app(replace(parts, open_database=open_database, limiter=NeverFull()))) as client:
        # Live streams end as soon as they are open.
        client.app.state.live.end_all()
        yield client
