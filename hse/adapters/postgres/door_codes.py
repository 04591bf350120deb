"""Door codes as people see them. What becomes of them is the worker's (`door_code_keeper`)."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hse.adapters.postgres.door_code_alarms import WRONG_CODES_MAX, WRONG_CODES_MINUTES
from hse.adapters.postgres.door_code_rows import is_live
from hse.adapters.postgres.door_code_tables import door_lock_codes, door_locks
from hse.adapters.postgres.reach import SiteScope
from hse.adapters.postgres.stores import ActorTransaction, TableStore, Transaction, plain, record_of
from hse.adapters.sealing import Sealer
from hse.domain.booking.door_code_saga import State, deadline_of
from hse.domain.booking.door_code_views import DoorCode, DoorLock
from hse.domain.booking.door_codes import READ_DIGITS, LockDevice
from hse.domain.booking.model import Booking
from hse.domain.errors import Stale
from hse.domain.work import Record

LOCK = "door_lock"

code = door_lock_codes.c


class SealedTransaction(ActorTransaction):
    """What is needed beside: who opens what is sealed."""

    sealer: Sealer


class DoorCodes(TableStore[DoorCode]):
    """The codes of locks. Their digits are opened for who may read them there, and for nobody until a backup code was given out."""

    entity = "door_code"
    table = door_lock_codes
    view = DoorCode
    scope = SiteScope(code.organization_id, code.establishment_id)
    sorts = ("created_at", "valid_from")
    default_sort = "-created_at"
    searched = ("state",)
    computed: ClassVar[Mapping[str, sa.ColumnElement[Any]]] = {"code": code.sealed_code}

    def __init__(self, transaction: ActorTransaction) -> None:
        super().__init__(transaction)
        self._readable = transaction.actor.reach(READ_DIGITS)
        self._sealer: Sealer = cast("Any", transaction).sealer

    async def retry(self, before: DoorCode) -> DoorCode:
        """Have it tried again at once."""
        again = {"num_tries": 0, "not_before": None}
        statement = sa.update(door_lock_codes).where(code.id == before.id).values(again).returning(*self.columns())
        after = self._view((await self._execute(statement)).one())
        await self._record("retry", before, after)
        return after

    async def state_of_own(self, booking_id: UUID, device_id: UUID) -> State | None:
        """The state of a booking's own code at a lock; None when it has none."""
        is_own = (code.booking_id == booking_id, code.device_id == device_id, sa.not_(code.is_backup))
        statement = sa.select(code.state).where(*is_own, is_live()).order_by(code.created_at.desc()).limit(1)
        state: State | None = (await self._execute(statement)).scalar_one_or_none()
        return state

    async def pull(self, booking: Booking, device_id: UUID, now: datetime) -> DoorCode | None:
        """Give a booking the backup code that stays on the lock the longest; None when there is none."""
        waiting = (
            sa.select(code.id)
            .where(
                code.device_id == device_id,
                code.is_backup,
                code.booking_id.is_(None),
                code.state == "active",
                code.on_lock_until > sa.func.greatest(booking.check_in, now),
            )
            .order_by(code.on_lock_until.desc(), code.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = (await self._execute(waiting)).one_or_none()
        if row is None:
            return None
        given = {
            "booking_id": booking.id,
            "created_by": self._transaction.actor_id,
            "valid_from": booking.check_in,
            "valid_until": booking.check_out,
            "decided_at": now,
            "deadline": deadline_of(booking.check_in, minutes=0, changed_at=now),
        }
        statement = sa.update(door_lock_codes).where(code.id == row.id).values(given).returning(*self.columns())
        after = self._view((await self._execute(statement)).one())
        await self._record("pull_backup", None, after)
        return after

    def _view(self, row: sa.Row[Any]) -> DoorCode:
        kept = super()._view(row)
        sealed = cast("bytes | None", kept.code)
        if sealed is None or kept.booking_id is None or not kept.is_within(self._readable):
            return replace(kept, code=None)
        return replace(kept, code=self._sealer.unseal(sealed).decode())

    async def _record(self, verb: str, before: DoorCode | None, after: DoorCode | None) -> None:
        shown = [None if view is None else replace(view, code=None) for view in (before, after)]
        await self._transaction.record(record_of(self.entity, verb, *shown))


class DoorLocks:
    """How locks are looked after, where somebody has said so; the others as usual."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def find(self, device: LockDevice) -> DoorLock:
        """As it was said of this one, or as usual."""
        count = sa.select(sa.func.count()).where(code.device_id == device.id, code.state != "planned", is_live())
        num_codes = (await self._connection.execute(count)).scalar_one()
        found = sa.select(*door_locks.c).where(door_locks.c.device_id == device.id)
        row = (await self._connection.execute(found)).one_or_none()
        return DoorLock(
            device_id=device.id,
            organization_id=device.organization_id,
            establishment_id=device.establishment_id,
            num_backup_codes=0 if row is None else row.num_backup_codes,
            wrong_codes_max=WRONG_CODES_MAX if row is None else row.wrong_codes_max,
            wrong_codes_minutes=WRONG_CODES_MINUTES if row is None else row.wrong_codes_minutes,
            num_codes=num_codes,
            version=0 if row is None else row.version,
        )

    async def change(self, before: DoorLock, changes: Mapping[str, Any], *, version: int | None = None) -> DoorLock:
        """Say it anew. Raises `Stale`."""
        if version is not None and version != before.version:
            raise Stale(LOCK)
        changed = {name: value for name, value in changes.items() if getattr(before, name) != value}
        if not changed:
            return before
        values = {"device_id": before.device_id, "configured_by": self._transaction.actor_id, **changed}
        statement = insert(door_locks).values(values)
        statement = statement.on_conflict_do_update(
            index_elements=[door_locks.c.device_id],
            set_={**changed, "configured_by": self._transaction.actor_id},
            where=door_locks.c.version == before.version,
        )
        row = (await self._connection.execute(statement.returning(door_locks.c.version))).one_or_none()
        if row is None:
            raise Stale(LOCK)
        after = replace(before, **changed, version=row.version)
        await self._transaction.record(
            Record(
                action=f"{LOCK}.update",
                entity_type=LOCK,
                entity_id=str(after.device_id),
                organization_id=after.organization_id,
                establishment_id=after.establishment_id,
                before=plain(before),
                after=plain(after),
            )
        )
        return after
