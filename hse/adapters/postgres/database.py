"""Transactions of the control plane: each knows its actor, and sees what he reaches.

Every connection works under the role `hse_api`, which row-level security binds. A transaction enters with a session or a key; the
database looks the actor up, sets the scope for this transaction only, and returns him: authentication, the freshest permissions
and the second lock in one round trip. What only reads goes another way, on connections of its own that cannot write (`reading`).
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hse.adapters.postgres.actors import Entered, entered, entering
from hse.adapters.postgres.engine import psycopg_url
from hse.adapters.postgres.entrance import PostgresEntranceWork
from hse.adapters.postgres.mail import Outbox
from hse.adapters.postgres.migrate import older_revisions
from hse.adapters.postgres.pipeline import ConnectionPool, PipelinedConnection
from hse.adapters.postgres.reading import ActorChanged, Readers, Reading
from hse.adapters.postgres.work import Origin, PostgresWork
from hse.domain.errors import DomainError
from hse.domain.identity.principals import Principal

T = TypeVar("T")
# What is run in a transaction.
Query = Callable[[PostgresWork], Awaitable[T]]

API_ROLE = "hse_api"
CONNECT_TIMEOUT_SECONDS = 5
SESSION_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
}

ENTER_AUTHENTICATION = sa.text("select hse_enter_authentication()")
ASK = sa.text("select 1")


EXAMINE = sa.text(
    "select hse_schema_version() as schema_version, bool_or(rolsuper or rolbypassrls) as login_passes_row_security"
    "  from pg_roles where rolname in (session_user, current_user)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is to be known of a database before it is worked with."""

    login_passes_row_security: bool
    # A schema that is newer than the program is the next release's, which fits: it is migrated before its processes start.
    is_schema_older: bool


class Database:
    """Two pools of `pool_size` connections: one to read through, one for the rest. Made and closed in the loop that uses them."""

    def __init__(self, database_url: str, *, pool_size: int, outbox: Outbox) -> None:
        self.engine = _create_engine(database_url, pool_size)
        self.outbox = outbox
        self.readers = Readers(
            ConnectionPool(
                partial(_connect_to_read, self.engine.dialect.create_connect_args(psycopg_url(database_url))[1]),
                size=pool_size,
                wait_seconds_max=CONNECT_TIMEOUT_SECONDS,
            )
        )

    async def close(self) -> None:
        """Close the pools."""
        await self.readers.pool.close()
        await self.engine.dispose()

    async def examine(self) -> Condition:
        """Look at the login and at the schema. Raises SQLAlchemy's errors when the database does not answer or refuses the role."""
        async with self.engine.connect() as connection:
            row = (await connection.execute(EXAMINE)).one()
        older = older_revisions()
        return Condition(
            login_passes_row_security=row.login_passes_row_security,
            is_schema_older=row.schema_version is None or row.schema_version in older,
        )

    def connections(self) -> dict[str, float]:
        """How many connections are used, and how many wait to be."""
        pool: Any = self.engine.pool
        readers = self.readers.pool
        return {"in_use": pool.checkedout() + readers.num_in_use, "idle": pool.checkedin() + readers.num_idle}

    @asynccontextmanager
    async def work(self, principal: Principal, origin: Origin, now: datetime) -> AsyncIterator[PostgresWork]:
        """One transaction of `principal`: committed by `PostgresWork.commit`, else rolled back. Raises `Unauthenticated`."""
        async with AsyncExitStack() as stack:
            started = time.perf_counter()
            connection, found = await self._begin(stack, lambda connection: enter(connection, principal))
            work = PostgresWork(connection, found.actor, origin, now, self.outbox)
            work.requests_per_minute = found.requests_per_minute
            work.permission_seconds = time.perf_counter() - started
            yield work

    async def read(self, principal: Principal, origin: Origin, now: datetime, query: Query[T], admit: Query[None]) -> T:
        """Run a query for `principal`; `admit` is asked once it is known who that is. Raises `Unauthenticated`.

        The query may be run more than once, when the actor is changed meanwhile, and only its last answer counts.
        """
        reading = self.readers.of_remembered(principal)
        if reading is not None:
            with suppress(ActorChanged):
                return await self._read_as_remembered(reading, origin, now, query, admit)
        with suppress(ActorChanged):
            reading = await self.readers.of_actor(principal)
            work = self._work_of(reading, origin, now)
            await admit(work)
            return await query(work)
        # He is being changed all the time: one transaction for all statements.
        async with self.work(principal, origin, now) as work:
            await admit(work)
            return await query(work)

    async def _read_as_remembered(
        self, reading: Reading, origin: Origin, now: datetime, query: Query[T], admit: Query[None]
    ) -> T:
        work = self._work_of(reading, origin, now)
        try:
            result = await query(work)
        except DomainError:
            # A refusal, too, must be one of the actor as he is.
            await reading.confirm()
            await admit(work)
            raise
        await reading.confirm()
        work.permission_seconds = reading.seconds
        await admit(work)
        return result

    def _work_of(self, reading: Reading, origin: Origin, now: datetime) -> PostgresWork:
        # Of a connection, queries use nothing but `execute`, and what would write is refused by the database.
        connection = cast("AsyncConnection", reading)
        work = PostgresWork(connection, reading.entered.actor, origin, now, self.outbox)
        work.requests_per_minute = reading.entered.requests_per_minute
        work.permission_seconds = reading.seconds
        return work

    @asynccontextmanager
    async def entrance(self, origin: Origin, now: datetime) -> AsyncIterator[PostgresEntranceWork]:
        """One transaction of somebody who signs in: committed by `PostgresEntranceWork.commit`, else rolled back."""
        async with self.authentication() as connection:
            yield PostgresEntranceWork(connection, origin, now, self.outbox)

    @asynccontextmanager
    async def authentication(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of nobody yet: sees what people prove themselves with, and no tenant's things."""
        async with AsyncExitStack() as stack:
            connection, _ = await self._begin(stack, lambda connection: connection.execute(ENTER_AUTHENTICATION))
            yield connection

    @asynccontextmanager
    async def nobody(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of nobody: sees no rows, and what functions of the database show to who proves himself to them."""
        async with AsyncExitStack() as stack:
            connection, _ = await self._begin(stack, lambda connection: connection.execute(ASK))
            yield connection

    async def _begin(
        self, stack: AsyncExitStack, enter_as: Callable[[AsyncConnection], Awaitable[T]]
    ) -> tuple[AsyncConnection, T]:
        """Enter on a pooled connection; on another one when the server had ended it since its last use: the pool drops its like.

        Asking each connection first whether it lives would cost every request a round trip more.
        """
        try:
            connection = await stack.enter_async_context(self.engine.connect())
            return connection, await enter_as(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        connection = await stack.enter_async_context(self.engine.connect())
        return connection, await enter_as(connection)


async def enter(connection: AsyncConnection, principal: Principal) -> Entered:
    """Give the transaction of `connection` its actor and his scope. Raises `Unauthenticated`."""
    return entered(principal, (await connection.execute(*entering(principal))).one_or_none())


def _connect_arguments(settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "application_name": "hse api",
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }


async def _connect_to_read(url_arguments: Mapping[str, Any]) -> PipelinedConnection:
    """Open a connection that cannot write. Raises psycopg's errors."""
    arguments = {**url_arguments, **_connect_arguments({**SESSION_SETTINGS, "default_transaction_read_only": "on"})}
    connection = await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
    try:
        await connection.execute(f"set role {API_ROLE}".encode())
        return PipelinedConnection(connection)
    except BaseException:
        await connection.close()
        raise


def _create_engine(database_url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        psycopg_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        # What was to be stored is none of the log's business when a statement fails.
        hide_parameters=True,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        connect_args=_connect_arguments(SESSION_SETTINGS),
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def bind_role(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"set role {API_ROLE}")
        cursor.close()
        connection.commit()

    return engine
