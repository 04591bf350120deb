"""Stores that find and change rows in memory, and write many of them in one statement when they are told to."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from hse.adapters.postgres.device_profiles import DeviceProfiles
from hse.adapters.postgres.devices import Devices
from hse.adapters.postgres.organizations import Areas, Establishments, Organizations
from hse.adapters.postgres.people import People
from hse.adapters.postgres.reach import one_of
from hse.adapters.postgres.stores import TableStore, Transaction
from hse.adapters.postgres.tables import establishments
from hse.domain.devices.model import Device, DeviceToken
from hse.domain.devices.profile_views import DeviceProfile
from hse.domain.errors import Stale
from hse.domain.organizations.model import Area, Establishment, Organization
from hse.domain.policy import EVERYWHERE, Actor, Reach
from hse.domain.work import Record

V = TypeVar("V")

# So many views are made before others on the event loop get their turn.
VIEWS_A_TURN = 100


@dataclass(slots=True, kw_only=True)
class Update:
    """Columns of one row that change, while it has this version."""

    store: "BufferedStore[Any]"
    id: UUID
    version: int
    values: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class RowChanges:
    """What one row of the table did."""

    line: int
    added: list[tuple["BufferedStore[Any]", dict[str, Any]]] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    # Establishments that the actor does not reach until he is assigned there.
    expected: list[UUID] = field(default_factory=list)
    assigned: list[tuple[UUID, UUID]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)


class Buffer(Transaction, Protocol):
    """What these stores need of the transaction that they belong to."""

    actor: Actor
    # What now() is in this transaction, and so the time that the database writes into the rows.
    began_at: datetime
    # Where the row that is being done notes what it does.
    row: RowChanges

    def new_id(self) -> UUID:
        """An id that nothing has."""

    async def give_way(self) -> None:
        """Let others have their turn."""


class BufferedStore(TableStore[V]):
    """Rows that are found and changed in memory."""

    # What the database puts into columns that nobody names.
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, work: Buffer) -> None:
        super().__init__(work)
        self._work = work
        self._views: dict[UUID, Any] = {}

    async def load(self, reach: Reach, *where: sa.ColumnElement[bool]) -> list[V]:
        """Look rows up, and have them in memory."""
        statement = sa.select(*self.columns()).where(self.scope.within(reach), *where)
        found: list[V] = []
        for row in await self._execute(statement):
            if len(found) % VIEWS_A_TURN == 0:
                await self._work.give_way()
            found.append(self._view(row))
        self._views.update({view.id: view for view in found})  # type: ignore[attr-defined]
        return found

    async def find(self, entity_id: UUID, reach: Reach) -> V | None:
        """The row within the reach, as the rows before left it."""
        if entity_id not in self._views:
            self._views[entity_id] = await super().find(entity_id, EVERYWHERE)
        found = self._views[entity_id]
        return found if found is not None and found.is_within(reach) else None

    async def add(self, values: Mapping[str, Any]) -> V:
        """Add a row. What the database has against it is said by the flush."""
        values = {"id": self._work.new_id(), **values}
        times = {"created_at": self._work.began_at, "updated_at": self._work.began_at}
        after: V = self.view(**{**self.defaults, **values, **times, "version": 1})
        self._put(values["id"], after)
        self._work.row.added.append((self, values))
        await self._record("create", None, after)
        return after

    async def change(self, before: V, changes: Mapping[str, Any], *, version: int | None = None) -> V:
        """Change a row; no change writes nothing. What the database has against it is said by the flush."""
        if version is not None and version != before.version:  # type: ignore[attr-defined]
            raise Stale(self.entity)
        changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
        if not changed:
            return before
        return await self._update("update", before, changed, changed)

    async def _update(self, verb: str, before: V, seen: Mapping[str, Any], kept: Mapping[str, Any]) -> V:
        """`seen` is what changes of the view, `kept` what changes of the row."""
        known: Any = before
        after: V = replace(known, **seen, version=known.version + 1, updated_at=self._work.began_at)
        self._put(known.id, after)
        self._work.row.updates.append(Update(store=self, id=known.id, version=known.version, values=dict(kept)))
        await self._record(verb, before, after)
        return after

    def _put(self, entity_id: UUID, view: V) -> None:
        before = self._views.get(entity_id)
        self._views[entity_id] = view

        def undo() -> None:
            self._views[entity_id] = before

        self._work.row.undo.append(undo)

    async def write_added(self, rows: list[dict[str, Any]]) -> None:
        """Add rows that have the same columns. Raises `Taken`, `Invalid`."""
        await self._execute(insert_many(self.table, rows))

    async def write_updates(self, updates: list[Update]) -> None:
        """Change rows, the same columns of each. Raises `Taken`, `Invalid`, `Stale`."""
        rows = [{"id": one.id, "version": one.version, **one.values} for one in updates]
        given = _given(self.table, rows)
        statement = (
            sa.update(self.table)
            .where(self.table.c.id == given.c.id, self.table.c.version == given.c.version)
            .values({name: given.c[name] for name in updates[0].values})
        )
        if (await self._execute(statement)).rowcount != len(rows):
            raise Stale(self.entity)


class BufferedOrganizations(BufferedStore[Organization], Organizations):
    """The organisations; an import makes none."""


class BufferedEstablishments(BufferedStore[Establishment], Establishments):
    """The establishments."""

    defaults: ClassVar[Mapping[str, Any]] = {"is_active": True}

    async def expect(self, establishment_id: UUID) -> None:
        """Bring an establishment into reach before it is written."""
        self._work.row.expected.append(establishment_id)


class BufferedAreas(BufferedStore[Area], Areas):
    """The areas, with the tree of each establishment."""

    def __init__(self, work: Buffer) -> None:
        super().__init__(work)
        self._locked: set[UUID] = set()
        self._trees: dict[UUID, dict[UUID, UUID | None]] = {}

    async def load(self, reach: Reach, *where: sa.ColumnElement[bool]) -> list[Area]:
        """Look areas up, and have them and their trees in memory."""
        found = await super().load(reach, *where)
        for area in found:
            self._trees.setdefault(area.establishment_id, {})[area.id] = area.parent_area_id
        return found

    async def lock_many(self, establishment_ids: Collection[UUID]) -> None:
        """Lock trees, in one order, so that two imports do not wait for each other."""
        await self._connection.execute(
            sa.select(establishments.c.id)
            .where(one_of(establishments.c.id, establishment_ids))
            .order_by(establishments.c.id)
            .with_for_update(key_share=True)
        )
        self._locked.update(establishment_ids)

    async def lock_tree(self, establishment_id: UUID) -> Mapping[UUID, UUID | None]:
        """Each area of the establishment and its parent, as the rows before left them."""
        if establishment_id not in self._locked:
            # Made by this import, or not looked up with the others.
            self._locked.add(establishment_id)
            self._trees[establishment_id] = dict(await super().lock_tree(establishment_id))
        return self._trees.setdefault(establishment_id, {})

    async def add(self, values: Mapping[str, Any]) -> Area:
        """Add an area, to its tree as well."""
        after = await super().add(values)
        tree = self._trees.setdefault(after.establishment_id, {})
        tree[after.id] = after.parent_area_id

        def undo() -> None:
            del tree[after.id]

        self._work.row.undo.append(undo)
        return after


class BufferedDeviceProfiles(BufferedStore[DeviceProfile], DeviceProfiles):
    """The profiles of devices; an import makes none."""


class BufferedDevices(BufferedStore[Device], Devices):
    """The devices."""

    defaults: ClassVar[Mapping[str, Any]] = {"status": "offline", "has_token": False}

    async def has_children(self, device_id: UUID) -> bool:
        """Whether it speaks for others, those of rows before included."""
        if any(view is not None and view.gateway_id == device_id for view in self._views.values()):
            return True
        return await super().has_children(device_id)

    async def keep_token(self, before: Device, token: DeviceToken | None) -> Device:
        """Let a device connect with this token and no other; with None, not at all."""
        kept = {"token_hash": None if token is None else f"\\x{token.sha256.hex()}"}
        verb = "revoke_token" if token is None else "issue_token"
        return await self._update(verb, before, {"has_token": token is not None}, kept)


class BufferedPeople(People):
    """The users, as far as an import is concerned: who makes an establishment may work there, from the next row on."""

    def __init__(self, work: Buffer) -> None:
        super().__init__(work)
        self._work = work

    async def assign(self, user_id: UUID, establishment_id: UUID) -> None:
        """Let a user work at an establishment with his own role."""
        work, actor = self._work, self._work.actor
        work.row.assigned.append((user_id, establishment_id))
        if user_id == actor.user_id:
            work.actor = replace(actor, establishments={**actor.establishments, establishment_id: None})
            work.row.undo.append(lambda: setattr(work, "actor", actor))


def insert_many(table: sa.Table, rows: list[dict[str, Any]]) -> sa.Insert:
    """The statement that adds rows with the same columns, however many there are: one parameter, one text."""
    given = _given(table, rows)
    names = list(rows[0])
    return sa.insert(table).from_select(names, sa.select(*(given.c[name] for name in names)), include_defaults=False)


def _given(table: sa.Table, rows: list[dict[str, Any]]) -> sa.TableValuedAlias:
    """Rows as a table, by way of JSON: the database reads each value as its column's type would be read."""
    text = msgspec.json.encode(rows).decode()
    return (
        sa.func.jsonb_populate_recordset(
            sa.literal_column(f"null::{table.name}"), sa.cast(sa.literal(text, sa.Text), JSONB)
        )
        .table_valued(*(sa.column(column.name, column.type) for column in table.c))
        .alias("given")
    )
