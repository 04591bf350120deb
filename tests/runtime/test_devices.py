"""Simulated devices behave as PROTOCOL.md asks: nothing is lost or changed through BUSY, cuts and restarts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from hse.simulation.devices import Address, Device, Totals
from hse.simulation.identities import Identity, load_identities, next_boot, save_identities
from hse.simulation.meters import Reading, Series
from hse.simulation.sources import Replay, Source, Synthetic
from tests.runtime.fake_core import FakeCore, serving

IDENTITY = Identity(device_id=uuid4(), token="t" * 43, name="one")
BEGAN = datetime(2026, 11, 2, tzinfo=UTC)


def device(core: FakeCore, source: Source, epoch: int = 1) -> Device:
    address = Address(host="127.0.0.1", port=core.port)
    return Device(identity=IDENTITY, epoch=epoch, source=source, address=address, totals=Totals())


def hourly(count: int) -> Series:
    readings = tuple(
        Reading(offset=timedelta(hours=n), event_type="energy", value=float(n), unit="kWh") for n in range(count)
    )
    return Series(began_at=BEGAN - timedelta(weeks=200), period=timedelta(hours=count), readings=readings)


@contextlib.asynccontextmanager
async def running(one: Device) -> AsyncIterator[None]:
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(is_true: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_true():  # noqa: ASYNC110 (the condition is of another task and tells nobody)
            await asyncio.sleep(0.01)


async def test_every_event_arrives_once_and_in_order_through_busy_and_cuts() -> None:
    core = FakeCore(busy_at=frozenset({2, 5, 6}), cut_at=frozenset({4, 9}))
    async with serving(core):
        one = device(core, Synthetic(events_per_second=500, batch=10, phase=0.0))
        async with running(one):
            await until(lambda: core.num_frames > 15 and one.acknowledged_seq >= 300)
    seqs = [seq for _, seq in core.taken]
    assert seqs == list(range(1, len(seqs) + 1))
    assert core.contradictions == []
    assert core.num_hellos == 3
    assert one.totals.busy >= 3
    times = [event[0] for event in core.taken.values()]
    assert times == sorted(times)


async def test_a_core_that_comes_later_is_waited_for() -> None:
    core = FakeCore()
    async with serving(core):
        pass
    one = device(core, Synthetic(events_per_second=100, batch=1, phase=0.0))
    async with running(one):
        await until(lambda: one.totals.reconnects >= 2)
        async with serving(core):
            await until(lambda: one.acknowledged_seq >= 10)
    assert core.contradictions == []


async def test_a_replay_goes_on_where_the_core_says_and_never_says_something_else() -> None:
    core = FakeCore()
    async with serving(core):
        for goal in (40, 90):
            # A new process each time: it knows nothing but the epoch.
            replay = Replay(series=hourly(30).shifted(BEGAN), speed=360_000.0)
            one = device(core, replay, epoch=77)
            async with running(one):
                await until(lambda goal=goal: core.last_seq(77) >= goal)  # type: ignore[misc]
    assert core.contradictions == []
    values = [event[2] for event in core.taken.values()]
    assert values == [float(n % 30) for n in range(len(values))]


def test_a_replay_never_runs_ahead_of_now_and_then_keeps_its_pace() -> None:
    now = BEGAN
    replay = Replay(series=hourly(24 * 7).shifted(BEGAN), speed=3600.0 * 24 * 7, now=lambda: now)
    assert len(replay.due(1, 10_000)) == 1
    now += timedelta(seconds=1)
    assert len(replay.due(1, 10_000)) == 24 * 7 + 1
    now += timedelta(days=1)
    caught_up = replay.due(1, 100_000)
    last_us = caught_up[-1][0]
    assert isinstance(last_us, int)
    assert now - timedelta(hours=1) < datetime.fromtimestamp(last_us / 1e6, UTC) <= now
    now += timedelta(hours=2)
    assert len(replay.due(1, 100_000)) == len(caught_up) + 2


def test_a_boot_counter_only_grows(tmp_path: Path) -> None:
    assert [next_boot(tmp_path / "fleet.boots") for _ in range(3)] == [1, 2, 3]


def test_identities_are_kept_closed(tmp_path: Path) -> None:
    path = tmp_path / "simulation" / "fleet.json"
    save_identities(path, [IDENTITY])
    assert load_identities(path) == [IDENTITY]
    assert path.stat().st_mode & 0o077 == 0
    assert IDENTITY.token not in repr(IDENTITY)
