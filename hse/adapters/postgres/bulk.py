"""A transaction for many rows: commands read and change what lies in memory, and what they did is written many rows a statement.

A row's changes are written whole or not at all. When the database refuses a statement, its rows are halved until the bad ones are
alone, as the drain of the ingest core does with a batch.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from hse.adapters.postgres.buffered import (
    BufferedAreas,
    BufferedDeviceProfiles,
    BufferedDevices,
    BufferedEstablishments,
    BufferedOrganizations,
    BufferedPeople,
    RowChanges,
    insert_many,
)
from hse.adapters.postgres.identity_tables import audit_entries
from hse.adapters.postgres.reach import one_of
from hse.adapters.postgres.tables import areas, device_profiles, devices, establishments, organizations
from hse.adapters.postgres.work import PostgresWork, audit_values
from hse.domain.devices.model import Device
from hse.domain.devices.ports import SEE_PROFILES
from hse.domain.devices.profile_views import DeviceProfile
from hse.domain.errors import DomainError
from hse.domain.organizations.model import Area, Establishment, Organization
from hse.domain.work import Record

T = TypeVar("T")


class BulkWork(PostgresWork):
    """The transaction of one import."""

    def __init__(self, work: PostgresWork, began_at: datetime) -> None:
        super().__init__(work.connection, work.actor, work.origin, work.now, work.outbox)
        # What now() is in this transaction, and so the time that the database writes into the rows.
        self.began_at = began_at
        self.row = RowChanges(line=0)
        self._rows: list[RowChanges] = []
        self._organizations = BufferedOrganizations(self)
        self._establishments = BufferedEstablishments(self)
        self._areas = BufferedAreas(self)
        self._device_profiles = BufferedDeviceProfiles(self)
        self._devices = BufferedDevices(self)
        self._people = BufferedPeople(self)

    @classmethod
    async def within(cls, work: PostgresWork) -> "BulkWork":
        """The same transaction, for many rows."""
        return cls(work, (await work.connection.execute(sa.select(sa.func.now()))).scalar_one())

    @property
    def organizations(self) -> BufferedOrganizations:
        """The organisations."""
        return self._organizations

    @property
    def establishments(self) -> BufferedEstablishments:
        """The establishments."""
        return self._establishments

    @property
    def areas(self) -> BufferedAreas:
        """The areas."""
        return self._areas

    @property
    def devices(self) -> BufferedDevices:
        """The devices."""
        return self._devices

    @property
    def device_profiles(self) -> BufferedDeviceProfiles:
        """The profiles of devices."""
        return self._device_profiles

    @property
    def people(self) -> BufferedPeople:
        """What other nouns ask of the users."""
        return self._people

    async def record(self, record: Record) -> None:
        """Write to the audit log, with what the row did."""
        self.row.records.append(record)

    async def organizations_called(self, names: Collection[str], ids: Collection[UUID]) -> list[Organization]:
        """Those that the actor may see."""
        called = sa.or_(_among(organizations.c.name, names), one_of(organizations.c.id, ids))
        return await self._organizations.load(self.actor.reach("read_organization"), called)

    async def establishments_called(
        self, organization_ids: Collection[UUID], names: Collection[str]
    ) -> list[Establishment]:
        """Those that the actor may see."""
        return await self._establishments.load(
            self.actor.reach("read_establishment"),
            one_of(establishments.c.organization_id, organization_ids),
            _among(establishments.c.name, names),
        )

    async def areas_in(self, establishment_ids: Collection[UUID]) -> list[Area]:
        """Those that the actor may see."""
        within = one_of(areas.c.establishment_id, establishment_ids)
        return await self._areas.load(self.actor.reach("read_area"), within)

    async def lock_trees(self, establishment_ids: Collection[UUID]) -> None:
        """See to it that nobody else moves areas of these establishments until the transaction ends."""
        await self._areas.lock_many(establishment_ids)

    async def devices_called(
        self, organization_ids: Collection[UUID], names: Collection[str], serial_numbers: Collection[str]
    ) -> list[Device]:
        """Those that the actor may see and that have one of the names or of the serial numbers."""
        return await self._devices.load(
            self.actor.reach("read_device"),
            one_of(devices.c.organization_id, organization_ids),
            sa.or_(_among(devices.c.name, names), _among(devices.c.serial_number, serial_numbers)),
        )

    async def device_profiles_called(
        self, organization_ids: Collection[UUID], names: Collection[str]
    ) -> list[DeviceProfile]:
        """Those that the actor may see."""
        return await self._device_profiles.load(
            self.actor.reach(SEE_PROFILES),
            one_of(device_profiles.c.organization_id, organization_ids),
            _among(device_profiles.c.name, names),
        )

    async def give_way(self) -> None:
        """Let others have their turn on the event loop."""
        await asyncio.sleep(0)

    def begin_row(self, line: int) -> None:
        """What is done from here on belongs to this row."""
        self.row = RowChanges(line=line)
        self._rows.append(self.row)

    def undo_row(self) -> None:
        """Forget what the row did."""
        self._rows.pop()
        _undo(self.row)

    async def flush(self) -> list[tuple[int, DomainError]]:
        """Write what the rows did; what the database refuses is undone alone, and answered with its row."""
        rows, self._rows = self._rows, []
        return await self._write_or_halve([row for row in rows if row.records])

    async def _write_or_halve(self, rows: list[RowChanges]) -> list[tuple[int, DomainError]]:
        if not rows:
            return []
        try:
            async with self.connection.begin_nested():
                await self._write(rows)
        except DomainError as error:
            if len(rows) == 1:
                _undo(rows[0])
                return [(rows[0].line, error)]
            middle = len(rows) // 2
            return await self._write_or_halve(rows[:middle]) + await self._write_or_halve(rows[middle:])
        return []

    async def _write(self, rows: list[RowChanges]) -> None:
        for establishment_id in (one for row in rows for one in row.expected):
            await super().establishments.expect(establishment_id)
        added = [one for row in rows for one in row.added]
        for group in _grouped(added, lambda one: (one[0].entity, tuple(one[1]))):
            await group[0][0].write_added([values for _, values in group])
        for user_id, establishment_id in (one for row in rows for one in row.assigned):
            await super().people.assign(user_id, establishment_id)
        # A row may change a thing twice: the second change awaits the version that the first one makes.
        for turn in range(max(len(row.updates) for row in rows)):
            updates = [row.updates[turn] for row in rows if len(row.updates) > turn]
            for changed in _grouped(updates, lambda one: (one.store.entity, tuple(one.values))):
                await changed[0].store.write_updates(changed)
        await self._write_records([record for row in rows for record in row.records])

    async def _write_records(self, records: list[Record]) -> None:
        values = [audit_values(record, self.origin, self.actor) for record in records]
        await self.connection.execute(insert_many(audit_entries, values))


def _among(column: sa.ColumnElement[Any], texts: Collection[str]) -> sa.ColumnElement[bool]:
    return column == sa.func.any(sa.cast(sa.literal(sorted(texts), ARRAY(sa.Text)), ARRAY(sa.Text)))


def _grouped(things: Iterable[T], key: Callable[[T], Any]) -> list[list[T]]:
    """The things in groups of the same key, both in the order in which they came."""
    groups: dict[Any, list[T]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return list(groups.values())


def _undo(row: RowChanges) -> None:
    for undo in reversed(row.undo):
        undo()
