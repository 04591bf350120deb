"""Device profiles in the database. The ingest core hears of every change through the table's trigger."""

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.reach import OwnScope
from hse.adapters.postgres.stores import TableStore
from hse.adapters.postgres.tables import device_profiles, devices
from hse.domain.devices.profile_views import DeviceProfile


class DeviceProfiles(TableStore[DeviceProfile]):
    """The profiles of devices."""

    entity = "device_profile"
    table = device_profiles
    view = DeviceProfile
    scope = OwnScope(device_profiles.c.organization_id)
    searched = ("name", "description")
    constraints: ClassVar[Mapping[str, str]] = {"device_profiles_name": "name"}

    async def num_devices(self, profile_id: UUID) -> int:
        """How many devices have it, as far as this transaction sees them."""
        count = sa.select(sa.func.count()).select_from(devices).where(devices.c.profile_id == profile_id)
        return int((await self._connection.execute(count)).scalar_one())
