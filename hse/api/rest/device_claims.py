"""Claiming: who holds a device in his hands has it stand where he works, with the code that is printed on it."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, post
from litestar.params import FromPath, JSONBody

from hse.api.acting import Acts
from hse.api.bodies import LINE, Body, given
from hse.domain.devices import device_claims as desk
from hse.domain.devices.device_claims import IssuedClaimCode
from hse.domain.devices.model import Device

Code = Annotated[str, msgspec.Meta(min_length=1, max_length=60, pattern=LINE, examples=["K7MX-2P9Q-RT4C-7WXY"])]


class DeviceClaim(Body):
    """The code that is printed on the device, however it is typed, and where the device stands from now on."""

    code: Code
    establishment_id: UUID


@post("/devices/{device_id:uuid}/claim-code")
async def issue_claim_code(once: Acts, device_id: FromPath[UUID]) -> IssuedClaimCode:
    """Give a device that stands nowhere yet a claim code, shown this once. The one that it had is worth nothing from now on."""
    return await once.run(lambda work: desk.issue_claim_code(work, device_id), status=201)


@delete("/devices/{device_id:uuid}/claim-code")
async def revoke_claim_code(acting: Acts, device_id: FromPath[UUID]) -> None:
    """Let a device be claimed no more."""
    await acting.run(lambda work: desk.revoke_claim_code(work, device_id))


@post("/device-claims", status_code=200)
async def claim_device(once: Acts, data: JSONBody[DeviceClaim]) -> Device:
    """Have a device of this organisation that stands nowhere yet stand at an establishment, with the code that is printed on it.

    You need not see the device before. A code is good once; an unknown one, one of another organisation and one of a device that
    has its place are one answer, 404 `device-claims.unknown-code`.
    """
    command = desk.ClaimDevice(**given(data))
    return await once.run(lambda work: desk.claim_device(work, command))


router = Router(path="/", tags=["devices"], route_handlers=[issue_claim_code, revoke_claim_code, claim_device])
