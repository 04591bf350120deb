"""What a command works with: who acts, when, and the stores of one transaction. Adapters fill it; a test's fake may, too."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, TypeVar
from uuid import UUID

from hse.domain.errors import Forbidden, NotFound
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Actor, Reach


class Unchanged(Enum):
    """Stands in a change for a field that stays as it is: None would say that it becomes empty."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


def values_of(command: Any) -> dict[str, Any]:
    """The fields of a command (a dataclass). `dataclasses.asdict` would copy what lies in them, too."""
    return {item.name: getattr(command, item.name) for item in fields(command)}


def changes_of(command: Any) -> dict[str, Any]:
    """The fields of a change (a dataclass) that it changes."""
    return {name: value for name, value in values_of(command).items() if value is not UNCHANGED}


class Placed(Protocol):
    """A view that knows whether it lies within a reach."""

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""


V = TypeVar("V")
F = TypeVar("F", covariant=True)
P = TypeVar("P", bound=Placed)


class Finds(Protocol[F]):
    """What finds one thing by its id."""

    @property
    def entity(self) -> str:
        """What the thing is called."""

    async def find(self, entity_id: UUID, reach: Reach) -> F | None:
        """The thing within the reach; None when there is none."""


class Lists(Protocol[V]):
    """What tells things by the page."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[V]:
        """A page of what is within the reach. Raises `Invalid` for an unknown sort or a cursor of another list."""


class Store(Finds[V], Lists[V], Protocol[V]):
    """The rows of one entity. Every change is written to the audit log with it, under `entity`."""

    async def add(self, values: Mapping[str, Any]) -> V:
        """Add a row. Raises `Taken`."""

    async def change(self, before: V, changes: Mapping[str, Any], *, version: int | None = None) -> V:
        """Change a row; with `version` only while it has that one. Raises `Taken`, `Stale`."""

    async def remove(self, before: V) -> None:
        """Delete a row. Raises `InUse`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the audit log, beside who and where, which the transaction knows."""

    action: str
    entity_type: str
    entity_id: str | None
    partner_company_id: UUID | None = None
    organization_id: UUID | None = None
    # Where it stands: what happened at an establishment is read by those who reach that, and not by its whole organisation.
    establishment_id: UUID | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


class Work(Protocol):
    """One transaction of one actor. Nouns add their stores to it in their `ports.py`."""

    @property
    def actor(self) -> Actor:
        """Who acts."""

    @property
    def now(self) -> datetime:
        """The time of the transaction, in UTC."""

    def new_id(self) -> UUID:
        """An id that nothing has."""

    async def record(self, record: Record) -> None:
        """Write to the audit log what no store's change says."""


async def seen(store: Finds[V], reach: Reach, entity_id: UUID) -> V:
    """The thing, when it is within the reach; raises `NotFound`."""
    found = await store.find(entity_id, reach)
    if found is None:
        raise NotFound(store.entity, entity_id)
    return found


async def within_act(work: Work, store: Finds[P], entity_id: UUID, *, see: str, act: str) -> P:
    """The thing that is to be acted on: `NotFound` when the actor may not see it, `Forbidden` when he may, and not do this."""
    found = await seen(store, work.actor.reach(see), entity_id)
    if not found.is_within(work.actor.reach(act)):
        raise Forbidden(act)
    return found
