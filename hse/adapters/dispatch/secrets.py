"""What nobody may read of a command, opened at the last moment: between the claim and the call to the node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from hse.adapters.dispatch.offers import Settled
from hse.adapters.postgres.command_queues import ClaimedCommand, ReportedCommand
from hse.adapters.sealing import Sealer, WrongKey
from hse.domain.devices.device_commands import Report, Told

NO_KEY = "this worker has no HSE_SECRET_KEY to open it with"


@dataclass(slots=True, kw_only=True)
class Opened:
    """Claimed commands as they are handed over; reports on those that never can be, and the devices for which nothing is left."""

    commands: dict[UUID, Sequence[ClaimedCommand]] = field(default_factory=dict)
    refused: list[ReportedCommand] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)


def seal_params(sealer: Sealer, params: Mapping[str, Any]) -> bytes:
    """Params that only the device is to see."""
    return sealer.seal(msgspec.json.encode(params))


def open_secrets(claimed: Mapping[UUID, Sequence[ClaimedCommand]], sealer: Sealer | None, now: datetime) -> Opened:
    """Put what was sealed among the params. A worker without the key leaves all of such a device, in its order, to the others."""
    opened = Opened()
    for device_id, commands in claimed.items():
        if sealer is None and any(one.sealed_params is not None for one in commands):
            reasons = dict.fromkeys((one.id for one in commands), NO_KEY)
            opened.settled.append(Settled(device_id=device_id, not_taken=reasons, in_doubt=frozenset()))
            continue
        able: list[ClaimedCommand] = []
        for one in commands:
            try:
                able.append(_opened(one, sealer))
            except WrongKey as error:
                report = Report(told=Told.REFUSED, at=now, message=str(error))
                opened.refused.append(ReportedCommand(command_id=one.id, device_id=device_id, report=report))
        if able:
            opened.commands[device_id] = able
        else:
            opened.settled.append(Settled(device_id=device_id, not_taken={}, in_doubt=frozenset()))
    return opened


def _opened(command: ClaimedCommand, sealer: Sealer | None) -> ClaimedCommand:
    if command.sealed_params is None or sealer is None:
        return command
    secret = msgspec.json.decode(sealer.unseal(command.sealed_params), type=dict[str, Any])
    return replace(command, params={**command.params, **secret}, sealed_params=None)
