"""What resolvers share: who acts, and the loaders of one operation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from litestar.types import Scope
from strawberry.litestar import BaseContext
from strawberry.types import Info

from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting, acting_of
from hse.api.graphql.loaders import Loaders
from hse.api.history import history_of
from hse.api.limits import RequestLimits, count
from hse.domain.policy import Actor

T = TypeVar("T")

# How many of the pool's connections one operation may hold at a time, however many fields it asks for at once.
CONNECTIONS_MAX = 2


class Context(BaseContext, kw_only=True):
    """One operation of somebody who is signed in."""

    acting: Acting
    scope: Scope
    loaders: Loaders
    # Over a WebSocket, of all its operations together.
    connections: asyncio.Semaphore

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

    def renewed(self) -> "Context":
        """The context of another operation of the same WebSocket: it remembers nothing, and counts for an API key as a request."""
        passed = {name: value for name, value in self.scope["state"].items() if name != "actor"}
        scope = cast("Scope", {**self.scope, "state": passed})
        renewed = context_in(scope, self.connections)
        renewed.websocket = self.websocket
        return renewed

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


async def provide_context(scope: Scope) -> Context:
    """The request's context, after the database has said that the caller exists. Raises `Unauthenticated`, `TooMany`."""
    context = context_in(scope, asyncio.Semaphore(CONNECTIONS_MAX))
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
