"""Where the devices stand that nodes tell of: remembered for a while, forgotten when a device changes."""

import time
from collections.abc import Callable, Iterable
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from hse.adapters.postgres.reach import UUIDS
from hse.domain.telemetry.live import DevicePlace

REMEMBERED_SECONDS = 30.0
# While nobody tells which devices change.
REMEMBERED_UNTOLD_SECONDS = 1.0
# The oldest make room: some 100 MB at most.
REMEMBERED_MAX = 200_000
ASKED_AT_ONCE_MAX = 5000

FIND = sa.text("select device_id, organization_id, establishment_id from hse_device_places(:ids)").bindparams(
    sa.bindparam("ids", type_=UUIDS)
)


class Places:
    """The places of devices. Who asks for one that is not remembered has to look it up first.

    `is_told` says whether changes of devices are heard of just now.
    """

    def __init__(
        self, engine: AsyncEngine, is_told: Callable[[], bool], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._is_told = is_told
        self._now = now
        # None: there is no such device.
        self._known: dict[UUID, tuple[DevicePlace | None, float]] = {}
        # What is being looked up; what changes meanwhile is taken out, for the answer may be what was before.
        self._asked: list[set[UUID]] = []

    def unknown(self, device_ids: Iterable[UUID]) -> set[UUID]:
        """Those of the devices that have to be looked up."""
        oldest = self._now() - (REMEMBERED_SECONDS if self._is_told() else REMEMBERED_UNTOLD_SECONDS)
        return {one for one in device_ids if (known := self._known.get(one)) is None or known[1] < oldest}

    def of(self, device_id: UUID) -> DevicePlace | None:
        """Where a device stands that was looked up; None when it is unknown or gone."""
        known = self._known.get(device_id)
        return None if known is None else known[0]

    async def look_up(self, device_ids: Iterable[UUID]) -> None:
        """Learn where these stand; one that changes meanwhile stays unknown. Raises SQLAlchemy's errors."""
        waiting = list(device_ids)
        while waiting:
            asked, waiting = waiting[:ASKED_AT_ONCE_MAX], waiting[ASKED_AT_ONCE_MAX:]
            asked_at, unchanged = self._now(), set(asked)
            self._asked.append(unchanged)
            try:
                async with self._engine.connect() as connection:
                    rows = (await connection.execute(FIND, {"ids": asked})).all()
            finally:
                self._asked.remove(unchanged)
            found = {
                row.device_id: DevicePlace(organization_id=row.organization_id, establishment_id=row.establishment_id)
                for row in rows
            }
            for device_id in unchanged:
                self._known.pop(device_id, None)
                self._known[device_id] = (found.get(device_id), asked_at)
        while len(self._known) > REMEMBERED_MAX:
            del self._known[next(iter(self._known))]

    def forget(self, device_ids: Iterable[UUID] | None) -> None:
        """These have changed; with None, any may have."""
        if device_ids is None:
            self._known.clear()
            for asked in self._asked:
                asked.clear()
            return
        for device_id in device_ids:
            self._known.pop(device_id, None)
            for asked in self._asked:
                asked.discard(device_id)
