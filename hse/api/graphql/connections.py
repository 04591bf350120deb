"""Fields that lead to other things: one of them, or a list of them page by page, as Relay's connections are.

A list takes `first` (200 at most), `after`, `sort`, `search` and the filters of its entity; inside another thing each parent gets
its own page of 10 unless it is told otherwise, and `after` goes on behind the same place in each of them.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import strawberry
from graphql import FieldNode, FragmentSpreadNode, GraphQLResolveInfo, InlineFragmentNode, SelectionSetNode
from strawberry.types import Info

from hse.adapters.postgres.work import PostgresWork
from hse.api.graphql.context import Asked, context_of
from hse.api.graphql.entities import Entity
from hse.domain.errors import Invalid
from hse.domain.paging import PAGE_LIMIT, PAGE_LIMIT_MAX, Page, PageQuery

N = TypeVar("N")

NESTED_PAGE_LIMIT = 10


@strawberry.type(description="A thing in a list, and the cursor that goes on behind it.")
class Edge(Generic[N]):
    """A thing in a list, and the cursor that goes on behind it."""

    cursor: str
    node: N


@strawberry.type(description="Whether a list goes on, and where.")
class PageInfo:
    """Whether a list goes on, and where."""

    has_next_page: bool
    end_cursor: str | None


def page_info_of(page: Page[Any]) -> PageInfo:
    """Where a page goes on."""
    return PageInfo(has_next_page=page.next_cursor is not None, end_cursor=page.next_cursor)


def check_first(first: int) -> None:
    """Raise `Invalid` for a page that nobody is given."""
    if not 1 <= first <= PAGE_LIMIT_MAX:
        raise Invalid("first", f"between 1 and {PAGE_LIMIT_MAX}")


@strawberry.type(description="A page of a list. `totalCount` is counted only when it is asked for.")
class Connection(Generic[N]):
    """A page of a list."""

    edges: list[Edge[N]]
    page_info: PageInfo
    total_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An edge as it is resolved."""

    cursor: str
    node: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A connection as it is resolved."""

    edges: list[Row]
    page_info: PageInfo
    total_count: int | None


def node_of(entity: Entity) -> Any:
    """The GraphQL type of an entity, by name: the modules of the nouns lead to one another."""
    return Annotated[entity.type_name, strawberry.lazy(entity.module)]


def single(entity: Entity, find: Callable[[PostgresWork, UUID], Awaitable[Any]]) -> Any:
    """A field of the query that reads one thing by its id."""
    return answer(find, node_of(entity), "One by its id, when you may see it.")


def answer(find: Callable[[PostgresWork, UUID], Awaitable[Any]], kind: Any, description: str) -> Any:
    """A field of the query that reads what belongs to one thing."""

    async def resolve(info: Asked, id: UUID) -> Any:  # noqa: A002 (the argument's name)
        context = context_of(info)
        async with context.connections:
            return await context.acting.read(lambda work: find(work, id))

    return strawberry.field(resolver=resolve, graphql_type=kind | None, description=description)


def own(find: Callable[[PostgresWork], Awaitable[Any]], kind: Any, description: str) -> Any:
    """A field of the query that reads what concerns the actor himself."""

    async def resolve(info: Asked) -> Any:
        context = context_of(info)
        async with context.connections:
            return await context.acting.read(find)

    return strawberry.field(resolver=resolve, graphql_type=kind | None, description=description)


def whole(find: Callable[[PostgresWork], Awaitable[Page[Any]]], kind: Any, description: str) -> Any:
    """A field of the query that lists what is never more than a page."""

    async def resolve(info: Asked) -> list[Any]:
        context = context_of(info)
        async with context.connections:
            return (await context.acting.read(find)).items

    return strawberry.field(resolver=resolve, graphql_type=list[kind] | None, description=description)


def connection(entity: Entity, description: str = "Those that you may see.") -> Any:
    """A field of the query that lists what the actor may see."""
    filters = {**entity.filters, **entity.guarded_filters}

    async def resolve(info: Asked, **arguments: Any) -> Listed:
        context = context_of(info)
        query = _query(info, filters, arguments)
        async with context.connections:
            page = await context.acting.read(lambda work: entity.page(work, query))
        return _listed(page, query, entity)

    return _list_field(resolve, entity, filters, description, is_root=True)


def connection_of(
    entity: Entity, page: Callable[[PostgresWork, UUID, PageQuery], Awaitable[Page[Any]]], description: str
) -> Any:
    """A field of the query that lists what belongs to one thing, by rules that look at more than a reach."""

    async def resolve(info: Asked, id: UUID, **arguments: Any) -> Listed:  # noqa: A002
        context = context_of(info)
        query = _query(info, {}, arguments)
        async with context.connections:
            found = await context.acting.read(lambda work: page(work, id, query))
        return _listed(found, query, entity)

    return _list_field(resolve, entity, {}, description, is_root=True)


def reference(entity: Entity, column: str) -> Any:
    """A field that leads to the thing whose id a column holds; null when there is none that the actor may see."""

    async def resolve(root: strawberry.Parent[Any], info: Asked) -> Any:
        entity_id = getattr(root, column)
        return None if entity_id is None else await context_of(info).loaders.thing(entity, entity_id)

    return strawberry.field(
        resolver=resolve, graphql_type=node_of(entity) | None, description="Null when you may not see it."
    )


def list_of(entity: Entity, column: str) -> Any:
    """A field that lists those things whose column is the parent's id, as far as the actor may see them."""
    filters = {name: kind for name, kind in entity.filters.items() if name != column}

    async def resolve(root: strawberry.Parent[Any], info: Asked, **arguments: Any) -> Listed:
        query = _query(info, filters, arguments)
        page = await context_of(info).loaders.listed(entity, column, root.id, query)
        return _listed(page, query, entity)

    return _list_field(resolve, entity, filters, "Those of them that you may see.", is_root=False)


def _list_field(resolve: Any, entity: Entity, filters: Mapping[str, Any], description: str, *, is_root: bool) -> Any:
    given = inspect.signature(resolve).parameters.values()
    fixed = [one for one in given if one.kind is not inspect.Parameter.VAR_KEYWORD]
    paging: dict[str, tuple[Any, Any]] = {
        "first": (int, PAGE_LIMIT if is_root else NESTED_PAGE_LIMIT),
        **dict.fromkeys(("after", "sort", "search"), (str | None, strawberry.UNSET)),
        **{name: (kind | None, strawberry.UNSET) for name, kind in filters.items()},
    }
    taken = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in paging.items()
    ]
    resolve.__signature__ = inspect.Signature([*fixed, *taken])
    kind: Any = Connection[node_of(entity)]  # type: ignore[misc]
    return strawberry.field(resolver=resolve, graphql_type=kind | None if is_root else kind, description=description)


def _query(info: Info[Any, Any], filters: Mapping[str, Any], arguments: Mapping[str, Any]) -> PageQuery:
    given = {name: value for name, value in arguments.items() if value is not None and value is not strawberry.UNSET}
    first = given["first"]
    check_first(first)
    return PageQuery(
        limit=first,
        cursor=given.get("after"),
        sort=given.get("sort"),
        search=given.get("search"),
        filters={name: given[name] for name in filters if name in given},
        with_total=any(name == "totalCount" for name in _selected(info._raw_info)),
    )


def _selected(info: GraphQLResolveInfo[Any]) -> Iterator[str]:
    """The names of the fields that are asked of this one, through its fragments."""
    waiting: list[SelectionSetNode | None] = [node.selection_set for node in info.field_nodes]
    seen: set[str] = set()
    while waiting:
        for node in getattr(waiting.pop(), "selections", ()):
            match node:
                case FieldNode():
                    yield node.name.value
                case InlineFragmentNode():
                    waiting.append(node.selection_set)
                case FragmentSpreadNode() if node.name.value not in seen:
                    seen.add(node.name.value)
                    waiting.append(info.fragments[node.name.value].selection_set)


def _listed(page: Page[Any], query: PageQuery, entity: Entity) -> Listed:
    edges = [Row(cursor=entity.rows.cursor(query, item), node=item) for item in page.items]
    info = PageInfo(has_next_page=page.next_cursor is not None, end_cursor=edges[-1].cursor if edges else None)
    return Listed(edges=edges, page_info=info, total_count=page.total)
