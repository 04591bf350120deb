"""The rows of one entity: found within a reach, listed in pages, changed with their audit entry in the same transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast
from uuid import UUID

import msgspec
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres import pages
from hse.adapters.postgres.pages import Order, encode_cursor, ordered, parse_order
from hse.adapters.postgres.reach import ANY_REACH, Scope, one_of, parameters_of
from hse.domain.errors import DomainError, InUse, Invalid, Stale, Taken
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import EVERYWHERE, Actor, Reach
from hse.domain.work import Record

V = TypeVar("V")

UNSHOWN = object()
SEARCH, FILTER = "search", "filter_"

# The statements of pages, by all that decides how they are put together; None for one that must be made anew each time.
LISTINGS: dict[Any, sa.Select[Any] | None] = {}
LISTINGS_MAX = 1000


class Transaction(Protocol):
    """What stores need of the transaction that they belong to."""

    connection: AsyncConnection

    @property
    def actor_id(self) -> UUID:
        """Who is written down as the one who did it."""

    async def record(self, record: Record) -> None:
        """Write to the audit log."""


class ActorTransaction(Transaction, Protocol):
    """What stores need that ask for the actor himself."""

    actor: Actor


class TableStore(Generic[V]):
    """One entity's rows; a subclass says which table, which view, and what its scope, orders and constraints are."""

    entity: ClassVar[str]
    table: ClassVar[sa.Table]
    view: ClassVar[type[Any]]
    scope: ClassVar[Scope]
    # By which columns a list can be sorted, none of which is null; the first is the default unless another one is named.
    sorts: ClassVar[tuple[str, ...]] = ("name", "created_at", "updated_at")
    default_sort: ClassVar[str | None] = None
    # In which columns a search looks.
    searched: ClassVar[tuple[str, ...]] = ("name",)
    # Which field is at fault when a constraint refuses a row.
    constraints: ClassVar[Mapping[str, str]] = {}
    # Fields of the view that are no column of the table as it stands, but are made from some.
    computed: ClassVar[Mapping[str, sa.ColumnElement[Any]]] = {}

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    @classmethod
    def columns(cls) -> list[sa.ColumnElement[Any]]:
        """The columns of the view, which have its fields' names."""
        return [
            cls.computed[item.name].label(item.name) if item.name in cls.computed else cls.table.c[item.name]
            for item in fields(cls.view)
        ]

    @classmethod
    def shown(cls, reach: Reach) -> list[sa.ColumnElement[Any]]:  # noqa: ARG003 (for those that do)
        """The columns of the view as they are told to who has this reach."""
        return cls.columns()

    async def find(self, entity_id: UUID, reach: Reach) -> V | None:
        """The row within the reach; None when there is none."""
        statement = sa.select(*self.shown(reach)).where(self.table.c.id == entity_id, self.scope.within(reach))
        row = (await self._connection.execute(statement)).one_or_none()
        return None if row is None else self._view(row)

    async def find_many(self, entity_ids: list[UUID], reach: Reach) -> dict[UUID, V]:
        """Those of the rows that are within the reach, by id; for data loaders."""
        statement = sa.select(*self.shown(reach)).where(one_of(self.table.c.id, entity_ids), self.scope.within(reach))
        rows = await self._connection.execute(statement)
        return {row.id: self._view(row) for row in rows}

    async def page(self, reach: Reach, query: PageQuery) -> Page[V]:
        """A page of the rows within the reach. Raises `Invalid`."""
        order = self._order(query)
        statement, parameters = self._listing(reach, query, order)
        rows = (await self._execute(statement, parameters)).all()
        total = None
        if query.with_total:
            where = [self.scope.within(reach), *self._conditions(query)]
            count = sa.select(sa.func.count()).select_from(self.table).where(*where)
            total = (await self._execute(count)).scalar_one()
        return self._page(rows, query, order, total)

    def _listing(self, reach: Reach, query: PageQuery, order: Order) -> tuple[sa.Executable, dict[str, Any] | None]:
        """The statement of a page, made anew only when none of its shape was made before; and its parameters."""
        shape = (
            type(self),
            reach.is_everything,
            (order.name, order.is_descending, order.after is None),
            bool(query.search),
            tuple((name, value is None) for name, value in query.filters.items()),
        )
        parameters = self._parameters(reach, query, order)
        if shape not in LISTINGS and len(LISTINGS) < LISTINGS_MAX:
            statement = self._statement(EVERYWHERE if reach.is_everything else ANY_REACH, query, order)
            # Only when all that differs from one request to the next is a parameter: what has no name stays as it was.
            can_be_kept = statement.compile().params.keys() <= parameters.keys()
            LISTINGS[shape] = statement.execution_options(is_kept=True) if can_be_kept else None
        kept = LISTINGS.get(shape)
        return (self._statement(reach, query, order), None) if kept is None else (kept, parameters)

    def _statement(self, reach: Reach, query: PageQuery, order: Order) -> sa.Select[Any]:
        statement = sa.select(*self.shown(reach)).where(self.scope.within(reach), *self._conditions(query))
        return ordered(statement, order, self.table.c[order.name], self.table.c.id, query.limit)

    def _parameters(self, reach: Reach, query: PageQuery, order: Order) -> dict[str, Any]:
        """The parameters of the statement of a page, by their names; it may use fewer."""
        parameters = {**parameters_of(reach), **pages.parameters_of(order, query.limit)}
        for name, value in query.filters.items():
            parameters[FILTER + name] = value
        if query.search:
            parameters[SEARCH] = _escaped(query.search)
        return parameters

    async def pages_of(
        self, column: str, parent_ids: list[UUID], reach: Reach, query: PageQuery
    ) -> dict[UUID, Page[V]]:
        """For each parent the page of the rows whose `column` names it. Raises `Invalid`.

        One statement for all of them, which reads no more than a page from each; with totals it is two.
        """
        order = self._order(query)
        parent_array = sa.cast(sa.literal(parent_ids, ARRAY(sa.Uuid)), ARRAY(sa.Uuid))
        parents = sa.func.unnest(parent_array).table_valued(sa.column("id", sa.Uuid), name="parents").render_derived()
        where = [self._belongs(column, parents.c.id), self.scope.within(reach), *self._conditions(query)]
        of_parent = sa.select(*self.shown(reach)).where(*where).correlate(parents)
        listed = ordered(of_parent, order, self.table.c[order.name], self.table.c.id, query.limit).lateral("listed")
        key = (listed.c[order.name], listed.c.id)
        statement = (
            sa.select(*listed.c, parents.c.id.label("parent"))
            .select_from(sa.join(parents, listed, sa.true()))
            .order_by(*(one.desc() if order.is_descending else one.asc() for one in key))
        )
        rows_of: dict[UUID, list[sa.Row[Any]]] = {}
        for row in await self._execute(statement):
            rows_of.setdefault(row.parent, []).append(row)
        totals: dict[UUID, int] = {}
        if query.with_total:
            count = sa.select(sa.func.count()).select_from(self.table).where(*where).correlate(parents)
            rows = await self._execute(sa.select(parents.c.id.label("parent"), count.scalar_subquery().label("total")))
            totals = {row.parent: row.total for row in rows}
        return {
            parent_id: self._page(rows_of.get(parent_id, []), query, order, totals.get(parent_id))
            for parent_id in parent_ids
        }

    @classmethod
    def cursor(cls, query: PageQuery, item: V) -> str:
        """The cursor behind an item of a page."""
        order = cls._order(query)
        return encode_cursor(order, getattr(item, order.name), cast("Any", item).id)

    async def add(self, values: Mapping[str, Any]) -> V:
        """Add a row. Raises `Taken`, `Invalid`."""
        statement = sa.insert(self.table).values(**values).returning(*self.columns())
        after = self._view((await self._execute(statement)).one())
        await self._record("create", None, after)
        return after

    async def change(self, before: V, changes: Mapping[str, Any], *, version: int | None = None) -> V:
        """Change a row that nobody changed since it was read; no change writes nothing. Raises `Taken`, `Stale`, `Invalid`."""
        known: Any = before
        if version is not None and version != known.version:
            raise Stale(self.entity)
        # What the view does not show, such as a token's hash, is taken for changed.
        changes = {name: value for name, value in changes.items() if getattr(known, name, UNSHOWN) != value}
        if not changes:
            return before
        statement = (
            sa.update(self.table)
            .where(self.table.c.id == known.id, self.table.c.version == known.version)
            .values(**changes)
            .returning(*self.columns())
        )
        row = (await self._execute(statement)).one_or_none()
        if row is None:
            raise Stale(self.entity)
        after = self._view(row)
        await self._record("update", before, after)
        return after

    async def remove(self, before: V) -> None:
        """Delete a row. Raises `InUse`."""
        known: Any = before
        try:
            await self._connection.execute(sa.delete(self.table).where(self.table.c.id == known.id))
        except sa.exc.IntegrityError as error:
            raise InUse(self.entity, _table_at_fault(error)) from error
        await self._record("delete", before, None)

    @classmethod
    def _order(cls, query: PageQuery) -> Order:
        sorts = {name: cls.table.c[name] for name in cls.sorts}
        return parse_order(query, sorts, cls.default_sort or cls.sorts[0], cls.table.c.id)

    def _page(self, rows: Sequence[sa.Row[Any]], query: PageQuery, order: Order, total: int | None) -> Page[V]:
        """The page that begins with these rows; one more than its limit says that there is another."""
        next_cursor = None
        if len(rows) > query.limit:
            last = rows[query.limit - 1]
            next_cursor = encode_cursor(order, getattr(last, order.name), last.id)
        return Page(items=[self._view(row) for row in rows[: query.limit]], next_cursor=next_cursor, total=total)

    def _view(self, row: sa.Row[Any]) -> V:
        # The columns of the view come first, in the order of its fields.
        view: V = self.view(**dict(zip(self.view.__dataclass_fields__, row, strict=False)))
        return view

    def _belongs(self, column: str, parent: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The condition that a row belongs to a parent: that `column` names it."""
        return self.table.c[column] == parent

    def _conditions(self, query: PageQuery) -> list[sa.ColumnElement[bool]]:
        conditions = [_equals(self.table.c[name], value) for name, value in query.filters.items()]
        if query.search:
            wanted = sa.bindparam(SEARCH, _escaped(query.search), sa.Text)
            conditions.append(sa.or_(*(self.table.c[name].icontains(wanted, escape="/") for name in self.searched)))
        return conditions

    async def _execute(
        self, statement: sa.Executable, parameters: dict[str, Any] | None = None
    ) -> sa.CursorResult[Any]:
        try:
            return await self._connection.execute(statement, parameters)
        except (sa.exc.DBAPIError, UnicodeEncodeError) as error:
            refusal = self._refusal(error)
            if refusal is None:
                raise
            raise refusal from error

    def _refusal(self, error: Exception) -> DomainError | None:
        """What the database's refusal says to the caller; None when it is not his doing."""
        original = getattr(error, "orig", error)
        if isinstance(original, psycopg.errors.UniqueViolation):
            name = original.diag.constraint_name or ""
            return Taken(self.entity, self.constraints.get(name, "name"))
        if isinstance(original, psycopg.errors.ForeignKeyViolation | psycopg.errors.CheckViolation):
            name = original.diag.constraint_name or ""
            return Invalid(self.constraints.get(name, self.entity), "does not fit with the rest: it breaks " + name)
        if isinstance(original, psycopg.DataError | UnicodeEncodeError):
            # A NUL or half a character, a number too large: nothing that could be stored, and nothing to be found by it either.
            return Invalid(self.entity, "holds a character or a number that cannot be stored")
        return None

    async def _record(self, verb: str, before: V | None, after: V | None) -> None:
        await self._transaction.record(record_of(self.entity, verb, before, after))


def _equals(column: sa.Column[Any], value: object) -> sa.ColumnElement[bool]:
    return column.is_(None) if value is None else column == sa.bindparam(FILTER + column.name, value, column.type)


def _escaped(search: str) -> str:
    """What stands for itself in a LIKE with "/" as its escape."""
    return search.replace("/", "//").replace("%", "/%").replace("_", "/_")


def record_of(entity: str, verb: str, before: Any, after: Any) -> Record:
    """The line of the audit log for what was done to a thing: its views before and after."""
    known: Any = after if after is not None else before
    is_partner = entity == "partner_company"
    return Record(
        action=f"{entity}.{verb}",
        entity_type=entity,
        entity_id=str(known.id),
        partner_company_id=known.id if is_partner else getattr(known, "partner_company_id", None),
        organization_id=known.id if entity == "organization" else getattr(known, "organization_id", None),
        establishment_id=known.id if entity == "establishment" else getattr(known, "establishment_id", None),
        before=plain(before),
        after=plain(after),
    )


def plain(view: Any) -> dict[str, Any] | None:
    """A view as JSON holds it."""
    return None if view is None else msgspec.to_builtins(view)


def _table_at_fault(error: sa.exc.IntegrityError) -> str:
    name = error.orig.diag.table_name if isinstance(error.orig, psycopg.Error) else None
    return (name or "other things").replace("_", " ")
