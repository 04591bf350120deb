"""The codes that devices are claimed with. What a code may do is said by `hse_claim_device`, beside the table."""

from typing import cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hse.adapters.postgres.devices import Devices
from hse.adapters.postgres.stores import Transaction, record_of
from hse.adapters.postgres.tables import device_claims
from hse.adapters.tokens import hash_of
from hse.domain.devices.device_claims import ClaimCode
from hse.domain.devices.model import Device
from hse.domain.policy import EVERYWHERE
from hse.domain.work import Record

# Without what is taken for another one, as 0 for O and B for 8, and without vowels, so that no word comes of it.
UNMISTAKABLE = "23456789CDFGHJKMNPQRTVWXY"
# 2^74 of them: too many to be guessed by who must sign in and wait his turn.
CLAIM_CHARS = 16
GROUP_CHARS = 4

claim_device = sa.text("select hse_claim_device(:code_hash, :establishment_id)").bindparams(
    sa.bindparam("code_hash", type_=sa.LargeBinary), sa.bindparam("establishment_id", type_=sa.Uuid)
)


def code_of(characters: str) -> ClaimCode:
    """The code of these characters, in groups as it is printed."""
    groups = [characters[at : at + GROUP_CHARS] for at in range(0, len(characters), GROUP_CHARS)]
    return ClaimCode(text="-".join(groups), code_hash=hash_of_code(characters))


def hash_of_code(text: str) -> bytes:
    """The hash of a code however somebody typed it: small letters, spaces and hyphens are nothing to it."""
    return hash_of("".join(text.upper().split()).replace("-", ""))


class DeviceClaims:
    """The codes that devices can be claimed with: each a hash, as a token is."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def keep(self, device: Device, code: ClaimCode | None) -> None:
        """Let a device be claimed with this code and no other; with None, not at all."""
        if code is None:
            gone = sa.delete(device_claims).where(device_claims.c.device_id == device.id)
            if (await self._connection.execute(gone)).rowcount == 0:
                return
        else:
            values = {"code_hash": code.code_hash, "created_by": self._transaction.actor_id}
            kept = insert(device_claims).values(device_id=device.id, **values)
            # One that the device offered by itself has an end.
            replaced = values | {"expires_at": None}
            kept = kept.on_conflict_do_update(index_elements=[device_claims.c.device_id], set_=replaced)
            await self._connection.execute(kept)
        verb = "revoke_claim_code" if code is None else "issue_claim_code"
        await self._transaction.record(
            Record(
                action=f"device.{verb}",
                entity_type="device",
                entity_id=str(device.id),
                organization_id=device.organization_id,
                establishment_id=device.establishment_id,
            )
        )

    async def claim(self, code: str, establishment_id: UUID) -> Device | None:
        """Have the device of the code stand there, and use the code up; None when there is none that may."""
        given = {"code_hash": hash_of_code(code), "establishment_id": establishment_id}
        device_id = (await self._connection.execute(claim_device, given)).scalar_one()
        if device_id is None:
            return None
        # It stands where the actor acts now, so this transaction sees it.
        device = cast("Device", await Devices(self._transaction).find(device_id, EVERYWHERE))
        await self._transaction.record(record_of("device", "claim", None, device))
        return device
