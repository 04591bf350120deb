"""The attributes of devices in the database: a row each, once somebody said something."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hse.adapters.postgres.stores import Transaction
from hse.adapters.postgres.tables import device_attributes, devices
from hse.domain.devices.device_attributes import DeviceAttributes, changed_names, check_attributes, delta_of, merged
from hse.domain.devices.model import Device
from hse.domain.errors import Invalid, Stale
from hse.domain.relevant import RelevantEvent
from hse.domain.work import Record

ENTITY = "device_attributes"
CHANNEL = "hse_device_attributes"
row_of = device_attributes.c

logger = logging.getLogger(__name__)


class DeviceAttributesRows:
    """The attributes of devices."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def find(self, device: Device) -> DeviceAttributes:
        """Those of a device; empty before anybody said anything."""
        found = sa.select(*row_of).where(row_of.device_id == device.id)
        row = (await self._connection.execute(found)).one_or_none()
        desired, reported = ({}, {}) if row is None else (row.desired, row.reported)
        return DeviceAttributes(
            device_id=device.id,
            organization_id=device.organization_id,
            establishment_id=device.establishment_id,
            desired=desired,
            reported=reported,
            delta=delta_of(desired, reported),
            version=0 if row is None else row.desired_version,
            reported_version=0 if row is None else row.reported_version,
            desired_at=None if row is None else row.desired_at,
            reported_at=None if row is None else row.reported_at,
        )

    async def change_desired(
        self, before: DeviceAttributes, desired: Mapping[str, Any], *, version: int | None = None
    ) -> DeviceAttributes:
        """Keep what is desired; no change writes nothing. Raises `Stale`."""
        if version is not None and version != before.version:
            raise Stale(ENTITY)
        names = changed_names(before.desired, desired)
        if not names:
            return before
        values = {
            "desired": desired,
            "desired_version": before.version + 1,
            "desired_at": sa.func.now(),
            "desired_by": self._transaction.actor_id,
        }
        statement = (
            insert(device_attributes)
            .values(device_id=before.device_id, **values)
            .on_conflict_do_update(
                index_elements=[row_of.device_id], set_=values, where=row_of.desired_version == before.version
            )
            .returning(row_of.desired_at)
        )
        row = (await self._connection.execute(statement)).one_or_none()
        if row is None:
            raise Stale(ENTITY)
        after = replace(
            before,
            desired=desired,
            delta=delta_of(desired, before.reported),
            version=before.version + 1,
            desired_at=row.desired_at,
        )
        await self._record(before, after, names)
        return after

    async def _record(self, before: DeviceAttributes, after: DeviceAttributes, names: list[str]) -> None:
        """Nobody can tell by its name which attribute is a password: their values stay out of the log, all of them."""
        await self._transaction.record(
            Record(
                action=f"{ENTITY}.update",
                entity_type=ENTITY,
                entity_id=str(after.device_id),
                organization_id=after.organization_id,
                establishment_id=after.establishment_id,
                before={"version": before.version},
                after={"version": after.version, "changed": names},
            )
        )


class AttributesNotices:
    """The way to those who speak with devices: a notification in the transaction, which is sent when it is kept."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection

    async def tell_desired(self, after: DeviceAttributes) -> None:
        """Have them look at what this device is desired to be: `<device id> <version>`."""
        await self._connection.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{after.device_id} {after.version}")))


def keep_reported(
    connection: sa.Connection, device_id: UUID, changes: Mapping[str, Any], reported_at: datetime
) -> int | None:
    """Merge what a device reported, for whoever heard it; returns the version, None for a device that is gone.

    Reports of one device come in its order. One that changes nothing makes no version, and is the newest word of it all the same.
    Raises `Invalid` for what people could not desire either, and keeps nothing of it: a device must not fill the table.
    """
    check_attributes(changes, "reported")
    values = {"device_id": device_id, "reported_at": reported_at}
    known = sa.select(devices.c.id).where(devices.c.id == device_id).with_for_update(key_share=True, read=True)
    if connection.execute(known).one_or_none() is None:
        return None
    connection.execute(insert(device_attributes).values(values).on_conflict_do_nothing())
    locked = sa.select(row_of.reported, row_of.reported_version).where(row_of.device_id == device_id).with_for_update()
    before = connection.execute(locked).one()
    reported = merged(before.reported, changes)
    check_attributes(reported, "reported")
    version = int(before.reported_version) + bool(changed_names(before.reported, reported))
    connection.execute(
        sa.update(device_attributes)
        .where(row_of.device_id == device_id)
        .values(reported=reported, reported_version=version, reported_at=reported_at)
    )
    return version


def keep_reports(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
    """Keep what devices reported, in order. One that is refused stays in the history alone: it would be refused again."""
    for event in events:
        savepoint = connection.begin_nested()
        try:
            keep_reported(connection, event.device_id, event.metadata, event.time)
        except Invalid as refused:
            savepoint.rollback()
            logger.warning("what a device reported is not kept: device=%s reason=%s", event.device_id, refused)
        else:
            savepoint.commit()
