"""Devices in the database. The ingest core hears of every change through the table's triggers."""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.reach import SiteScope
from hse.adapters.postgres.stores import TableStore
from hse.adapters.postgres.tables import devices
from hse.domain.devices.model import Device, DeviceToken
from hse.domain.errors import Stale


class Devices(TableStore[Device]):
    """The devices. A token's hash goes in and never comes out: not into a view, and so not into the audit log."""

    entity = "device"
    table = devices
    view = Device
    scope = SiteScope(devices.c.organization_id, devices.c.establishment_id)
    searched = ("name", "serial_number", "manufacturer", "model")
    computed: ClassVar[Mapping[str, sa.ColumnElement[Any]]] = {
        "has_token": devices.c.token_hash.is_not(None),
        "mac_address": sa.cast(devices.c.mac_address, sa.Text),
        "ip_address": sa.func.host(devices.c.ip_address),
    }
    constraints: ClassVar[Mapping[str, str]] = {
        "devices_serial_number": "serial_number",
        "devices_gateway_is_top_level": "gateway_id",
        "devices_profile_is_of_the_organization": "profile_id",
        "devices_establishment_is_of_the_organization": "establishment_id",
        "devices_area_is_of_the_establishment": "area_id",
        "devices_area_has_establishment": "area_id",
    }

    async def has_children(self, device_id: UUID) -> bool:
        """Whether it speaks for others that this transaction sees; for the rest the foreign key stands in."""
        found = sa.select(sa.exists().where(devices.c.gateway_id == device_id))
        return bool((await self._connection.execute(found)).scalar_one())

    async def keep_token(self, before: Device, token: DeviceToken | None) -> Device:
        """Let a device connect with this token and no other; with None, not at all. Raises `Stale`."""
        statement = (
            sa.update(devices)
            .where(devices.c.id == before.id, devices.c.version == before.version)
            .values(token_hash=None if token is None else token.sha256)
            .returning(*self.columns())
        )
        row = (await self._execute(statement)).one_or_none()
        if row is None:
            raise Stale(self.entity)
        after = self._view(row)
        await self._record("revoke_token" if token is None else "issue_token", before, after)
        return after
