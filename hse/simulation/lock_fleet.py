"""Locks that are connected, lose their power now and then, and that people stand before.

What a lock must not lose with its power is a file of its own, closed to others: it holds the digits, as a lock does.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hse.simulation.commanded import Answer
from hse.simulation.devices import Address, Device, Totals
from hse.simulation.fleet import NoDevices
from hse.simulation.identities import Identity, next_boot, write_whole
from hse.simulation.locks import Lock, Usage
from hse.simulation.sources import Reported, microseconds

OFF_SECONDS = (5.0, 60.0)
WRONG_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """What happens to a lock, on average."""

    visits_per_hour: float = 6.0
    power_cuts_per_hour: float = 0.0


@dataclass(slots=True, kw_only=True)
class SimulatedLock:
    """A lock on its door: memory, connection, and what it has to report."""

    identity: Identity
    epoch: int
    address: Address
    totals: Totals
    path: Path
    days: Days = Days()
    lock: Lock = field(default_factory=Lock)
    reported: Reported = field(default_factory=Reported)

    async def run(self) -> None:
        """Be the lock until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._be_powered())
            tasks.create_task(self._be_visited())

    async def _be_powered(self) -> None:
        """Be connected, but while the power is off."""
        while True:
            powered = asyncio.create_task(self.device().run())
            try:
                await _after(self.days.power_cuts_per_hour)
            finally:
                powered.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await powered
            await asyncio.sleep(random.uniform(*OFF_SECONDS))  # noqa: S311

    async def _be_visited(self) -> None:
        while True:
            await _after(self.days.visits_per_hour)
            self.enter(self._what_somebody_enters(), datetime.now(UTC))

    def device(self) -> Device:
        """Its connection, from one power cut to the next."""
        return Device(
            identity=self.identity,
            epoch=self.epoch,
            source=self.reported,
            address=self.address,
            totals=self.totals,
            does=self.do,
        )

    def do(self, command_type: str, params: Mapping[str, Any]) -> Answer:
        """Do what a command says, and answer when it is kept."""
        answer = self.lock.do(command_type, params, datetime.now(UTC))
        self._save()
        return answer

    def enter(self, digits: str, now: datetime) -> Usage:
        """Somebody enters a code; it is kept, and reported."""
        usage = self.lock.enter(digits, now)
        self._save()
        self.reported.report([microseconds(usage.time), usage.event_type, None, None, usage.metadata])
        return usage

    def _what_somebody_enters(self) -> str:
        now = datetime.now(UTC)
        open_now = [code.digits for code in self.lock.codes.values() if code.opens(now)]
        if not open_now or random.random() < WRONG_SHARE:  # noqa: S311
            return f"{random.randrange(10**6):06}"  # noqa: S311
        return random.choice(open_now)  # noqa: S311

    def _save(self) -> None:
        write_whole(self.path, json.dumps(msgspec.to_builtins(asdict(self.lock))))


async def _after(times_per_hour: float) -> None:
    """Wait as long as it takes until something that happens so often happens."""
    if times_per_hour <= 0:
        await asyncio.Event().wait()
    await asyncio.sleep(random.expovariate(times_per_hour / 3600))


def locks_on_doors(
    directory: Path, identities: Sequence[Identity], address: Address, totals: Totals, days: Days
) -> list[SimulatedLock]:
    """Return a lock for each identity, with the memory that it had. Raises `NoDevices`."""
    if not identities:
        raise NoDevices(f"{directory} names no locks")
    epoch = next_boot(directory / "locks.boots")
    return [
        SimulatedLock(
            identity=identity,
            epoch=epoch,
            address=address,
            totals=totals,
            path=(path := directory / "locks" / f"{identity.device_id}.json"),
            days=days,
            lock=remembered(path),
        )
        for identity in identities
    ]


def remembered(path: Path) -> Lock:
    """The memory of a lock; an empty one when it is new."""
    return msgspec.json.decode(path.read_bytes(), type=Lock) if path.exists() else Lock()


async def run_locks(locks: Sequence[SimulatedLock]) -> None:
    """Run all locks until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for lock in locks:
            tasks.create_task(lock.run(), name=lock.identity.name)
