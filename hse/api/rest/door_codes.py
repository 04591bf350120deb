"""Door codes of bookings and of locks, and how locks are looked after."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import Body, given
from hse.api.paging import Paged, filtered
from hse.domain.booking import door_codes
from hse.domain.booking.door_code_saga import State
from hse.domain.booking.door_code_views import DoorCode, DoorLock
from hse.domain.paging import Page

NumBackups = Annotated[int, msgspec.Meta(ge=0, le=10, examples=[2])]
WrongMax = Annotated[int, msgspec.Meta(ge=1, le=1000, examples=[5])]
WrongMinutes = Annotated[int, msgspec.Meta(ge=1, le=1440, examples=[10])]

# Also where nothing is changed: the device is none of those that have codes.
NOT_A_LOCK = {"refusals": (409,)}

# `state` as the name of an argument is the framework's.
InState = Annotated[State | None, QueryParameter(name="state", description="Only those that are in it.")]


class DoorLockChange(Body):
    """What changes of how a lock is looked after."""

    num_backup_codes: NumBackups | UnsetType = UNSET
    wrong_codes_max: WrongMax | UnsetType = UNSET
    wrong_codes_minutes: WrongMinutes | UnsetType = UNSET


class BackupCodePull(Body):
    """At which lock a booking needs another code than its own."""

    device_id: UUID


@get("/bookings/{booking_id:uuid}/door-codes")
async def list_door_codes_of_booking(acting: Acts, booking_id: FromPath[UUID], page: Paged) -> Page[DoorCode]:
    """List a booking's codes: one at each lock on the way to its area. `code` is told to who may read door codes there.

    `planned`, `pushing` (the lock has not said yes yet), `set` (it has), `active` (and the stay has begun), `revoking`, `revoked`,
    or `failed` with a `reason`: not on the lock by the deadline; it is tried on all the same.
    """
    return await acting.read(lambda work: door_codes.door_codes_of_booking(work, booking_id, page))


@post("/bookings/{booking_id:uuid}/door-codes/pull-backup")
async def pull_backup_code(once: Acts, booking_id: FromPath[UUID], data: JSONBody[BackupCodePull]) -> DoorCode:
    """Give a booking a backup code that is on the lock already, where its own was not there in time.

    It opens the door from now on until `on_lock_until`; once the lock hears of it, for the stay only. 409 `door-codes.no-backup`
    where none is on the lock.
    """
    command = door_codes.PullBackupCode(**given(data))
    return await once.run(lambda work: door_codes.pull_backup_code(work, booking_id, command), status=201)


@get("/devices/{device_id:uuid}/door-codes")
async def list_door_codes_of_lock(acting: Acts, device_id: FromPath[UUID], page: Paged) -> Page[DoorCode]:
    """List the codes that are, were or will be on a lock, the newest first."""
    return await acting.read(lambda work: door_codes.door_codes_of_lock(work, device_id, page))


@get("/door-codes")
async def list_door_codes(
    acting: Acts,
    page: Paged,
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    booking_id: FromQuery[UUID | None] = None,
    device_id: FromQuery[UUID | None] = None,
    is_in: InState = None,
) -> Page[DoorCode]:
    """List the door codes that you may see, the newest first; also those of bookings and locks that are gone."""
    filters = {
        "organization_id": organization_id,
        "establishment_id": establishment_id,
        "booking_id": booking_id,
        "device_id": device_id,
        "state": is_in,
    }
    return await acting.read(lambda work: door_codes.door_codes(work, filtered(page, **filters)))


@get("/door-codes/{code_id:uuid}")
async def get_door_code(acting: Acts, code_id: FromPath[UUID]) -> DoorCode:
    """Read a code."""
    return await acting.read(lambda work: door_codes.door_code(work, code_id))


@post("/door-codes/{code_id:uuid}/retry", status_code=200)
async def retry_door_code(acting: Acts, code_id: FromPath[UUID]) -> DoorCode:
    """Have a code that its lock did not take, or did not lose, tried again at once: somebody has mended something."""
    return await acting.run(lambda work: door_codes.retry_door_code(work, code_id))


@get("/devices/{device_id:uuid}/door-lock", opt=NOT_A_LOCK)
async def get_door_lock(acting: Acts, device_id: FromPath[UUID]) -> DoorLock:
    """Read how a lock is looked after, and how many codes are, or may be, on it."""
    return await acting.read(lambda work: door_codes.door_lock(work, device_id))


@patch("/devices/{device_id:uuid}/door-lock")
async def change_door_lock(
    acting: Acts, device_id: FromPath[UUID], data: JSONBody[DoorLockChange], version: Version
) -> DoorLock:
    """Change how many backup codes wait on a lock, and how many wrong codes within how many minutes are an alarm."""
    command = door_codes.ChangeDoorLock(**given(data))
    return await acting.run(lambda work: door_codes.change_door_lock(work, device_id, command, version=version))


router = Router(
    path="/",
    tags=["door codes"],
    route_handlers=[
        list_door_codes_of_booking,
        pull_backup_code,
        list_door_codes_of_lock,
        list_door_codes,
        get_door_code,
        retry_door_code,
        get_door_lock,
        change_door_lock,
    ],
)
