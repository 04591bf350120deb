"""Claiming: who holds a device in his hands has it stand where he works, with the code that is printed on it.

A device is registered for an organisation before anybody knows where it will be. Who looks after one establishment does not see it,
for it stands nowhere yet; the code is what he has instead. It is worth something once, for this device, within its organisation: it
takes nothing away from any place. That a code is unknown, of another organisation, used up, or of a device that has its place, is
one answer.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol
from uuid import UUID

from hse.domain.devices.model import Device
from hse.domain.devices.ports import DevicesWork
from hse.domain.errors import DomainError, ErrorKind
from hse.domain.work import within_act

CLAIM: Final = "claim_device"
# Who may move a device may let somebody else do it, once.
GIVE_CODES: Final = "update_device"


class UnknownClaimCode(DomainError):
    """No device that waits for its place in this organisation has this code."""

    kind: ClassVar[ErrorKind] = ErrorKind.NOT_FOUND
    code: ClassVar[str] = "device-claims.unknown-code"

    def __init__(self) -> None:
        super().__init__("no device of this organisation that waits for its place has this code: look at it again")


class AlreadyPlaced(DomainError):
    """A device that stands somewhere is moved by who may, and not claimed."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "device-claims.already-placed"

    def __init__(self, device_id: UUID) -> None:
        super().__init__(f"device {device_id} has its place: only one that stands nowhere yet is claimed")
        self.device_id = device_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCode:
    """A code as it is told once (`text`), and what is kept of it."""

    text: str = field(repr=False)
    code_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedClaimCode:
    """A device's claim code, told this once."""

    device_id: UUID
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimDevice:
    """The code, and where its device stands from now on."""

    code: str = field(repr=False)
    establishment_id: UUID


class DeviceClaimStore(Protocol):
    """The codes that devices can be claimed with."""

    async def keep(self, device: Device, code: ClaimCode | None) -> None:
        """Let a device be claimed with this code and no other; with None, not at all."""

    async def claim(self, code: str, establishment_id: UUID) -> Device | None:
        """Have the device of the code stand there, and use the code up; None when there is none that may."""


class ClaimsWork(DevicesWork, Protocol):
    """A transaction with what is needed here."""

    @property
    def device_claims(self) -> DeviceClaimStore:
        """The codes."""

    def new_claim_code(self) -> ClaimCode:
        """A code that nobody can guess and everybody can type."""


async def issue_claim_code(work: ClaimsWork, device_id: UUID) -> IssuedClaimCode:
    """Give a device that stands nowhere yet a new claim code, told this once; the one that it had is worth nothing.

    Raises `NotFound`, `Forbidden`, `AlreadyPlaced`.
    """
    device = await within_act(work, work.devices, device_id, see="read_device", act=GIVE_CODES)
    if device.establishment_id is not None:
        raise AlreadyPlaced(device.id)
    code = work.new_claim_code()
    await work.device_claims.keep(device, code)
    return IssuedClaimCode(device_id=device.id, code=code.text)


async def revoke_claim_code(work: ClaimsWork, device_id: UUID) -> None:
    """Let a device be claimed no more. Raises `NotFound`, `Forbidden`."""
    device = await within_act(work, work.devices, device_id, see="read_device", act=GIVE_CODES)
    await work.device_claims.keep(device, None)


async def claim_device(work: ClaimsWork, command: ClaimDevice) -> Device:
    """Have a device stand at an establishment, with its claim code. Raises `NotFound`, `Forbidden`, `UnknownClaimCode`."""
    site = await within_act(work, work.establishments, command.establishment_id, see="read_establishment", act=CLAIM)
    device = await work.device_claims.claim(command.code, site.id)
    if device is None:
        raise UnknownClaimCode
    return device
