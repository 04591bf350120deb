"""Guests in the database. A store of them shows each as its transaction's actor may see him."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hse.adapters.postgres.booking_tables import bookings, guest_companions, guests
from hse.adapters.postgres.pages import Order
from hse.adapters.postgres.reach import SiteScope, one_of
from hse.adapters.postgres.stores import ActorTransaction, TableStore, record_of
from hse.domain.booking.views import SEE_PERSONAL_DATA, Companion, Guest, GuestStillExpected
from hse.domain.errors import Contended, DomainError, Stale
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import Record

ERASED: dict[str, Any] = {
    "first_name": "",
    "last_name": "",
    "email": None,
    "phone": None,
    "document_type": None,
    "document_number": None,
    "country": None,
    "metadata": {},
}
# Who lists by these learns what they hold.
PERSONAL_SORTS, PERSONAL_FILTERS = frozenset({"first_name", "last_name"}), frozenset({"email", "document_number"})

companion = guest_companions.c


@dataclass(frozen=True, slots=True)
class GuestScope:
    """A guest is where he was registered, and wherever he has a booking."""

    registered: SiteScope
    booked: SiteScope

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a guest within the reach meets."""
        if reach.is_everything:
            return sa.true()
        is_booked = sa.exists().where(bookings.c.guest_id == guests.c.id, self.booked.within(reach))
        return sa.or_(self.registered.within(reach), is_booked.correlate_except(bookings))


class Guests(TableStore[Guest]):
    """The guests."""

    entity = "guest"
    table = guests
    view = Guest
    scope = GuestScope(
        SiteScope(guests.c.organization_id, guests.c.establishment_id),
        SiteScope(bookings.c.organization_id, bookings.c.establishment_id),
    )
    sorts = ("created_at", "updated_at", "first_name", "last_name")
    searched = ("first_name", "last_name", "email", "phone", "document_number")
    constraints: ClassVar[Mapping[str, str]] = {"guests_document_is_whole": "document_number"}
    computed: ClassVar[Mapping[str, sa.ColumnElement[Any]]] = {"is_masked": sa.false()}

    def __init__(self, transaction: ActorTransaction) -> None:
        super().__init__(transaction)
        self._personal = transaction.actor.reach(SEE_PERSONAL_DATA)

    async def find(self, entity_id: UUID, reach: Reach) -> Guest | None:
        """The guest within the reach; None when there is none."""
        found = await super().find(entity_id, reach)
        return None if found is None else (await self._shown([found], reach))[0]

    async def find_many(self, entity_ids: list[UUID], reach: Reach) -> dict[UUID, Guest]:
        """Those of the guests that are within the reach, by id."""
        found = await super().find_many(entity_ids, reach)
        return {one.id: one for one in await self._shown([*found.values()], reach)}

    async def page(self, reach: Reach, query: PageQuery) -> Page[Guest]:
        """A page of the guests within the reach. Raises `Invalid`."""
        page = await super().page(reach, query)
        return replace(page, items=await self._shown(page.items, reach))

    async def pages_of(
        self, column: str, parent_ids: list[UUID], reach: Reach, query: PageQuery
    ) -> dict[UUID, Page[Guest]]:
        """For each parent the page of its guests."""
        pages = await super().pages_of(column, parent_ids, reach, query)
        return {
            parent_id: replace(page, items=await self._shown(page.items, reach)) for parent_id, page in pages.items()
        }

    async def add(self, values: Mapping[str, Any]) -> Guest:
        """Add a guest. Raises `Invalid`."""
        return (await self._shown([await super().add(values)], None))[0]

    async def change(self, before: Guest, changes: Mapping[str, Any], *, version: int | None = None) -> Guest:
        """Change a guest. Raises `Stale`, `Invalid`."""
        return (await self._shown([await super().change(before, changes, version=version)], None))[0]

    async def erase(self, before: Guest, now: datetime) -> Guest:
        """Empty the row of a guest; what others hold of him goes with it, by triggers. Raises `GuestStillExpected`, `Stale`."""
        statement = (
            sa.update(guests)
            .where(guests.c.id == before.id, guests.c.version == before.version)
            .values(erased_at=now, **ERASED)
            .returning(*self.columns())
        )
        row = (await self._execute(statement)).one_or_none()
        if row is None:
            raise Stale(self.entity)
        after = self._view(row)
        await self._record("erase", before, after)
        return (await self._shown([after], None))[0]

    async def companions(self, guest_id: UUID, reach: Reach) -> list[Companion]:
        """Who accompanies a guest and is within the reach."""
        statement = (
            sa.select(companion.guest_id, companion.companion_id, companion.relationship, companion.added_at)
            .join(guests, guests.c.id == companion.companion_id)
            .where(companion.guest_id == guest_id, self.scope.within(reach))
            .order_by(companion.added_at, companion.companion_id)
        )
        return [Companion(**row._mapping) for row in await self._execute(statement)]

    async def join(self, guest: Guest, companion: Guest, relationship: str, inverse: str) -> Companion:
        """Have two guests accompany each other, or say anew what they are to each other."""
        pairs = sorted([(guest.id, companion.id, relationship), (companion.id, guest.id, inverse)])
        rows = [
            {"guest_id": one, "companion_id": other, "relationship": word, "organization_id": guest.organization_id}
            for one, other, word in pairs
        ]
        statement = insert(guest_companions).values(rows)
        said = statement.on_conflict_do_update(
            index_elements=["guest_id", "companion_id"], set_={"relationship": statement.excluded.relationship}
        )
        kept = said.returning(*(guest_companions.c[name] for name in Companion.__dataclass_fields__))
        (joined,) = [row for row in await self._execute(kept) if row.guest_id == guest.id]
        told = {"companion_id": str(companion.id), "relationship": relationship}
        await self._transaction.record(replace(self._of(guest, "join"), after=told))
        return Companion(**joined._mapping)

    async def part(self, guest: Guest, companion_id: UUID) -> bool:
        """Have two guests not accompany each other any more; False when they did not."""
        pair = sa.or_(
            sa.and_(companion.guest_id == guest.id, companion.companion_id == companion_id),
            sa.and_(companion.guest_id == companion_id, companion.companion_id == guest.id),
        )
        if (await self._execute(sa.delete(guest_companions).where(pair))).rowcount == 0:
            return False
        await self._transaction.record(replace(self._of(guest, "part"), before={"companion_id": str(companion_id)}))
        return True

    async def _shown(self, found: Sequence[Guest], reach: Reach | None) -> list[Guest]:
        """The guests as the actor may see them. Those of a reach that is also that of personal data are seen as they are."""
        if not found or self._personal.is_everything or reach == self._personal:
            return [*found]
        open_ids = set() if self._personal.is_nowhere else await self._within_personal(one.id for one in found)
        return [one if one.id in open_ids else one.masked() for one in found]

    async def _within_personal(self, guest_ids: Iterable[UUID]) -> set[UUID]:
        where = (one_of(guests.c.id, guest_ids), self.scope.within(self._personal))
        return set((await self._connection.execute(sa.select(guests.c.id).where(*where))).scalars())

    def _is_by_personal_data(self, query: PageQuery) -> bool:
        is_sorted_by = (query.sort or "").removeprefix("-") in PERSONAL_SORTS
        return bool(query.search) or is_sorted_by or not PERSONAL_FILTERS.isdisjoint(query.filters)

    def _conditions(self, query: PageQuery) -> list[sa.ColumnElement[bool]]:
        """Who looks by personal data finds those only whose personal data he may read."""
        conditions = super()._conditions(query)
        return [*conditions, self.scope.within(self._personal)] if self._is_by_personal_data(query) else conditions

    def _listing(self, reach: Reach, query: PageQuery, order: Order) -> tuple[sa.Executable, dict[str, Any] | None]:
        # A statement that is kept for others has room for one reach.
        if self._is_by_personal_data(query):
            return self._statement(reach, query, order), None
        return super()._listing(reach, query, order)

    def _refusal(self, error: Exception) -> DomainError | None:
        original = getattr(error, "orig", error)
        if isinstance(original, psycopg.errors.CheckViolation) and original.diag.constraint_name == "guests_expected":
            return GuestStillExpected()
        if isinstance(original, psycopg.errors.ForeignKeyViolation):
            return Contended()
        return super()._refusal(error)

    async def _record(self, verb: str, before: Guest | None, after: Guest | None) -> None:
        """Nothing is erased from the audit log, so it never holds anything personal; it names what changed."""
        shown = [None if one is None else one.masked() for one in (before, after)]
        told = record_of(self.entity, verb, *shown)
        if before is not None and after is not None and verb == "update":
            names = [name for name in ERASED if getattr(before, name) != getattr(after, name)]
            told = replace(told, after={**(told.after or {}), "changed": names})
        await self._transaction.record(told)

    def _of(self, guest: Guest, verb: str) -> Record:
        return Record(
            action=f"{self.entity}.{verb}",
            entity_type=self.entity,
            entity_id=str(guest.id),
            organization_id=guest.organization_id,
            establishment_id=guest.establishment_id,
        )
