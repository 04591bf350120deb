"""What may be done with door codes, and with the locks that they are on. What becomes of them is in `door_code_saga`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID

from hse.domain.booking.door_code_saga import State
from hse.domain.booking.door_code_views import LOCK_TYPE, DoorCode, DoorLock
from hse.domain.booking.model import Booking
from hse.domain.errors import DomainError, ErrorKind
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.work import UNCHANGED, Finds, Placed, Unchanged, Work, changes_of, seen, within_act


class LockDevice(Placed, Protocol):
    """A device, as far as this noun knows it."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def organization_id(self) -> UUID:
        """Whose it is."""

    @property
    def establishment_id(self) -> UUID | None:
        """Where it stands."""

    @property
    def device_type(self) -> str:
        """What it is."""


class DoorCodeStore(Finds[DoorCode], Protocol):
    """The codes; digits only where the actor may read them."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[DoorCode]:
        """A page of those within the reach. Raises `Invalid`."""

    async def retry(self, before: DoorCode) -> DoorCode:
        """Have it tried again at once."""

    async def state_of_own(self, booking_id: UUID, device_id: UUID) -> State | None:
        """The state of a booking's own code at a lock; None when it has none."""

    async def pull(self, booking: Booking, device_id: UUID, now: datetime) -> DoorCode | None:
        """Give a booking a backup code that is on the lock; None when there is none."""


class DoorLockStore(Protocol):
    """How locks are looked after."""

    async def find(self, device: LockDevice) -> DoorLock:
        """As it was said of this one, or as usual."""

    async def change(self, before: DoorLock, changes: Mapping[str, Any], *, version: int | None = None) -> DoorLock:
        """Say it anew. Raises `Stale`."""


class DoorCodesWork(Work, Protocol):
    """A transaction with what is needed here."""

    @property
    def bookings(self) -> Finds[Booking]:
        """The bookings."""

    @property
    def devices(self) -> Finds[LockDevice]:
        """The devices."""

    @property
    def door_codes(self) -> DoorCodeStore:
        """The codes."""

    @property
    def door_locks(self) -> DoorLockStore:
        """The locks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeDoorLock:
    """What changes of how a lock is looked after."""

    num_backup_codes: int | Unchanged = UNCHANGED
    wrong_codes_max: int | Unchanged = UNCHANGED
    wrong_codes_minutes: int | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class PullBackupCode:
    """At which lock a booking needs another code than its own."""

    device_id: UUID


class NotALock(DomainError):
    """Door codes are for devices of the type doorlock."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "door-codes.not-a-lock"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"device {device_id} is no lock: its device_type is not {LOCK_TYPE}")
        self.device_id = device_id


class DoorCodeEnded(DomainError):
    """A code that is off its lock is not tried again."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "door-codes.ended"

    def __init__(self, state: State) -> None:
        super().__init__(f"this code is {state}, and nothing more is done with it")
        self.code_state = state


class BackupCodeNotNeeded(DomainError):
    """A backup code is given out where a booking's own code was not on the lock in time."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "door-codes.backup-not-needed"

    def __init__(self, device_id: UUID, state: State | None) -> None:
        known = "has no code for this lock" if state is None else f"has a code of its own there, which is {state}"
        super().__init__(f"no backup code for lock {device_id}: the booking {known}, and not late")
        self.device_id = device_id
        self.code_state = state


class NoBackupCode(DomainError):
    """No backup code is on the lock. What is not on it cannot open the door: somebody has to go there, or open it from afar."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "door-codes.no-backup"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"lock {device_id} has no backup code that nobody else has")
        self.device_id = device_id


SEE_CODES: Final = "read_booking"
READ_DIGITS: Final = "read_door_code"
MANAGE_CODES: Final = "manage_door_code"


async def door_codes_of_booking(work: DoorCodesWork, booking_id: UUID, query: PageQuery) -> Page[DoorCode]:
    """A page of a booking's codes, at each lock on its way. Raises `NotFound`, `Forbidden`, `Invalid`."""
    booking = await within_act(work, work.bookings, booking_id, see=SEE_CODES, act=SEE_CODES)
    wanted = replace(query, filters={**query.filters, "booking_id": booking.id})
    return await work.door_codes.page(work.actor.require(SEE_CODES), wanted)


async def door_codes_of_lock(work: DoorCodesWork, device_id: UUID, query: PageQuery) -> Page[DoorCode]:
    """A page of the codes that are, were or will be on a lock. Raises `NotFound`, `Forbidden`, `Invalid`."""
    lock = await within_act(work, work.devices, device_id, see="read_device", act=SEE_CODES)
    wanted = replace(query, filters={**query.filters, "device_id": lock.id})
    return await work.door_codes.page(work.actor.require(SEE_CODES), wanted)


async def door_codes(work: DoorCodesWork, query: PageQuery) -> Page[DoorCode]:
    """A page of the codes. Raises `Forbidden`, `Invalid`."""
    return await work.door_codes.page(work.actor.require(SEE_CODES), query)


async def door_code(work: DoorCodesWork, code_id: UUID) -> DoorCode:
    """One code. Raises `Forbidden`, `NotFound`."""
    return await seen(work.door_codes, work.actor.require(SEE_CODES), code_id)


async def retry_door_code(work: DoorCodesWork, code_id: UUID) -> DoorCode:
    """Have a code that its lock did not take, or did not lose, tried again at once: somebody has mended something.

    Raises `NotFound`, `Forbidden`, `DoorCodeEnded`.
    """
    before = await within_act(work, work.door_codes, code_id, see=SEE_CODES, act=MANAGE_CODES)
    if before.ended_at is not None:
        raise DoorCodeEnded(before.state)
    return await work.door_codes.retry(before)


async def pull_backup_code(work: DoorCodesWork, booking_id: UUID, command: PullBackupCode) -> DoorCode:
    """Give a booking a backup code that is on the lock already, where its own was not there in time.

    It opens the door from now on until `on_lock_until`; once the lock hears of it, for the stay only.

    Raises `NotFound`, `Forbidden`, `BackupCodeNotNeeded`, `NoBackupCode`.
    """
    booking = await within_act(work, work.bookings, booking_id, see=SEE_CODES, act=MANAGE_CODES)
    await seen(work.devices, work.actor.reach("read_device"), command.device_id)
    state = await work.door_codes.state_of_own(booking.id, command.device_id)
    if state != "failed":
        raise BackupCodeNotNeeded(command.device_id, state)
    pulled = await work.door_codes.pull(booking, command.device_id, work.now)
    if pulled is None:
        raise NoBackupCode(command.device_id)
    return pulled


async def door_lock(work: DoorCodesWork, device_id: UUID) -> DoorLock:
    """How a lock is looked after. Raises `NotFound`, `Forbidden`, `NotALock`."""
    device = await within_act(work, work.devices, device_id, see="read_device", act=SEE_CODES)
    if device.device_type != LOCK_TYPE:
        raise NotALock(device.id)
    return await work.door_locks.find(device)


async def change_door_lock(
    work: DoorCodesWork, device_id: UUID, command: ChangeDoorLock, *, version: int | None = None
) -> DoorLock:
    """Change how a lock is looked after. Raises `NotFound`, `Forbidden`, `NotALock`, `Stale`."""
    device = await within_act(work, work.devices, device_id, see="read_device", act=MANAGE_CODES)
    if device.device_type != LOCK_TYPE:
        raise NotALock(device.id)
    before = await work.door_locks.find(device)
    return await work.door_locks.change(before, changes_of(command), version=version)
