"""The application as it is served, in the test's event loop, on a real database under the api's own login."""

from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar
from litestar.testing import AsyncTestClient

from hse.adapters.postgres.database import Database
from hse.adapters.sealing import Sealer
from hse.api.app import Parts, create_app
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.world import SECRET_KEY, TOKENS, World


@pytest.fixture
def api_database_url(postgres_server: EmbeddedPostgres, database_url: str) -> str:
    """The test's database, as the api signs in to it."""
    postgres_server.ensure_api_login()
    return postgres_server.api_url(database_url.rsplit("/", 1)[1])


@pytest.fixture
def world(database_url: str) -> World:
    """Tenants and people."""
    return World(database_url)


@pytest.fixture
def parts(api_database_url: str) -> Parts:
    """What the application is wired from; a test may replace a part."""
    return Parts(
        open_database=partial(Database, api_database_url, pool_size=5), sealer=Sealer(SECRET_KEY), tokens=TOKENS
    )


@pytest_asyncio.fixture
async def api(parts: Parts, world: World) -> AsyncIterator[AsyncTestClient[Litestar]]:  # noqa: ARG001 (made first)
    """A client of the application. The world is there before its first request."""
    async with AsyncTestClient(create_app(parts), raise_server_exceptions=False) as client:
        yield client


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The problem that a response must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, object] = response.json()
    assert problem["code"] == code, problem
    return problem
