"""The application as it is served, in the test's event loop, on a real database under the api's own login."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import httpx
import pytest
import pytest_asyncio
import structlog
from litestar import Litestar

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.listening import Listener
from hse.adapters.postgres.mail import Outbox
from hse.adapters.sealing import Sealer
from hse.api.app import Parts, build, create_app, furnish
from hse.api.logs import configure_logs
from hse.embedded.postgres import EmbeddedPostgres
from hse.wiring.api import compose_doorkeeping
from tests.api.live import Open, Screen, link_to, streams_of
from tests.api.live_node import LiveNode, a_node
from tests.api.world import SECRET_KEY, TOKENS, Person, World
from tests.faults.conditions import until

Client = httpx.AsyncClient
OUTBOX = Outbox(sealer=Sealer(SECRET_KEY), public_url="https://hse.example.com")


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
        open_database=partial(Database, api_database_url, pool_size=5, outbox=OUTBOX),
        open_listener=partial(Listener, api_database_url),
        sealer=OUTBOX.sealer,
        tokens=TOKENS,
        doorkeeping=compose_doorkeeping(SECRET_KEY),
    )


@asynccontextmanager
async def living(app: Litestar) -> AsyncIterator[None]:
    """Start the application, and end it. In a task of its own: a fixture's end may run in another task than its beginning."""
    is_ready, is_over = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            is_ready.set()
            await is_over.wait()

    task = asyncio.create_task(live())
    ready = asyncio.create_task(is_ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        is_over.set()
        ready.cancel()
        await task


@asynccontextmanager
async def serving(parts: Parts) -> AsyncIterator[Client]:
    """A client of an application of these parts, from its start to its end."""
    app = create_app(parts)
    async with living(app), client_of(app) as client:
        yield client


@asynccontextmanager
async def client_of(app: Litestar) -> AsyncIterator[Client]:
    """A client of the application; requests that are made at once are served at once."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@pytest.fixture(scope="session")
def built() -> Litestar:
    """The application without its parts: to build it takes longer than most tests."""
    return build()


@pytest_asyncio.fixture
async def app(built: Litestar, parts: Parts, world: World) -> AsyncIterator[Litestar]:  # noqa: ARG001 (the world is there before its first request)
    """The application between its start and its end."""
    made = furnish(built, parts)
    async with living(made):
        yield made


@pytest_asyncio.fixture
async def api(app: Litestar) -> AsyncIterator[Client]:
    """A client of the application."""
    async with client_of(app) as client:
        yield client


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the application writes to its log, at the most talkative level."""
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    structlog.reset_defaults()
    configure_logs("debug", stream)
    # Else the first test's stream would be kept by every module that has logged once.
    structlog.configure(cache_logger_on_first_use=False)
    # The test's own client is not the application.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)
    logging.getLogger("hse").setLevel(logging.NOTSET)


@pytest.fixture
def live_parts(parts: Parts, valkey_url: str) -> Parts:
    """The application with a way to the nodes."""
    return replace(parts, open_link=partial(link_to, valkey_url))


@pytest_asyncio.fixture(loop_scope="session")
async def node(valkey_url: str) -> AsyncIterator[LiveNode]:
    """One ingest node."""
    async with a_node(valkey_url) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def live_app(live_parts: Parts, world: World, node: LiveNode) -> AsyncIterator[Litestar]:  # noqa: ARG001
    """The application, when it hears what the database notifies."""
    app = create_app(live_parts)
    async with living(app):
        await until(lambda: streams_of(app)._is_told(), "notifications are heard")
        yield app


@pytest_asyncio.fixture(loop_scope="session")
async def screens(live_app: Litestar) -> AsyncIterator[Open]:
    """Opens streams, none of which outlives the test."""
    opened: list[Screen] = []

    def make(person: Person | None, *, app: Litestar = live_app, **more: object) -> Screen:
        screen = Screen(app, person, **more)  # type: ignore[arg-type]
        opened.append(screen)
        return screen

    yield make
    for screen in opened:
        await screen.close()


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The problem that a response must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, object] = response.json()
    assert problem["code"] == code, problem
    return problem
