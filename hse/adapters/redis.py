"""One connection to Redis that a whole process shares: commands go out as they come, and answers come back in their order.

What is asked in one turn of the event loop is sent at once. redis-py opens the connection, with all that a URL can say of TLS,
names and passwords; its commands are not used, for they cost more than what they ask for. A command that fails is not sent again:
it may have been done.
"""

import asyncio
from collections import deque
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError

NOT_YET = object()


class SharedConnection:
    """Opened at its first use, and again after it was lost or dropped."""

    def __init__(self, redis_url: str, *, connect_seconds_max: float) -> None:
        self._pool = ConnectionPool.from_url(
            redis_url,
            protocol=2,
            socket_connect_timeout=connect_seconds_max,
            socket_timeout=connect_seconds_max,
            retry=Retry(NoBackoff(), 0),
        )
        self._conversation: _Conversation | None = None
        self._opening: asyncio.Task[_Conversation] | None = None

    async def call(self, *words: str | bytes | int) -> Any:
        """Ask one command. Raises redis-py's errors and `OSError`."""
        conversation = self._conversation
        if conversation is None or conversation.is_over:
            conversation = await self._open()
        return await conversation.ask(words)

    def drop(self) -> None:
        """Close the connection, which does not answer any more, or not yet; who waits for it is told."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._conversation is not None:
            self._conversation.end()

    async def close(self) -> None:
        """Close the connection."""
        self.drop()
        await self._pool.aclose()

    async def _open(self) -> "_Conversation":
        """Open a connection, once for all who want it."""
        opening = self._opening
        if opening is None:
            opening = self._opening = asyncio.create_task(self._connect())
        try:
            # Who does not wait any longer does not take it away from the others.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise ConnectionLost("redis took too long to be connected with") from None
            raise
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None

    async def _connect(self) -> "_Conversation":
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._conversation = _Conversation(connection)
        return self._conversation


class _Conversation(asyncio.Protocol):
    """What goes over one connection until it ends."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transport: asyncio.Transport = connection._writer.transport
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ResponseError, notEnoughData=NOT_YET)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self.is_over = self._transport.is_closing()
        self._transport.set_protocol(self)

    async def ask(self, words: tuple[str | bytes | int, ...]) -> Any:
        if self.is_over:
            raise ConnectionLost("the connection to redis was lost")
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(hiredis.pack_command(words))  # type: ignore[arg-type]
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(answer)
        return await answer

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not NOT_YET:
            answer = self._waiting.popleft()
            # Who does not wait any more is nevertheless the one that is answered.
            if answer.done():
                continue
            if isinstance(reply, ResponseError):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._connection._close()
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(ConnectionLost("the connection to redis was lost"))
        self._waiting.clear()

    def _send(self) -> None:
        if not self.is_over:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
