"""Whom a polling node does not wait for, and where it does not go."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest

from tests.faults.conditions import until
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.slaves import Slaves, definition, give_profile, newest_value, register
from tests.faults.wire import Credentials

TIMEOUT_MS = 2000
# Of a slave that is asked five times a second, on a machine that has other things to do; and no time-out fits into it.
GAP_SECONDS_MAX = 1.5


@pytest.fixture
async def nothing_is_left_to_poll(database: Database) -> AsyncIterator[None]:
    """After the test no other core has anything to poll."""
    yield
    await asyncio.to_thread(database.execute, "update devices set modbus = null where modbus is not null")


async def polling(new_core: NewCore, networks: str) -> Core:
    core = new_core(modbus_networks=networks, modbus_timeout_ms=TIMEOUT_MS, modbus_lease_s=3)
    await core.started()
    return core


class Gaps:
    """The longest time in which each of some slaves was not asked, as far as somebody looked."""

    def __init__(self, slaves: Slaves, unit_ids: tuple[int, ...]) -> None:
        self.longest = dict.fromkeys(unit_ids, 0.0)
        self._slaves = slaves
        self._seen = {unit_id: (0, time.monotonic()) for unit_id in unit_ids}

    def look(self) -> None:
        """Note who was asked meanwhile, and how long the others have not been."""
        now = time.monotonic()
        for unit_id, (num_requests, at) in self._seen.items():
            self.longest[unit_id] = max(self.longest[unit_id], now - at)
            if len(self._slaves[unit_id].requests) > num_requests:
                self._seen[unit_id] = (len(self._slaves[unit_id].requests), now)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Look until it holds."""

        def looked() -> bool:
            self.look()
            return holds()

        await until(looked, what, seconds=60)


async def _the_dead_delay_nobody(database: Database, devices: list[Credentials], framing: str) -> None:
    live, dead = (1, 2), 3
    async with Slaves((*live, dead), framing) as slaves:
        for unit_id, device in zip((*live, dead), devices, strict=True):
            slaves[unit_id].words[0] = 7
            defined = definition([register("a", 0)], poll_interval_ms=200)
            give_profile(database, device, defined, slaves.address(unit_id))
        # A core that was killed before may hold its shares for half a minute.
        await until(lambda: all(one.requests for one in slaves.slaves.values()), "all are asked", seconds=45)
        for device in devices:
            await newest_value(database, device, "a", 7)
        slaves[dead].is_silent = True
        asked = len(slaves[dead].requests)
        # Nobody knows yet that it is dead: this one time the others wait.
        await until(lambda: len(slaves[dead].requests) > asked, "it is asked")
        asked_live = len(slaves[live[0]].requests)
        await until(lambda: len(slaves[live[0]].requests) > asked_live + 1, "the others are asked again")
        gaps = Gaps(slaves, live)
        await gaps.until(lambda: len(slaves[dead].requests) > asked + 2, "the dead one is asked on and on")
        asked_live = len(slaves[live[0]].requests)
        await gaps.until(lambda: len(slaves[live[0]].requests) > asked_live + 1, "so are the others")
        assert max(gaps.longest.values()) < GAP_SECONDS_MAX, gaps.longest
        slaves[dead].is_silent, slaves[dead].words[0] = False, 9
        await newest_value(database, devices[-1], "a", 9)


@pytest.mark.usefixtures("nothing_is_left_to_poll")
async def test_the_dead_delay_none_of_those_behind_the_same_gateway(
    new_core: NewCore, database: Database, fleet: list[Credentials]
) -> None:
    ((organization_id,),) = database.execute("select organization_id from devices where id = %s", [fleet[0].device_id])
    await polling(new_core, f"{organization_id}=127.0.0.0/8")
    await asyncio.gather(
        _the_dead_delay_nobody(database, fleet[:3], "tcp"), _the_dead_delay_nobody(database, fleet[3:], "rtu_over_tcp")
    )


@pytest.mark.usefixtures("nothing_is_left_to_poll")
async def test_nobody_is_asked_whose_network_is_not_named_whatever_name_leads_there(
    new_core: NewCore, database: Database, fleet: list[Credentials]
) -> None:
    core = await polling(new_core, f"10.0.0.0/8, 0.0.0.0/0, ::/0, {uuid4()}=127.0.0.0/8")
    defined = definition([register("a", 0)], poll_interval_ms=100)
    async with Slaves() as slaves, Slaves() as others:
        give_profile(database, fleet[0], defined, slaves.address())
        give_profile(database, fleet[1], defined, {**others.address(), "host": "localhost"})

        def refusals() -> list[str]:
            return [line for line in core.log_lines() if "in no network that modbus_networks names" in line]

        await until(lambda: len(refusals()) >= 2, "both are refused", seconds=45)
        assert slaves.num_connections_most == others.num_connections_most == 0
