"""What follows from a booking for the locks of its area: its codes are drawn, put on them, kept as they should be, and taken off.

A consequence of bookings (`hse/wiring/bookings.py`). What to do next with a code is decided by the domain; here it is done: rows
are written and commands queued, in the transaction of the look. The codes that wait on a lock for no booking in particular are
looked at under the lock's id.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hse.adapters.dispatch.secrets import seal_params
from hse.adapters.postgres.booking_tables import booking_settings, bookings
from hse.adapters.postgres.door_code_alarms import tell_of_late_codes
from hse.adapters.postgres.door_code_rows import (
    heard_of,
    is_live,
    standing_of,
    terms_of,
    values_of,
)
from hse.adapters.postgres.door_code_tables import door_lock_codes, door_locks
from hse.adapters.postgres.reach import one_of
from hse.adapters.postgres.tables import areas, device_commands, devices
from hse.adapters.sealing import Sealer, derived_key
from hse.domain.booking.door_code_saga import (
    Act,
    Aim,
    CodeStanding,
    Heard,
    Step,
    Terms,
    command_deadline,
    deadline_of,
    next_step,
)
from hse.domain.booking.door_code_views import LOCK_TYPE, drawn

DRAWS_MAX = 1000
# A backup code waits on its lock for two weeks; a week before it ends the next one joins it.
BACKUP_VALID, BACKUP_RENEWED = timedelta(days=14), timedelta(days=7)
# Of a command that follows from a booking which nobody in particular has made.
NOBODY = UUID(int=0)

codes = door_lock_codes.c


class NoCodeLeft(Exception):
    """So many codes are taken on a lock that none was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockOnDoor:
    """A lock, and the device that is told what it is to do: itself, or its gateway."""

    device_id: UUID
    told_id: UUID
    organization_id: UUID
    establishment_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What should be on which locks for a booking and its guest; for the codes of no booking each has terms of its own."""

    lock_ids: frozenset[UUID]
    guest_id: UUID | None
    terms: Terms | None
    push_from: datetime
    deadline_minutes: int
    created_by: UUID
    num_each: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorCodeKeeper:
    """Does what is to be done with door codes; `random_below` is where digits come from."""

    sealer: Sealer
    mac_key: bytes = field(repr=False)
    random_below: Callable[[int], int] = secrets.randbelow

    def keep(self, connection: sa.Connection, looked_at: UUID, now: datetime) -> datetime | None:
        """One look at the codes of a booking, or of none of a lock; when to look again."""
        wanted = _wanted_for_booking(connection, looked_at, now) or _wanted_for_none(connection, looked_at, now)
        rows = _codes_of(connection, looked_at)
        locks = _locks(connection, {row.device_id for row in rows} | (wanted.lock_ids if wanted else set()))
        if wanted is not None:
            rows += self._draw_missing(connection, looked_at, wanted, rows, locks, now)
        heard = _heard(connection, rows, now)
        decided = [(row, aim_for(row, wanted, now)) for row in rows]
        steps = [
            next_step(standing_of(row), aim, heard.get(row.id), now, is_lock_there=row.device_id in locks)
            for row, aim in decided
        ]
        taken_back = [row.command_id for row, step in zip(rows, steps, strict=True) if step.act is Act.TAKE_BACK]
        if taken_back:
            # By itself: who takes back locks commands, and who queues locks queues; together they would be in others' way.
            _take_back(connection, taken_back, now)
            return now
        for (row, aim), step in zip(decided, steps, strict=True):
            self._do(connection, row, aim, step, locks.get(row.device_id), now)
        tell_of_late_codes(connection, rows, steps, now)
        return min((step.look_again_at for step in steps if step.look_again_at is not None), default=None)

    def mac_of(self, device_id: UUID, digits: str) -> bytes:
        """Says whether two codes of a lock are the same, to who has the key."""
        return hmac.digest(self.mac_key, device_id.bytes + digits.encode(), hashlib.sha256)

    def _draw_missing(
        self,
        connection: sa.Connection,
        looked_at: UUID,
        wanted: Wanted,
        rows: Sequence[sa.Row[Any]],
        locks: Mapping[UUID, LockOnDoor],
        now: datetime,
    ) -> list[sa.Row[Any]]:
        made: list[sa.Row[Any]] = []
        for device_id in sorted(wanted.lock_ids & locks.keys()):
            known = sum(row.device_id == device_id and _counts(row, wanted, now) for row in rows)
            terms = wanted.terms or Terms(valid_from=now, valid_until=now + BACKUP_VALID)
            values = {
                "organization_id": locks[device_id].organization_id,
                "establishment_id": locks[device_id].establishment_id,
                "device_id": device_id,
                "booking_id": None if wanted.terms is None else looked_at,
                "created_by": wanted.created_by,
                "is_backup": wanted.terms is None,
                "valid_from": terms.valid_from,
                "valid_until": terms.valid_until,
                "max_usages": terms.max_usages,
                "decided_at": now,
                "deadline": deadline_of(terms.valid_from, minutes=wanted.deadline_minutes, changed_at=now),
            }
            made += [self._add(connection, values) for _ in range(wanted.num_each - known)]
        return made

    def _add(self, connection: sa.Connection, values: Mapping[str, Any]) -> sa.Row[Any]:
        """A new code with digits that no other one of its lock has. Raises `NoCodeLeft`."""
        for _ in range(DRAWS_MAX):
            statement = (
                insert(door_lock_codes)
                .values(**values, state="planned", **self._sealed(values["device_id"]))
                .on_conflict_do_nothing(
                    index_elements=[codes.device_id, codes.code_mac], index_where=codes.ended_at.is_(None)
                )
                .returning(*codes)
            )
            row = connection.execute(statement).one_or_none()
            if row is not None:
                return row
        raise NoCodeLeft

    def _sealed(self, device_id: UUID) -> dict[str, bytes]:
        digits = drawn(self.random_below)
        return {"sealed_code": self.sealer.seal(digits.encode()), "code_mac": self.mac_of(device_id, digits)}

    def _redraw(self, connection: sa.Connection, row: sa.Row[Any]) -> bytes:
        """Other digits, as the lock has these from somebody else."""
        for _ in range(DRAWS_MAX):
            sealed = self._sealed(row.device_id)
            taken = sa.select(codes.id).where(
                codes.device_id == row.device_id, codes.code_mac == sealed["code_mac"], codes.ended_at.is_(None)
            )
            if connection.execute(taken).first() is None:
                connection.execute(sa.update(door_lock_codes).where(codes.id == row.id).values(sealed))
                return sealed["sealed_code"]
        raise NoCodeLeft

    def _do(
        self,
        connection: sa.Connection,
        row: sa.Row[Any],
        aim: Aim | None,
        step: Step,
        lock: LockOnDoor | None,
        now: datetime,
    ) -> None:
        changes = values_of(step.standing)
        if aim is not None and terms_of(row) != aim.terms:
            changes |= {
                "valid_from": aim.terms.valid_from,
                "valid_until": aim.terms.valid_until,
                "max_usages": aim.terms.max_usages,
                "decided_at": now,
            }
        if aim is not None:
            changes["deadline"] = aim.deadline
        if step.has_ended:
            changes |= {"ended_at": now, "sealed_code": None, "code_mac": None}
        if step.act is not None and lock is not None:
            sealed = self._redraw(connection, row) if step.act is Act.REDRAW else row.sealed_code
            changes |= self._tell(
                connection, row, step.standing, lock, (sealed, command_deadline(step.standing, aim, now))
            )
        elif step.standing.told is None:
            changes["command_id"] = None
        changed = {name: value for name, value in changes.items() if row._mapping[name] != value}
        if changed:
            connection.execute(sa.update(door_lock_codes).where(codes.id == row.id).values(changed))

    def _tell(
        self,
        connection: sa.Connection,
        row: sa.Row[Any],
        standing: CodeStanding,
        lock: LockOnDoor,
        said: tuple[bytes, datetime],
    ) -> dict[str, Any]:
        """Queue the command that the standing tells of; what changes of the code by it."""
        sealed_code, deadline = said
        command_id, number = uuid4(), row.num_commands + 1
        params: dict[str, Any] = {"code_id": str(row.id), "version": number}
        if lock.told_id != lock.device_id:
            params["lock_id"] = str(lock.device_id)
        sealed_params = None
        if standing.told == "set" and standing.told_terms is not None:
            params |= {
                "valid_from": standing.told_terms.valid_from.isoformat(),
                "valid_until": standing.told_terms.valid_until.isoformat(),
                "max_usages": standing.told_terms.max_usages,
            }
            sealed_params = seal_params(self.sealer, {"code": self.sealer.unseal(sealed_code).decode()})
        values = {
            "id": command_id,
            "organization_id": lock.organization_id,
            "establishment_id": lock.establishment_id,
            "device_id": lock.told_id,
            "created_by": row.created_by or NOBODY,
            "type": "set_code" if standing.told == "set" else "clear_code",
            "params": params,
            "sealed_params": sealed_params,
            "deadline": deadline,
        }
        connection.execute(sa.insert(device_commands).inline().values(values))
        return {"command_id": command_id, "num_commands": number}


def compose_door_code_keeper(secret_key: str) -> DoorCodeKeeper:
    """The keeper with its keys."""
    return DoorCodeKeeper(sealer=Sealer(secret_key), mac_key=derived_key(secret_key, "door codes"))


def aim_for(row: sa.Row[Any], wanted: Wanted | None, now: datetime) -> Aim | None:
    """How a code should be on its lock; None: not at all."""
    if wanted is None or row.device_id not in wanted.lock_ids or row.guest_id != wanted.guest_id:
        return None
    terms = wanted.terms or terms_of(row)
    decided_at = row.decided_at if terms == terms_of(row) else now
    return Aim(
        terms=terms,
        push_from=wanted.push_from,
        deadline=deadline_of(terms.valid_from, minutes=wanted.deadline_minutes, changed_at=decided_at),
    )


def _counts(row: sa.Row[Any], wanted: Wanted, now: datetime) -> bool:
    """Whether a code is one of those that are wanted on its lock."""
    if row.state in ("revoking", "revoked") or row.guest_id != wanted.guest_id:
        return False
    if wanted.terms is None:
        return bool(row.valid_until - now > BACKUP_RENEWED)
    return not row.is_backup


def _wanted_for_booking(connection: sa.Connection, booking_id: UUID, now: datetime) -> Wanted | None:
    row = connection.execute(
        sa.select(
            *(bookings.c[name] for name in ("establishment_id", "area_id", "check_in", "check_out", "status")),
            bookings.c.guest_id,
            bookings.c.created_by,
            booking_settings.c.code_lead_hours,
            booking_settings.c.code_deadline_minutes,
            booking_settings.c.max_code_usages,
        )
        .join(booking_settings, booking_settings.c.establishment_id == bookings.c.establishment_id)
        .where(bookings.c.id == booking_id)
    ).one_or_none()
    if row is None or row.status not in ("confirmed", "in-progress") or now >= row.check_out:
        return None
    return Wanted(
        lock_ids=frozenset(connection.execute(_locks_of_area(row.area_id, row.establishment_id)).scalars()),
        guest_id=row.guest_id,
        terms=Terms(valid_from=row.check_in, valid_until=row.check_out, max_usages=row.max_code_usages),
        push_from=row.check_in - timedelta(hours=row.code_lead_hours),
        deadline_minutes=row.code_deadline_minutes,
        created_by=row.created_by or NOBODY,
    )


def _wanted_for_none(connection: sa.Connection, device_id: UUID, now: datetime) -> Wanted | None:
    row = connection.execute(
        sa.select(door_locks.c.num_backup_codes, door_locks.c.configured_by)
        .join(devices, devices.c.id == door_locks.c.device_id)
        .where(door_locks.c.device_id == device_id, devices.c.device_type == LOCK_TYPE)
    ).one_or_none()
    if row is None or row.num_backup_codes == 0:
        return None
    return Wanted(
        lock_ids=frozenset({device_id}),
        guest_id=None,
        terms=None,
        push_from=now,
        deadline_minutes=0,
        created_by=row.configured_by,
        num_each=row.num_backup_codes,
    )


def _locks_of_area(area_id: UUID, establishment_id: UUID) -> sa.Select[Any]:
    """The locks in an area, in those that it lies in, and those of the establishment as a whole."""
    above = sa.select(areas.c.id, areas.c.parent_area_id).where(areas.c.id == area_id).cte("above", recursive=True)
    above = above.union_all(sa.select(areas.c.id, areas.c.parent_area_id).where(areas.c.id == above.c.parent_area_id))
    return sa.select(devices.c.id).where(
        devices.c.device_type == LOCK_TYPE,
        devices.c.establishment_id == establishment_id,
        sa.or_(devices.c.area_id.is_(None), devices.c.area_id.in_(sa.select(above.c.id))),
    )


def _codes_of(connection: sa.Connection, looked_at: UUID) -> list[sa.Row[Any]]:
    is_its = sa.or_(codes.booking_id == looked_at, sa.and_(codes.device_id == looked_at, codes.booking_id.is_(None)))
    return list(connection.execute(sa.select(*codes).where(is_its, is_live()).order_by(codes.id).with_for_update()))


def _locks(connection: sa.Connection, device_ids: set[UUID]) -> dict[UUID, LockOnDoor]:
    found = sa.select(devices.c.id, devices.c.gateway_id, devices.c.organization_id, devices.c.establishment_id)
    return {
        row.id: LockOnDoor(
            device_id=row.id,
            told_id=row.gateway_id or row.id,
            organization_id=row.organization_id,
            establishment_id=row.establishment_id,
        )
        for row in connection.execute(found.where(one_of(devices.c.id, device_ids)))
    }


def _heard(connection: sa.Connection, rows: Sequence[sa.Row[Any]], now: datetime) -> dict[UUID, Heard]:
    """What became of the commands that are out, by code."""
    code_of = {row.command_id: row.id for row in rows if row.command_id is not None}
    statement = sa.select(*device_commands.c).where(one_of(device_commands.c.id, code_of))
    return {code_of[row.id]: heard_of(row, now) for row in connection.execute(statement)}


def _take_back(connection: sa.Connection, command_ids: Sequence[UUID], now: datetime) -> None:
    """As far as they surely were not sent."""
    command = device_commands.c
    connection.execute(
        sa.update(device_commands)
        .where(one_of(command.id, command_ids), command.state == "queued", command.dispatch == "waiting")
        .values(state="cancelled", dispatch="over", finished_at=sa.func.greatest(now, command.queued_at))
    )
