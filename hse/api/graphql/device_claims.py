"""Claiming: who holds a device in his hands has it stand where he works, with the code that is printed on it."""

import strawberry

from hse.api.bodies import given
from hse.api.graphql.connections import node_of
from hse.api.graphql.entities import DEVICES
from hse.api.graphql.mutations import acts, acts_once, makes
from hse.api.graphql.types import mirrors
from hse.api.rest import device_claims as bodies
from hse.domain.devices import device_claims as desk


@mirrors(desk.IssuedClaimCode)
class IssuedClaimCode:
    """A device's claim code."""


@strawberry.type
class DeviceClaimsMutation:
    """What may be done with claim codes."""

    issue_claim_code = acts_once(desk.issue_claim_code, IssuedClaimCode)
    revoke_claim_code = acts(desk.revoke_claim_code)
    claim_device = makes(
        node_of(DEVICES), bodies.DeviceClaim, lambda wanted, _: desk.ClaimDevice(**given(wanted)), desk.claim_device
    )
