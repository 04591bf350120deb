"""The settings of establishments in the database: a row each, made by a trigger together with the establishment."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa

from hse.adapters.postgres.booking_tables import booking_settings
from hse.adapters.postgres.stores import Transaction, plain
from hse.domain.booking.views import BookingSettings
from hse.domain.errors import Contended, NotFound, Stale
from hse.domain.work import Record

ENTITY = "booking_settings"
COLUMNS = [booking_settings.c[item.name] for item in fields(BookingSettings)]
MARGINS = ("check_in_margin_minutes", "check_out_margin_minutes")

# How long each area is kept free behind what is booked and not over: as long as the settings say now, or until the next stay begins
# where that is sooner, for that one was booked when it still fitted.
KEEP_FREE = sa.text(
    """
    with following as (
        select id, check_out, lead(check_in) over (partition by area_id order by check_in) as next_check_in
          from bookings
         where establishment_id = :establishment_id and status <> 'cancelled'
    ), kept as (
        select id, least(check_out + cast(:gap as interval), next_check_in) as free_from from following
    )
    update bookings set free_from = kept.free_from
      from kept
     where kept.id = bookings.id and bookings.status <> 'completed' and bookings.free_from <> kept.free_from
    """
)


class BookingSettingsStore:
    """The settings of establishments."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def find(self, establishment_id: UUID) -> BookingSettings:
        """Those of an establishment that this transaction sees. Raises `NotFound`."""
        statement = sa.select(*COLUMNS).where(booking_settings.c.establishment_id == establishment_id)
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            raise NotFound("establishment", establishment_id)
        return BookingSettings(**dict(zip(BookingSettings.__dataclass_fields__, row, strict=True)))

    async def change(
        self, before: BookingSettings, changes: Mapping[str, Any], *, version: int | None = None
    ) -> BookingSettings:
        """Change them, and how long areas are kept free behind what is booked. Raises `Stale`, `Contended`."""
        if version is not None and version != before.version:
            raise Stale(ENTITY)
        changes = {name: value for name, value in changes.items() if getattr(before, name) != value}
        if not changes:
            return before
        where = (
            booking_settings.c.establishment_id == before.establishment_id,
            booking_settings.c.version == before.version,
        )
        statement = sa.update(booking_settings).where(*where).values(**changes).returning(*COLUMNS)
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            raise Stale(ENTITY)
        after = BookingSettings(**dict(zip(BookingSettings.__dataclass_fields__, row, strict=True)))
        if after.gap != before.gap:
            await self._keep_free(after)
        await self._transaction.record(
            Record(
                action=f"{ENTITY}.update",
                entity_type=ENTITY,
                entity_id=str(after.establishment_id),
                organization_id=after.organization_id,
                establishment_id=after.establishment_id,
                before=plain(before),
                after=plain(after),
            )
        )
        return after

    async def _keep_free(self, settings: BookingSettings) -> None:
        """Raises `Contended` where somebody books what was free when this began."""
        given = {"establishment_id": settings.establishment_id, "gap": settings.gap}
        try:
            await self._connection.execute(KEEP_FREE, given)
        except sa.exc.IntegrityError as error:
            if isinstance(error.orig, psycopg.errors.ExclusionViolation):
                raise Contended from error
            raise
