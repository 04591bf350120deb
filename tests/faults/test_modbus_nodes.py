"""Nodes that poll: where they connect to, and what becomes of it when they die, are several, or have no database."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.slaves import LOCAL, Slaves, definition, give_profile, register, told
from tests.faults.wire import Credentials


@pytest.fixture(autouse=True)
def nobody_else_polls(database: Database) -> Iterator[None]:
    """No node of another test has shares, and none is left anything to poll."""
    database.execute("delete from polling_nodes")
    database.execute("update polling_shares set holder = null, until = null")
    yield
    database.execute("update devices set modbus = null where modbus is not null")


async def test_this_machine_is_not_connected_to_unless_its_operator_allows_it(
    new_core: NewCore, database: Database, fleet: list[Credentials]
) -> None:
    core = new_core()
    async with Slaves() as slaves:
        give_profile(database, fleet[0], definition([register("a", 0)]), slaves.address())
        by_name = {**slaves.address(), "host": "localhost"}
        give_profile(database, fleet[1], definition([register("a", 0)]), by_name)
        await core.started()
        await until_in_thread(lambda: core.metric("modbus_polls_total") >= 3, "it was tried")
        assert slaves.num_connections_most == 0
        assert not slaves[1].requests
        assert "127.0.0.1" in "".join(line for line in core.log_lines() if "away" in line)


async def test_a_killed_core_doubles_nothing_and_goes_on(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    core = new_core(**LOCAL)
    num_kills = 4
    async with Slaves() as slaves:
        slaves[1].counts_reads = True
        give_profile(database, device, definition([register("a", 0)], poll_interval_ms=100), slaves.address())
        stored: set[object] = set()
        for _ in range(num_kills):
            await core.started()
            await polled_on(slaves, 8)
            await core.kill()
            kept = [row[1] for row in await told(database, device)]
            assert stored <= set(kept)
            stored = set(kept)
        await core.started()
        await until_in_thread(lambda: core.metric("events_stored_total") >= 5, "it stores")
        assert await core.stop() == 0
    values = [row[1] for row in await told(database, device)]
    assert len(values) == len(set(values))
    # Of each life at most what was on its way to the disk is missing, and what was read after the registry's last word.
    assert len(values) >= len(slaves[1].reads()) - 4 * (num_kills + 1)


async def test_of_two_nodes_one_polls_and_the_other_follows(
    new_core: NewCore, database: Database, fleet: list[Credentials]
) -> None:
    nodes = [new_core(node_name=name, modbus_lease_s=4, **LOCAL) for name in ("one", "two")]

    def polled(node: Core) -> float:
        return node.metric("modbus_endpoints")

    async def each_has_a_fair_part() -> None:
        select = "select count(*) from polling_shares where holder is not null group by holder"
        await until_in_thread(lambda: database.execute(select) == [(8,), (8,)], "each has a fair part", seconds=30)

    async with contextlib.AsyncExitStack() as stack:
        endpoints = [await stack.enter_async_context(Slaves()) for _ in fleet]
        for slaves, device in zip(endpoints, fleet, strict=True):
            slaves[1].counts_reads = True
            give_profile(database, device, definition([register("a", 0)]), slaves.address())
        for node in nodes:
            await node.started()
        await each_has_a_fair_part()
        await until_in_thread(lambda: sum(map(polled, nodes)) == len(fleet), "each is polled", seconds=30)
        await nodes[0].kill()
        await until_in_thread(lambda: polled(nodes[1]) == len(fleet), "the other takes over", seconds=30)
        for slaves, device in zip(endpoints, fleet, strict=True):
            await polled_on(slaves)
            assert slaves.num_connections_most == 1
            values = [row[1] for row in await told(database, device)]
            assert len(values) == len(set(values))
        # A node that stops gives its shares away, and does not have others wait.
        await nodes[0].started()
        await each_has_a_fair_part()
        assert await nodes[1].stop() == 0
        assert database.execute("select node from polling_nodes") == [("one",)]


async def polled_on(slaves: Slaves, count: int = 3) -> None:
    """Wait until a slave was read so many times more."""
    before = len(slaves[1].reads())
    await until(lambda: len(slaves[1].reads()) >= before + count, "it is polled on", seconds=30)


async def test_polling_goes_on_while_the_database_is_away(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    core = new_core(modbus_lease_s=3, **LOCAL)
    async with Slaves() as slaves:
        slaves[1].counts_reads = True
        give_profile(database, device, definition([register("a", 0)]), slaves.address())
        await core.started()
        await told(database, device)
        await database.kill()
        away_since = len(slaves[1].reads())
        # For longer than the lease lasts.
        await polled_on(slaves, 25)
        await database.start()
        await told(database, device, count=away_since + 20)
        values = [row[1] for row in await told(database, device)]
        assert len(values) == len(set(values))
