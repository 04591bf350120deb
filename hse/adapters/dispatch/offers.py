"""Which node has taken what of the commands of one claim."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from hse.adapters.postgres.command_queues import ClaimedCommand

# A node takes so many in one call.
COMMANDS_PER_CALL_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A device whose commands have each been taken, or not by any node. `not_taken` are surely not at the device, and why."""

    device_id: UUID
    not_taken: Mapping[UUID, str]
    # Of these nobody knows.
    in_doubt: frozenset[UUID]

    @property
    def were_all_taken(self) -> bool:
        """Whether a node has each of them."""
        return not self.not_taken and not self.in_doubt


class Offer:
    """The commands of some devices, offered to some nodes at the same time. A device is connected to one of them, or to none.

    `settled` is called once for each device, as soon as it is clear which of its commands were taken: a node that does not answer
    holds up only devices that no other one has.
    """

    def __init__(
        self,
        by_device: Mapping[UUID, Sequence[ClaimedCommand]],
        nodes: Collection[str],
        settled: Callable[[Settled], None],
        reasons: Mapping[UUID, str],
    ) -> None:
        self._settled = settled
        self._device_of = {one.id: device_id for device_id, commands in by_device.items() for one in commands}
        self._num_open = {device_id: len(commands) for device_id, commands in by_device.items()}
        self._asked = {command_id: set(nodes) for command_id in self._device_of}
        self._reasons = dict(reasons)
        self._doubts: set[UUID] = set()
        self._decided: set[UUID] = set()
        self._not_taken: dict[UUID, dict[UUID, str]] = {device_id: {} for device_id in by_device}
        self._in_doubt: dict[UUID, set[UUID]] = {device_id: set() for device_id in by_device}

    def taken(self, command_id: UUID) -> None:
        """A node has it, or will never send it."""
        self._decide(command_id)

    def not_taken(self, command_id: UUID, node: str, reason: str) -> None:
        """A node has nothing of it: it says so."""
        self._reasons.setdefault(command_id, reason)
        self._answered(command_id, node)

    def out_of_reach(self, command_id: UUID, node: str, reason: str) -> None:
        """A node has nothing of it: it could not be asked, which is the reason that people are told."""
        self._reasons[command_id] = reason
        self._answered(command_id, node)

    def in_doubt(self, command_id: UUID, node: str) -> None:
        """A node may have it, and did not say."""
        self._doubts.add(command_id)
        self._answered(command_id, node)

    def _answered(self, command_id: UUID, node: str) -> None:
        asked = self._asked[command_id]
        asked.discard(node)
        if asked or command_id in self._decided:
            return
        device_id = self._device_of[command_id]
        if command_id in self._doubts:
            self._in_doubt[device_id].add(command_id)
        else:
            self._not_taken[device_id][command_id] = self._reasons[command_id]
        self._decide(command_id)

    def _decide(self, command_id: UUID) -> None:
        if command_id in self._decided:
            return
        self._decided.add(command_id)
        device_id = self._device_of[command_id]
        self._num_open[device_id] -= 1
        if self._num_open[device_id] == 0:
            not_taken, in_doubt = self._not_taken[device_id], frozenset(self._in_doubt[device_id])
            self._settled(Settled(device_id=device_id, not_taken=not_taken, in_doubt=in_doubt))


def parts_of(by_device: Mapping[UUID, Sequence[ClaimedCommand]]) -> list[dict[UUID, ClaimedCommand]]:
    """The commands in calls that a node takes; those of one device stay together, in order."""
    parts: list[dict[UUID, ClaimedCommand]] = [{}]
    for commands in by_device.values():
        if len(parts[-1]) + len(commands) > COMMANDS_PER_CALL_MAX:
            parts.append({})
        parts[-1].update((one.id, one) for one in commands)
    return parts
