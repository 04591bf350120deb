"""Data loaders: the things that the fields of one level lead to are asked of the database together, in a transaction of their own.

They live for one operation. Two operations on one WebSocket share none, else the second would be told what the first was allowed.
"""

import asyncio
from typing import Any, TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader

from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting
from hse.api.graphql.entities import Entity
from hse.api.history import History
from hse.domain.paging import Page, PageQuery
from hse.domain.telemetry.dead_letters import DeadLetterSummary, visible_summaries
from hse.domain.telemetry.model import DeviceState
from hse.domain.telemetry.queries import STATES_MAX, visible_states

T = TypeVar("T")


EMPTY: Page[Any] = Page(items=[], next_cursor=None, total=0)


class Loaders:
    """The loaders of one operation, made as they are asked for."""

    def __init__(self, acting: Acting, connections: asyncio.Semaphore, history: History) -> None:
        self._acting = acting
        self._history = history
        self._states: DataLoader[UUID, DeviceState | None] | None = None
        self._dead_letters: DataLoader[UUID, DeadLetterSummary | None] | None = None
        self._connections = connections
        self._things: dict[Entity, DataLoader[UUID, Any]] = {}
        self._lists: dict[tuple[Any, ...], DataLoader[UUID, Page[Any]]] = {}

    def forget(self) -> None:
        """Load everything anew from now on."""
        self._things.clear()
        self._lists.clear()
        self._states = None
        self._dead_letters = None

    async def thing(self, entity: Entity, entity_id: UUID) -> Any:
        """One thing by its id; None when the actor may not see it."""
        loader = self._things.get(entity)
        if loader is None:
            loader = self._things[entity] = DataLoader(load_fn=lambda ids: self._load_things(entity, ids))
        return await loader.load(entity_id)

    async def listed(self, entity: Entity, column: str, parent_id: UUID, query: PageQuery) -> Page[Any]:
        """The page of those things whose `column` is the parent; empty when the actor may see none."""
        filters = tuple(sorted(query.filters.items()))
        key = (entity, column, query.limit, query.cursor, query.sort, query.search, query.with_total, filters)
        loader = self._lists.get(key)
        if loader is None:
            loader = self._lists[key] = DataLoader(load_fn=lambda ids: self._load_lists(entity, column, ids, query))
        return await loader.load(parent_id)

    async def state(self, device_id: UUID) -> DeviceState | None:
        """How a device is now; None when the actor may not see that."""
        if self._states is None:
            self._states = DataLoader(load_fn=self._load_states, max_batch_size=STATES_MAX)
        return await self._states.load(device_id)

    async def dead_letters(self, device_id: UUID) -> DeadLetterSummary | None:
        """How many dead letters a device has; None when the actor may not see the device."""
        if self._dead_letters is None:
            self._dead_letters = DataLoader(load_fn=self._load_dead_letters, max_batch_size=STATES_MAX)
        return await self._dead_letters.load(device_id)

    async def _load_dead_letters(self, device_ids: list[UUID]) -> list[DeadLetterSummary | None]:
        async with self._connections:
            summaries = await self._acting.read(lambda work: visible_summaries(work, device_ids))
        found = {summary.device_id: summary for summary in summaries}
        return [found.get(device_id) for device_id in device_ids]

    async def _load_states(self, device_ids: list[UUID]) -> list[DeviceState | None]:
        async with self._connections:
            states = await self._acting.read(lambda work: visible_states(work, self._history.states, device_ids))
        found = {state.device_id: state for state in states}
        return [found.get(device_id) for device_id in device_ids]

    async def _load_things(self, entity: Entity, entity_ids: list[UUID]) -> list[Any]:
        async def find(work: PostgresWork) -> dict[UUID, Any]:
            reach = work.actor.reach(entity.see)
            # Some things, such as the system roles, lie within every reach, and are nevertheless not for everybody.
            return {} if reach.is_nowhere else await entity.rows(work).find_many(entity_ids, reach)

        async with self._connections:
            found = await self._acting.read(find)
        return [found.get(entity_id) for entity_id in entity_ids]

    async def _load_lists(
        self, entity: Entity, column: str, parent_ids: list[UUID], query: PageQuery
    ) -> list[Page[Any]]:
        async def find(work: PostgresWork) -> dict[UUID, Page[Any]]:
            reach = work.actor.reach(entity.see)
            return {} if reach.is_nowhere else await entity.rows(work).pages_of(column, parent_ids, reach, query)

        async with self._connections:
            found = await self._acting.read(find)
        return [found.get(parent_id, EMPTY) for parent_id in parent_ids]
