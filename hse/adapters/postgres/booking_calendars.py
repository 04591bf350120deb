"""The calendars of areas in the database: who may give a link out, and what is shown to who holds it."""

import hmac
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.booking_tables import booking_calendars
from hse.adapters.postgres.stores import Transaction
from hse.adapters.tokens import hash_of
from hse.domain.booking.model import BookingStatus
from hse.domain.booking.ports import Part
from hse.domain.booking.views import BookingCalendar, CalendarToken
from hse.domain.work import Record

ENTITY = "booking_calendar"
COLUMNS = [booking_calendars.c[item.name] for item in fields(BookingCalendar)]
# How far back a calendar reaches, and how many stays it holds: first of all those that are to come.
SHOWN_FOR = timedelta(days=92)
STAYS_MAX = 2000

OPEN = sa.text("select * from hse_open_booking_calendar(:area_id)")
STAYS = sa.text("select * from hse_booking_calendar_stays(:area_id, :token_hash, :since, :stays_max)")


class BookingCalendars:
    """The calendars of areas that have a link."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def find(self, area_id: UUID) -> BookingCalendar | None:
        """That of an area that this transaction sees."""
        row = (
            await self._connection.execute(sa.select(*COLUMNS).where(booking_calendars.c.area_id == area_id))
        ).one_or_none()
        return None if row is None else BookingCalendar(**row._mapping)

    async def issue(self, area: Part, token: CalendarToken) -> BookingCalendar:
        """Let an area's calendar be read with this token and no other."""
        values: dict[str, Any] = {
            "area_id": area.id,
            "organization_id": area.organization_id,
            "establishment_id": area.establishment_id,
            "token_hash": token.token_hash,
            "created_by": self._transaction.actor_id,
            "created_at": sa.func.now(),
        }
        statement = insert(booking_calendars).values(values)
        again = statement.on_conflict_do_update(
            index_elements=["area_id"],
            set_={name: statement.excluded[name] for name in ("token_hash", "created_by", "created_at")},
        )
        row = (await self._connection.execute(again.returning(*COLUMNS))).one()
        issued = BookingCalendar(**row._mapping)
        await self._record("issue", issued)
        return issued

    async def revoke(self, before: BookingCalendar) -> None:
        """Let it be read by nobody."""
        where = booking_calendars.c.area_id == before.area_id
        await self._connection.execute(sa.delete(booking_calendars).where(where))
        await self._record("revoke", before)

    async def _record(self, verb: str, calendar: BookingCalendar) -> None:
        await self._transaction.record(
            Record(
                action=f"{ENTITY}.{verb}",
                entity_type=ENTITY,
                entity_id=str(calendar.area_id),
                organization_id=calendar.organization_id,
                establishment_id=calendar.establishment_id,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStay:
    """One stay, without whose it is."""

    booking_id: UUID
    check_in: datetime
    check_out: datetime
    status: BookingStatus
    updated_at: datetime
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What an area's calendar shows to who holds its link."""

    area_name: str
    establishment_name: str
    timezone: str
    stays: tuple[FeedStay, ...]


async def read_feed(connection: AsyncConnection, area_id: UUID, token: str, now: datetime) -> Feed | None:
    """What a link shows, in a transaction of nobody; None when it is none, or not any more."""
    row = (await connection.execute(OPEN, {"area_id": area_id})).one_or_none()
    token_hash = hash_of(token)
    # Where there is no calendar something is compared, too.
    if not hmac.compare_digest(bytes(32) if row is None else row.token_hash, token_hash) or row is None:
        return None
    given = {"area_id": area_id, "token_hash": token_hash, "since": now - SHOWN_FOR, "stays_max": STAYS_MAX}
    stays = tuple([FeedStay(**one._mapping) for one in await connection.execute(STAYS, given)])
    return Feed(area_name=row.area_name, establishment_name=row.establishment_name, timezone=row.timezone, stays=stays)
