"""What resolvers share: who acts, and the loaders of one operation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast
from uuid import UUID

from litestar.enums import ScopeType
from litestar.types import Scope
from strawberry.litestar import BaseContext
from strawberry.types import Info

from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting, acting_of
from hse.api.booking_watches import BookingWatches
from hse.api.graphql.loaders import Loaders
from hse.api.history import history_of
from hse.api.limits import RequestLimits, count
from hse.api.live import LiveStreams
from hse.api.security import principal_of_credentials
from hse.api.sockets import OpenSocket, Sockets
from hse.domain.policy import Actor

T = TypeVar("T")

# How many of the pool's connections one operation may hold at a time, however many fields it asks for at once.
CONNECTIONS_MAX = 2


class SocketContext(BaseContext, kw_only=True):
    """A WebSocket of somebody who has proved who he is, or does so with its first message."""

    scope: Scope
    # Of all its operations together.
    connections: asyncio.Semaphore
    # Set once the session or key that it was opened with has ended.
    has_ended: asyncio.Event
    connection_params: dict[str, object] | None = None
    user_id: UUID | None = None
    held: OpenSocket | None = None

    def operation(self) -> "Context":
        """The context of one operation: it remembers nothing, and counts for an API key as a request. Raises `Unauthenticated`."""
        passed = {name: value for name, value in self.scope["state"].items() if name != "actor"}
        made = context_in(cast("Scope", {**self.scope, "state": passed}), self.connections)
        made.websocket = self.websocket
        return made

    async def prove(self) -> None:
        """See that somebody who exists opened it: by the opening request, or else by the first message.

        Raises `Unauthenticated`, `TooMany`.
        """
        state = self.scope["state"]
        if state.get("principal") is None:
            given = {name.lower(): value for name, value in (self.connection_params or {}).items()}
            state["principal"] = principal_of_credentials(given, self.scope["litestar_app"].state.tokens)
            await self.operation().count()
        self.user_id = (await self.operation().acting.read(_actor)).user_id

    def hold(self) -> None:
        """Count it for whom it is of, once he is known and until it is let go. Raises `TooManyStreams`."""
        if self.user_id is not None and self.held is None:
            self.held = self._sockets.open(acting_of(self.scope), self.user_id, self.has_ended)

    def let_go(self) -> None:
        """It is closed."""
        if self.held is not None:
            self._sockets.close(self.held)

    @property
    def _sockets(self) -> Sockets:
        sockets: Sockets = self.scope["litestar_app"].state.sockets
        return sockets


class Context(BaseContext, kw_only=True):
    """One operation of somebody who is signed in."""

    acting: Acting
    scope: Scope
    loaders: Loaders
    # Over a WebSocket, of all its operations together.
    connections: asyncio.Semaphore

    @property
    def live(self) -> LiveStreams:
        """The live streams."""
        streams: LiveStreams = self.scope["litestar_app"].state.live
        return streams

    @property
    def booking_watches(self) -> BookingWatches:
        """Who follows the calendars."""
        watches: BookingWatches = self.scope["litestar_app"].state.booking_watches
        return watches

    @property
    def correlation_id(self) -> str | None:
        """What finds the log lines."""
        found: str | None = self.scope["state"].get("correlation_id")
        return found

    @property
    def request_limits(self) -> RequestLimits:
        """How often somebody may ask."""
        limits: RequestLimits = self.scope["litestar_app"].state.limits
        return limits

    async def count(self) -> None:
        """Count an operation as a request. Raises `TooMany`."""
        await count(self.scope["state"], self.scope["litestar_app"].state.limiter, self.request_limits)

    async def run(self, command: Callable[[PostgresWork], Awaitable[T]], acting: Acting) -> T:
        """Run a command; what was loaded before it is forgotten, for it may have changed."""
        async with self.connections:
            result = await acting.run(command)
        self.loaders.forget()
        return result


Asked = Info[Context, None]


def context_of(info: Info[Any, Any]) -> Context:
    """The operation that a field belongs to."""
    context: Context = info.context
    return context


async def provide_context(scope: Scope) -> Context | SocketContext:
    """The request's context, after the database has said that the caller exists. Raises `Unauthenticated`, `TooMany`."""
    connections = asyncio.Semaphore(CONNECTIONS_MAX)
    if scope["type"] == ScopeType.WEBSOCKET:
        socket = SocketContext(scope=scope, connections=connections, has_ended=asyncio.Event())
        if scope["state"].get("principal") is not None:
            await socket.prove()
        return socket
    context = context_in(scope, connections)
    # Also what never comes to a resolver, such as introspection, is for those only who are signed in now.
    await context.acting.read(_actor)
    return context


def context_in(scope: Scope, connections: asyncio.Semaphore) -> Context:
    """The context of an operation that came with this request. Raises `Unauthenticated`."""
    acting = acting_of(scope)
    loaders = Loaders(acting, connections, history_of(scope))
    return Context(acting=acting, scope=scope, loaders=loaders, connections=connections)


async def _actor(work: PostgresWork) -> Actor:
    return work.actor
