"""The application on a port of this machine, served as `hse api` serves it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from litestar import Litestar

from hse.api.bounds import BoundedHttpProtocol
from hse.embedded.ports import free_ports
from hse.settings import Settings
from hse.wiring.api import server_options


@asynccontextmanager
async def served(
    app: Litestar, *, protocol: type[BoundedHttpProtocol] | None = None, connections_max: int = 10_000
) -> AsyncIterator[int]:
    """Serve it; the port."""
    (port,) = free_ports(1)
    settings = Settings(bind_host="127.0.0.1", api_port=port, api_connections_max=connections_max)
    options = server_options(settings) | ({"http": protocol} if protocol else {})
    server = uvicorn.Server(uvicorn.Config(app, **options))
    serving = asyncio.create_task(server._serve())
    try:
        while not server.started:
            assert not serving.done(), serving
            await asyncio.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        await serving
