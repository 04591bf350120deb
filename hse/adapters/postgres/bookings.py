"""Bookings in the database, which itself sees to it that they do not overlap, and what happened to them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hse.adapters.postgres.booking_tables import booking_history, bookings
from hse.adapters.postgres.reach import SiteScope, one_of
from hse.adapters.postgres.stores import FILTER, TableStore, record_of
from hse.adapters.postgres.tables import Timestamptz
from hse.domain.booking.model import Booking, BookingHistoryEntry, SlotTaken, Taken
from hse.domain.errors import Contended, DomainError, Stale
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach

NO_OVERLAP = "bookings_do_not_overlap"
SLOT = frozenset({"area_id", "check_in", "check_out", "free_from"})
# What may name the guest, or hold what he wrote: not for the audit log, which nothing is erased from.
UNTOLD = ("special_requests", "metadata", "cancellation_reason")

booking = bookings.c
KEPT = sa.func.tstzrange(booking.check_in, booking.free_from)


class BookingHistory(TableStore[BookingHistoryEntry]):
    """What happened to bookings."""

    entity = "booking_history_entry"
    table = booking_history
    view = BookingHistoryEntry
    scope = SiteScope(booking_history.c.organization_id, booking_history.c.establishment_id)
    sorts = ("id",)
    searched = ("action",)


class Bookings(TableStore[Booking]):
    """The bookings."""

    entity = "booking"
    table = bookings
    view = Booking
    scope = SiteScope(booking.organization_id, booking.establishment_id)
    sorts = ("check_in", "check_out", "created_at", "updated_at")
    searched = ("confirmation_code",)
    constraints: ClassVar[Mapping[str, str]] = {"bookings_guest_was_erased": "guest_id"}

    async def add(self, values: Mapping[str, Any]) -> Booking:
        """Add a booking; raises `SlotTaken` where another one is in its way.

        The database compares and adds in one step, and refuses without ending the transaction, which then looks who was first.
        """
        statement = insert(bookings).values(**values).on_conflict_do_nothing(constraint=NO_OVERLAP)
        row = (await self._execute(statement.returning(*self.columns()))).one_or_none()
        if row is None:
            raise await self._slot_taken(values, None)
        after = self._view(row)
        await self._record("create", None, after)
        return after

    async def change(self, before: Booking, changes: Mapping[str, Any], *, version: int | None = None) -> Booking:
        """Change a booking. Raises `SlotTaken`, `Stale`, `Invalid`."""
        if not changes.keys() & SLOT:
            return await super().change(before, changes, version=version)
        try:
            async with self._connection.begin_nested():
                return await super().change(before, changes, version=version)
        except sa.exc.IntegrityError as error:
            if not isinstance(error.orig, psycopg.errors.ExclusionViolation):
                raise
            wanted = {name: changes.get(name, getattr(before, name)) for name in SLOT}
            raise await self._slot_taken(wanted, before.id) from error

    async def remove(self, before: Booking) -> None:
        """Delete a booking that is as it was read. Raises `Stale`."""
        statement = sa.delete(bookings).where(booking.id == before.id, booking.version == before.version)
        if (await self._execute(statement)).rowcount == 0:
            raise Stale(self.entity)
        await self._record("delete", before, None)

    async def history(self, booking_id: UUID, reach: Reach, query: PageQuery) -> Page[BookingHistoryEntry]:
        """A page of what happened to a booking, also to one that was deleted."""
        return await BookingHistory(self._transaction).page(reach, replace(query, filters={"booking_id": booking_id}))

    async def taken(self, area_ids: Sequence[UUID], since: datetime, until: datetime) -> dict[UUID, list[Taken]]:
        """When these areas are taken by bookings that touch the period, in order."""
        statement = (
            sa.select(booking.area_id, booking.check_in, booking.check_out, booking.free_from)
            .where(one_of(booking.area_id, area_ids), self._keeps(since, until))
            .order_by(booking.check_in)
        )
        taken: dict[UUID, list[Taken]] = {}
        for row in await self._execute(statement):
            one = Taken(check_in=row.check_in, check_out=row.check_out, free_from=row.free_from)
            taken.setdefault(row.area_id, []).append(one)
        return taken

    async def _slot_taken(self, wanted: Mapping[str, Any], but_id: UUID | None) -> SlotTaken:
        """The refusal, with the first stay that is in the way: one of the same area, so whoever books there may know when it is."""
        statement = (
            sa.select(booking.check_in, booking.check_out, booking.free_from)
            .where(booking.area_id == wanted["area_id"], self._keeps(wanted["check_in"], wanted["free_from"]))
            .where(sa.true() if but_id is None else booking.id != but_id)
            .order_by(booking.check_in)
            .limit(1)
        )
        row = (await self._connection.execute(statement)).one_or_none()
        return SlotTaken(wanted["area_id"], None if row is None else Taken(**row._mapping))

    @staticmethod
    def _keeps(since: datetime, until: datetime) -> sa.ColumnElement[bool]:
        period = sa.func.tstzrange(sa.literal(since, Timestamptz), sa.literal(until, Timestamptz))
        return sa.and_(KEPT.op("&&")(period), booking.status != "cancelled")

    def _conditions(self, query: PageQuery) -> list[sa.ColumnElement[bool]]:
        """`from` and `to` are for stays that lie in that period, or reach into it."""
        filters = dict(query.filters)
        at_from, at_to = filters.pop("from", None), filters.pop("to", None)
        conditions = super()._conditions(replace(query, filters=filters))
        if at_from is not None:
            conditions.append(booking.check_out > sa.bindparam(f"{FILTER}from", at_from, Timestamptz))
        if at_to is not None:
            conditions.append(booking.check_in < sa.bindparam(f"{FILTER}to", at_to, Timestamptz))
        return conditions

    def _refusal(self, error: Exception) -> DomainError | None:
        original = getattr(error, "orig", error)
        if isinstance(original, psycopg.errors.UniqueViolation):
            # Of two confirmation codes that are the same by chance: sent again, it gets another.
            return Contended()
        return super()._refusal(error)

    async def _record(self, verb: str, before: Booking | None, after: Booking | None) -> None:
        told = record_of(self.entity, verb, before, after)
        kept = [
            None if view is None else {name: value for name, value in view.items() if name not in UNTOLD}
            for view in (told.before, told.after)
        ]
        await self._transaction.record(replace(told, before=kept[0], after=kept[1]))
