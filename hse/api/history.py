"""What stands beside the database when the history is read: the cache, and the states that the ingest core keeps."""

from dataclasses import dataclass, field
from typing import Any

from litestar import Request
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from litestar.types import Scope

from hse.adapters.history_cache import NoHistoryCache
from hse.adapters.live_states import NoLiveStates, RedisLiveStates


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Neither is there without Redis."""

    cache: NoHistoryCache = field(default_factory=NoHistoryCache)
    states: NoLiveStates | RedisLiveStates = field(default_factory=NoLiveStates)

    async def close(self) -> None:
        """Close connections."""
        await self.cache.close()
        await self.states.close()


Histories = NamedDependency[SkipValidation[History]]


async def provide_history(request: Request[Any, Any, Any]) -> History:
    """The application's."""
    return history_of(request.scope)


def history_of(scope: Scope) -> History:
    """The `History` of the application that a request came to."""
    history: History = scope["litestar_app"].state.history
    return history
