"""Simulated locks do what they are told, keep it through a loss of power, and report what is done with them."""

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from hse.simulation.devices import Address, Totals
from hse.simulation.identities import Identity
from hse.simulation.lock_fleet import Days, SimulatedLock, locks_on_doors
from tests.runtime.fake_core import FakeCore, serving
from tests.runtime.test_devices import until

NOW = datetime.now(UTC)
KNOWN = uuid4()
QUIET = Days(visits_per_hour=0.0)
STAY = {"valid_from": (NOW - timedelta(hours=1)).isoformat(), "valid_until": (NOW + timedelta(days=1)).isoformat()}


def one_lock(directory: Path, port: int = 1, days: Days = QUIET) -> SimulatedLock:
    identity = Identity(device_id=KNOWN, token="t" * 43, name="front door")
    (lock,) = locks_on_doors(directory, [identity], Address(host="127.0.0.1", port=port), Totals(), days)
    return lock


def test_a_lock_that_was_without_power_remembers_its_codes_and_who_guessed(tmp_path: Path) -> None:
    lock = one_lock(tmp_path)
    assert lock.do("set_code", {"code_id": "a", "version": 1, "code": "482913", "max_usages": 3, **STAY}).status == 0
    lock.enter("482913", NOW)
    lock.enter("000000", NOW)
    again = one_lock(tmp_path)
    assert again.lock == lock.lock
    assert (again.lock.codes["a"].num_usages, len(again.lock.wrong)) == (1, 1)
    (memory,) = (tmp_path / "locks").iterdir()
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600


async def test_a_lock_answers_commands_and_reports_what_was_entered(tmp_path: Path) -> None:
    core = FakeCore(cut_at=frozenset({2}))
    async with serving(core):
        lock = one_lock(tmp_path, core.port, Days(visits_per_hour=100_000))
        lock.do("set_code", {"code_id": "a", "version": 1, "code": "482913", "max_usages": None, **STAY})
        running = asyncio.create_task(lock.run())
        await until(lambda: len(core.taken) > 30)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    reports = [event for _, event in sorted(core.taken.items())]
    assert {event[1] for event in reports} <= {"code_used", "code_rejected"}
    assert any(event[4] == {"code_id": "a"} for event in reports)
    assert "482913" not in str(reports)
