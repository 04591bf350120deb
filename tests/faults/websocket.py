"""One end of a WebSocket that speaks HDP/1, by another's implementation of RFC 6455."""

import asyncio
import contextlib
import ssl
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.faults.wire import HEADER, ConnectionEnded, Form, Message, Peer, decode_frame, decode_line


class WebSocketPeer(Peer):
    """The device's end of one connection. What is sent at a time is one message, of the connection's form."""

    def __init__(self, connection: ClientConnection, form: Form) -> None:
        self.connection = connection
        self.form = form
        self.last_seq = 0
        self._unread: list[Message] = []
        self.still_open.add(self)

    @classmethod
    async def dial(cls, port: int, form: Form = "frames", tls: ssl.SSLContext | None = None) -> Self:
        """Connect to the core on this machine."""
        # Without pings of the library's own: what keeps a connection alive is the protocol's matter.
        scheme = "ws" if tls is None else "wss"
        url = f"{scheme}://127.0.0.1:{port}/v1/device"
        opening = connect(url, ssl=tls, ping_interval=None, max_size=None, compression=None, proxy=None)
        return cls(await asyncio.wait_for(opening, 10), form)

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes as one message."""
        with contextlib.suppress(ConnectionClosed):
            await self.connection.send(data, text=self.form == "json")

    async def send_in_pieces(self, data: bytes) -> None:
        """Send one message of which every byte is a fragment."""
        pieces = [data[place : place + 1] for place in range(len(data))]
        await self.connection.send(pieces, text=self.form == "json")

    async def pour(self, chunk: bytes, num_bytes_max: int) -> int:
        """Write without ever reading, until the core takes no more for a second; return how much went out."""
        poured = 0
        while poured < num_bytes_max:
            try:
                await asyncio.wait_for(self.send_bytes(chunk), 1.0)
            except (TimeoutError, ConnectionError):
                break
            poured += len(chunk)
        return poured

    async def _next(self) -> Message:
        while not self._unread:
            try:
                data = await self.connection.recv()
            except ConnectionClosed as error:
                raise ConnectionEnded from error
            self._unread = self._messages(data)
        return self._unread.pop(0)

    def _messages(self, data: str | bytes) -> list[Message]:
        if isinstance(data, str):
            # The core speaks JSON to whom has spoken it first.
            assert self.form == "json", data
            return [decode_line(data.encode())]
        found = []
        while data:
            length, kind = HEADER.unpack_from(data)
            body, data = data[HEADER.size : HEADER.size + length - 1], data[HEADER.size + length - 1 :]
            assert len(body) == length - 1, "a message holds whole frames"
            found.append(decode_frame(kind, body))
        return found

    async def write_eof(self) -> None:
        """End this side of the socket without a word."""
        self.connection.transport.write_eof()

    async def close(self) -> None:
        """Close this end."""
        self.still_open.discard(self)
        await self.connection.close()

    def abort(self) -> None:
        """Drop the connection without a goodbye."""
        self.still_open.discard(self)
        self.connection.transport.abort()
