"""A wire between the core and PostgreSQL that can be cut: at COMMIT, before or after the server hears of it, or altogether."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from enum import Enum
from urllib.parse import urlsplit, urlunsplit

from tests.faults.conditions import until

CHUNK_BYTES = 1 << 16
NEGOTIATION_CODES = {
    80877103,
    80877104,
}  # SSLRequest, GSSENCRequest: answered with one byte, and a start-up message follows
LENGTH = struct.Struct(">I")


class Wire(Enum):
    """What the wire does."""

    WHOLE = "forward everything"
    CUT_BEFORE_COMMIT = "cut when a COMMIT comes, without forwarding it"
    CUT_AFTER_COMMIT = "forward the COMMIT, let it be carried out, and cut before its answer"
    REFUSED = "close every connection"
    BLACKHOLE = "accept, and forward nothing"


class CommitWatch:
    """Reads the client's stream message by message and says where a COMMIT is.

    A COMMIT is a simple Query, or an Execute of a portal whose statement was parsed from COMMIT.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_started = False
        self._statements: set[bytes] = set()
        self._portals: set[bytes] = set()

    def feed(self, data: bytes) -> list[tuple[bytes, bool]]:
        """Return the whole messages that `data` completes, each with whether it makes a COMMIT happen."""
        self._buffer += data
        messages = []
        while (message := self._take()) is not None:
            messages.append((message, self._is_started and self._is_commit(message)))
            if not self._is_started and LENGTH.unpack_from(message, 4)[0] not in NEGOTIATION_CODES:
                self._is_started = True
        return messages

    def _take(self) -> bytes | None:
        type_bytes = 1 if self._is_started else 0
        if len(self._buffer) < type_bytes + 4:
            return None
        size = type_bytes + LENGTH.unpack_from(self._buffer, type_bytes)[0]
        if len(self._buffer) < size:
            return None
        message = bytes(self._buffer[:size])
        del self._buffer[:size]
        return message

    def _is_commit(self, message: bytes) -> bool:
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            return is_commit_text(body.split(b"\0")[0])
        if kind == b"P":
            name, text = body.split(b"\0")[:2]
            (self._statements.add if is_commit_text(text) else self._statements.discard)(name)
        elif kind == b"B":
            portal, statement = body.split(b"\0")[:2]
            (self._portals.add if statement in self._statements else self._portals.discard)(portal)
        elif kind == b"E":
            return body.split(b"\0")[0] in self._portals
        return False


def is_commit_text(text: bytes) -> bool:
    """Say whether a statement is COMMIT, however it is spelled."""
    return text.strip().rstrip(b";").upper() in {b"COMMIT", b"END", b"COMMIT TRANSACTION", b"COMMIT WORK"}


class DatabaseProxy:
    """The proxy's listening side, its connections, and what it does at the moment."""

    def __init__(self, database_url: str) -> None:
        self._target = urlsplit(database_url)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.wire = Wire.WHOLE
        self.cuts_left: int | None = None  # None: cut at every COMMIT while told to cut
        self.cuts = 0

    @property
    def url(self) -> str:
        """The URL that leads through the proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        login = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{login}@127.0.0.1:{port}"))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["DatabaseProxy"]:
        """Listen on a free port while the block runs."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            self.cut_all()
            await asyncio.gather(*self._open, return_exceptions=True)

    def cut(self, wire: Wire, times: int | None = None) -> None:
        """From now on cut at COMMIT, so many times."""
        self.wire, self.cuts_left = wire, times

    def cut_all(self) -> None:
        """Cut every open connection now."""
        for task in self._open:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if self.wire is not Wire.REFUSED:
                await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._target.port is not None
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        relay = Relay(self, server_reader, server_writer)
        directions = [asyncio.create_task(relay.forward(reader)), asyncio.create_task(relay.back(writer))]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First, as nothing may come of the waiting: this task may be cancelled again.
            server_writer.transport.abort()
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def passes(self) -> None:
        """Hold whoever asks while the wire is a black hole."""
        await until(lambda: self.wire is not Wire.BLACKHOLE, "the black hole lets go", seconds=600)

    def takes_a_cut(self) -> bool:
        """Say whether the COMMIT that came is to be cut, and count it."""
        if self.wire not in {Wire.CUT_BEFORE_COMMIT, Wire.CUT_AFTER_COMMIT} or self.cuts_left == 0:
            return False
        self.cuts += 1
        if self.cuts_left is not None:
            self.cuts_left -= 1
        return True


class Relay:
    """The two directions of one connection; when one ends, the connection is cut."""

    def __init__(
        self, proxy: DatabaseProxy, server_reader: asyncio.StreamReader, server_writer: asyncio.StreamWriter
    ) -> None:
        self.proxy = proxy
        self.server_reader = server_reader
        self.server_writer = server_writer
        self.is_deaf = False  # the client hears nothing any more

    async def forward(self, reader: asyncio.StreamReader) -> None:
        """Carry the client's messages to the server until it ends, or until a COMMIT is to be cut."""
        watch = CommitWatch()
        while data := await reader.read(CHUNK_BYTES):
            await self.proxy.passes()
            for message, is_commit in watch.feed(data):
                if is_commit and self.proxy.takes_a_cut():
                    if self.proxy.wire is Wire.CUT_BEFORE_COMMIT:
                        return
                    self.is_deaf = True
                self.server_writer.write(message)
            await self.server_writer.drain()

    async def back(self, writer: asyncio.StreamWriter) -> None:
        """Carry the server's answers to the client; of a COMMIT that is cut, take the answer and say nothing."""
        unheard = bytearray()
        while data := await self.server_reader.read(CHUNK_BYTES):
            await self.proxy.passes()
            if self.is_deaf:
                unheard += data
                if b"COMMIT\0" in unheard:
                    return
                continue
            writer.write(data)
            await writer.drain()
