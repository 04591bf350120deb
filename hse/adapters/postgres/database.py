"""Transactions of the control plane: each knows its actor, and sees what he reaches.

Every connection works under the role `hse_api`, which row-level security binds. A transaction enters with a session or a key; the
database looks the actor up, sets the scope for this transaction only, and returns him: authentication, the freshest permissions
and the second lock in one round trip.
"""

import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hse.adapters.postgres.engine import psycopg_url
from hse.adapters.postgres.entrance import PostgresEntranceWork
from hse.adapters.postgres.mail import Outbox
from hse.adapters.postgres.migrate import older_revisions
from hse.adapters.postgres.work import Origin, PostgresWork
from hse.domain.identity.principals import KeyPrincipal, Principal, SessionPrincipal, Unauthenticated
from hse.domain.policy import Actor

T = TypeVar("T")

API_ROLE = "hse_api"
CONNECT_TIMEOUT_SECONDS = 5
SESSION_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
}

ENTER_SESSION = sa.text("select * from hse_enter_session(:session_id)")
ENTER_API_KEY = sa.text(
    "select api_key_id, secret_hash, key_actions, requests_per_minute, (entered).* from hse_enter_api_key(:prefix)"
)
ENTER_AUTHENTICATION = sa.text("select hse_enter_authentication()")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """The actor of a transaction, and how long it took to find him; `requests_per_minute` is the limit of the key he came with."""

    actor: Actor
    seconds: float
    requests_per_minute: int | None = None


class Database:
    """The pool. Made inside the event loop that uses it, and closed there."""

    def __init__(self, database_url: str, *, pool_size: int, outbox: Outbox) -> None:
        self.engine = _create_engine(database_url, pool_size)
        self.outbox = outbox

    async def close(self) -> None:
        """Close the pool."""
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
        return {"in_use": pool.checkedout(), "idle": pool.checkedin()}

    @asynccontextmanager
    async def work(self, principal: Principal, origin: Origin, now: datetime) -> AsyncIterator[PostgresWork]:
        """One transaction of `principal`: committed by `PostgresWork.commit`, else rolled back. Raises `Unauthenticated`."""
        async with AsyncExitStack() as stack:
            connection, entered = await self._begin(stack, lambda connection: enter(connection, principal))
            work = PostgresWork(connection, entered.actor, origin, now, self.outbox)
            work.requests_per_minute = entered.requests_per_minute
            work.permission_seconds = entered.seconds
            yield work

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
    started = time.perf_counter()
    match principal:
        case SessionPrincipal(session_id=session_id):
            row = (await connection.execute(ENTER_SESSION, {"session_id": session_id})).one_or_none()
            if row is None:
                raise Unauthenticated
            return Entered(actor=_actor(row, session_id=session_id), seconds=time.perf_counter() - started)
        case KeyPrincipal(prefix=prefix, secret_hash=secret_hash):
            row = (await connection.execute(ENTER_API_KEY, {"prefix": prefix})).one_or_none()
            if row is None or not hmac.compare_digest(row.secret_hash, secret_hash):
                raise Unauthenticated
            actor = _actor(row).limited_to(frozenset(row.key_actions), row.api_key_id)
            seconds = time.perf_counter() - started
            return Entered(actor=actor, seconds=seconds, requests_per_minute=row.requests_per_minute)


def _actor(row: Any, session_id: UUID | None = None) -> Actor:
    return Actor(
        user_id=row.user_id,
        email=row.email,
        role_id=row.role_id,
        hierarchy=row.hierarchy,
        partner_company_id=row.partner_company_id,
        organization_id=row.organization_id,
        has_all_establishments=row.has_all_establishments,
        actions=frozenset(row.actions),
        organization_ids=frozenset(row.organization_ids),
        establishments={
            UUID(establishment): None if held is None else frozenset(held)
            for establishment, held in row.establishments.items()
        },
        session_id=session_id,
    )


def _create_engine(database_url: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        psycopg_url(database_url),
        pool_size=pool_size,
        max_overflow=0,
        # What was to be stored is none of the log's business when a statement fails.
        hide_parameters=True,
        pool_timeout=CONNECT_TIMEOUT_SECONDS,
        connect_args={
            "application_name": "hse api",
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "options": " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items()),
        },
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def bind_role(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"set role {API_ROLE}")
        cursor.close()
        connection.commit()

    return engine
