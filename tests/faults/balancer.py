"""A TCP load balancer in front of several nodes: it sends a connection to the next node that takes one. With one, a way to it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence

CHUNK_BYTES = 1 << 16


class Balancer:
    """Its listening side, and the connections that go through it."""

    def __init__(self, ports: Sequence[int], *, host: str = "127.0.0.1") -> None:
        self._ports = list(ports)
        self._host = host
        self._turns = itertools.count()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], int] = {}
        self.taken: dict[int, int] = dict.fromkeys(ports, 0)

    @property
    def port(self) -> int:
        """Where devices connect."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Balancer"]:
        """Listen on a free port while the block runs."""
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        try:
            yield self
        finally:
            self._server.close()
            self.cut_all()
            await asyncio.gather(*self._open, return_exceptions=True)

    def cut_all(self) -> None:
        """Cut every connection: the devices come again, and most of them to another node."""
        for task in self._open:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = 0
        try:
            node_reader, node_writer = await self._dial()
            directions = [
                asyncio.create_task(forward(reader, node_writer)),
                asyncio.create_task(forward(node_reader, writer)),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # First, as nothing may come of the waiting: this task may be cancelled again.
                node_writer.transport.abort()
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        turn = next(self._turns)
        for place in range(len(self._ports)):
            port = self._ports[(turn + place) % len(self._ports)]
            with contextlib.suppress(OSError):
                connection = await asyncio.open_connection("127.0.0.1", port)
                self.taken[port] += 1
                return connection
        raise ConnectionRefusedError("no node takes connections")


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until their end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
