"""The application on a port of this machine, served as `hse api` serves it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from litestar import Litestar

from hse.api.bounds import BoundedHttpProtocol
from hse.embedded.ports import free_ports


@asynccontextmanager
async def served(app: Litestar, *, protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol) -> AsyncIterator[int]:
    """Serve it; the port."""
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=protocol, log_config=None, lifespan="on"))
    serving = asyncio.create_task(server._serve())
    try:
        while not server.started:
            assert not serving.done(), serving
            await asyncio.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        await serving
