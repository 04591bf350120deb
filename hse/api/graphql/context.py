"""What resolvers share: who acts, and the loaders of one operation."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from litestar.types import Scope
from strawberry.litestar import BaseContext
from strawberry.types import Info

from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting, acting_of
from hse.api.graphql.loaders import Loaders
from hse.domain.policy import Actor

T = TypeVar("T")

# How many of the pool's connections one operation may hold at a time, however many fields it asks for at once.
CONNECTIONS_MAX = 2


class Context(BaseContext, kw_only=True):
    """One operation of somebody who is signed in."""

    acting: Acting
    correlation_id: str | None
    loaders: Loaders
    connections: asyncio.Semaphore

    def renewed(self) -> "Context":
        """The context of another operation of the same caller: it remembers nothing of what was loaded."""
        return _context(self.acting, self.correlation_id)

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
    """The request's context, after the database has said that the caller exists. Raises `Unauthenticated`."""
    acting = acting_of(scope)
    # Also what never comes to a resolver, such as introspection, is for those only who are signed in now.
    await acting.read(_actor)
    return _context(acting, scope["state"].get("correlation_id"))


async def _actor(work: PostgresWork) -> Actor:
    return work.actor


def _context(acting: Acting, correlation_id: str | None) -> Context:
    connections = asyncio.Semaphore(CONNECTIONS_MAX)
    loaders = Loaders(acting, connections)
    return Context(acting=acting, correlation_id=correlation_id, loaders=loaders, connections=connections)
