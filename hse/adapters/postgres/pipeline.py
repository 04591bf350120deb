"""Statements that go to PostgreSQL together and whose answers come back together: libpq's pipeline mode.

A *flight* is one or more statements and one wait for the answers of all. To the database it is one transaction, which begins with
the first statement and ends with the flight: there is no BEGIN to send, no COMMIT or ROLLBACK to wait for, and nothing that a
connection could carry on to the next flight. A statement that fails ends the flight and undoes it.

A connection prepares each statement once and keeps it prepared. psycopg's own connection forgets what it has prepared at every
rollback, and it waits for each statement, for the BEGIN before and for the ROLLBACK behind; that is why reads do not go through it.
Its connecting, its types and its errors are used here, too.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy.exc import TimeoutError as PoolTimeout

# Of one connection. The one that was used longest ago makes room.
PREPARED_MAX = 200
FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED, ExecStatus.BAD_RESPONSE)

# A statement with $1, $2, ... for its values, as UTF-8.
Statement = tuple[bytes, Sequence[Any]]
Kind = tuple[bytes, tuple[int, ...]]


class PipelinedConnection:
    """One connection. One flight at a time: whoever has taken it from the pool is alone with it."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._pgconn: PGconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._transformer = Transformer(connection)
        self._prepared: dict[Kind, bytes] = {}
        self._num_prepared = 0
        self._results: list[PGresult] = []
        self._num_syncs = 0
        self._waiter: asyncio.Future[None] | None = None
        self.is_broken = False
        self._pgconn.enter_pipeline_mode()
        # For as long as it lives: so it is noticed, too, when the server ends it while it lies in the pool.
        self._loop.add_reader(self._socket, self._read)

    async def fly(self, statements: Sequence[Statement]) -> list[PGresult]:
        """Send statements and wait for their results, one each, in their order. Raises psycopg's errors."""
        kinds: list[Kind | None] = []
        try:
            for text, values in statements:
                self._queue(text, values, kinds)
        except BaseException:
            # A value that cannot be sent. What stands before it in the flight is undone with it.
            await self._end(kinds)
            raise
        results = await self._end(kinds)
        failed = next((result for result in results if result.status in FAILED), None)
        if failed is not None:
            raise error_from_result(failed, encoding=self._pgconn._encoding)
        return [result for result, kind in zip(results, kinds, strict=True) if kind is None]

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of a result, as Python's values."""
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def close(self) -> None:
        """Close it, whatever it is doing."""
        if self.is_broken:
            return
        self.is_broken = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._pgconn.finish()

    def _queue(self, text: bytes, values: Sequence[Any], kinds: list[Kind | None]) -> None:
        """Queue one statement. `kinds` says of each result that will come what it prepares, or that it is a statement's: None."""
        transformer = self._transformer
        parameters = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values)) if values else ()
        types = transformer.types or () if values else ()
        kind = (text, types)
        name = self._prepared.pop(kind, None)
        if name is None:
            if len(self._prepared) >= PREPARED_MAX:
                oldest = next(iter(self._prepared))
                self._pgconn.send_query_params(b"deallocate " + self._prepared.pop(oldest), None)
                kinds.append(oldest)
            self._num_prepared += 1
            name = b"hse_%d" % self._num_prepared
            self._pgconn.send_prepare(name, text, types)
            kinds.append(kind)
        self._prepared[kind] = name
        formats = transformer.formats if values else None
        self._pgconn.send_query_prepared(name, parameters, formats, Format.BINARY)
        kinds.append(None)

    async def _end(self, kinds: Sequence[Kind | None]) -> list[PGresult]:
        """End the flight and wait for its results, of which `kinds` says what they are."""
        waiter = self._waiter = self._loop.create_future()
        self._num_syncs += 1
        try:
            self._pgconn.pipeline_sync()
            self._write()
            await waiter
        except BaseException:
            # Answers are on their way that nobody waits for.
            self.close()
            raise
        finally:
            self._waiter = None
        results, self._results = self._results, []
        for result, kind in zip(results, kinds, strict=True):
            if kind is not None and result.status in FAILED:
                # Prepared in vain: the next time anew, under another name.
                self._prepared.pop(kind, None)
        return results

    def _write(self) -> None:
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._write_on)

    def _write_on(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._fail(error)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            self._take_results()
        except psycopg.Error as error:
            self._fail(error)

    def _take_results(self) -> None:
        """Take what has come. A flight is over when its sync has come, behind all its results."""
        pgconn, was_nothing = self._pgconn, False
        while self._num_syncs and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                # Ends what belongs to one statement; twice it means that there is no more connection.
                if was_nothing:
                    raise psycopg.OperationalError(self._pgconn.get_error_message())
                was_nothing = True
                continue
            was_nothing = False
            if result.status == ExecStatus.PIPELINE_SYNC:
                self._num_syncs -= 1
            else:
                self._results.append(result)
        if not self._num_syncs and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: psycopg.Error) -> None:
        # The server's own last words say more than that the connection is gone.
        last = next((result for result in reversed(self._results) if result.status == ExecStatus.FATAL_ERROR), None)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(error if last is None else error_from_result(last, encoding=self._pgconn._encoding))
        self.close()


class ConnectionPool:
    """Connections that are opened when they are needed, up to a number, and kept."""

    def __init__(
        self, connect: Callable[[], Awaitable[PipelinedConnection]], *, size: int, wait_seconds_max: float
    ) -> None:
        self._connect = connect
        self._size = size
        self._wait_seconds_max = wait_seconds_max
        self._idle: list[PipelinedConnection] = []
        self._num_open = 0
        # Who waits for one, the longest waiting first.
        self._queue: deque[asyncio.Future[PipelinedConnection | None]] = deque()
        # How many flights there were: how often somebody waited for the database.
        self.num_flights = 0
        # Is told every statement that is sent.
        self.on_statement: Callable[[bytes], None] | None = None

    @property
    def num_in_use(self) -> int:
        """How many connections somebody waits on."""
        return self._num_open - len(self._idle)

    @property
    def num_idle(self) -> int:
        """How many connections lie here."""
        return len(self._idle)

    async def fly(self, statements: Sequence[Statement]) -> tuple[PipelinedConnection, list[PGresult]]:
        """Send statements as one transaction; returns what reads their results, too.

        Raises psycopg's errors, and SQLAlchemy's `TimeoutError` when no connection came free in time. A connection that the server
        had ended since its last use is another one's turn.
        """
        while True:
            connection, is_new = await self.take()
            self.num_flights += 1
            if self.on_statement is not None:
                for text, _ in statements:
                    self.on_statement(text)
            try:
                results = await connection.fly(statements)
            except psycopg.OperationalError:
                if is_new or not connection.is_broken:
                    raise
            else:
                return connection, results
            finally:
                self.give_back(connection)

    async def close(self) -> None:
        """Close the connections that lie here; the others when they come back."""
        self._size = 0
        while self._idle:
            self.give_back(self._idle.pop())

    async def take(self) -> tuple[PipelinedConnection, bool]:
        """A connection, and whether it is new. Raises psycopg's errors, and SQLAlchemy's `TimeoutError`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_broken:
                return connection, False
            self._num_open -= 1
        if self._num_open < self._size:
            self._num_open += 1
            return await self._open(), True
        given = await self._wait()
        return (await self._open(), True) if given is None else (given, False)

    async def _open(self) -> PipelinedConnection:
        """Open a connection, which is counted already."""
        try:
            return await self._connect()
        except BaseException:
            self._lose()
            raise

    async def _wait(self) -> PipelinedConnection | None:
        """Wait for a connection, or for the right to open one: None. Raises `TimeoutError` of SQLAlchemy."""
        place: asyncio.Future[PipelinedConnection | None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                return await place
        except BaseException as error:
            if place in self._queue:
                self._queue.remove(place)
            if place.done() and not place.cancelled():
                # It came, and too late.
                given = place.result()
                if given is None:
                    self._lose()
                else:
                    self.give_back(given)
            if isinstance(error, TimeoutError):
                raise PoolTimeout(f"no connection came free in {self._wait_seconds_max} s") from error
            raise

    def give_back(self, connection: PipelinedConnection) -> None:
        """Let others have a connection that was taken."""
        if connection.is_broken or self._num_open > self._size:
            connection.close()
            self._lose()
        elif (place := self._next_in_queue()) is not None:
            place.set_result(connection)
        else:
            self._idle.append(connection)

    def _lose(self) -> None:
        """Give up a connection: who waits may open another one in its place."""
        if self._num_open <= self._size and (place := self._next_in_queue()) is not None:
            place.set_result(None)
        else:
            self._num_open -= 1

    def _next_in_queue(self) -> "asyncio.Future[PipelinedConnection | None] | None":
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                return place
        return None
