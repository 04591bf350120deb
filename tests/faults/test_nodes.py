"""Several nodes with one database behind a balancer: devices move between them, and one is killed."""

import pytest

from tests.faults.balancer import Balancer
from tests.faults.checker import Checker
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials

NUM_MOVES = 5
# Resent after a move are events that another node may still hold in its journal.
RESTLESS = Plan(pause_seconds=0.002, resend_max=60)


@pytest.fixture
async def nodes(new_core: NewCore, fleet: list[Credentials]) -> list[Core]:
    assert fleet  # registered before the nodes start
    made = [new_core(node_name=name) for name in ("a", "b")]
    for node in made:
        await node.started()
    return made


async def stored(nodes: list[Core], checker: Checker) -> None:
    """Wait until nothing is left that might still be stored, also a second time."""
    await checker.until_stored()
    await until_in_thread(
        lambda: all(node.metric("journal_bytes") == 0 for node in nodes), "the journals are empty", seconds=60
    )


async def test_devices_move_between_nodes_and_nothing_is_lost_or_doubled(
    nodes: list[Core], fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with (
        Balancer([node.port for node in nodes]).listening() as balancer,
        Load(balancer.port, fleet, recorder, RESTLESS) as load,
    ):
        for _ in range(NUM_MOVES):
            await load.progress(300)
            balancer.cut_all()
        await load.progress(300)
        await load.settle()
        assert all(taken > len(fleet) for taken in balancer.taken.values()), balancer.taken
    await stored(nodes, checker)
    checker.check(acked_min=300 * NUM_MOVES)


async def test_the_devices_of_a_node_that_is_killed_go_on_at_the_other(
    nodes: list[Core], fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    first, second = nodes
    async with (
        Balancer([first.port, second.port]).listening() as balancer,
        Load(balancer.port, fleet, recorder, RESTLESS) as load,
    ):
        await load.progress(500)
        await first.kill()
        await load.progress(1000)
        await until_in_thread(lambda: second.metric("connections") == len(fleet), "all are at the other node")
        # What it acknowledged lies in its journal, and the events behind that are stored by the other.
        await first.started()
        balancer.cut_all()
        await load.progress(500)
        await load.settle()
    await stored(nodes, checker)
    checker.check(acked_min=2000)


async def test_what_was_acknowledged_by_a_node_that_is_away_is_stored_once_when_it_is_back(
    nodes: list[Core], database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    first, second = nodes
    async with (
        Balancer([first.port, second.port]).listening() as balancer,
        Load(balancer.port, fleet, recorder, RESTLESS) as load,
    ):
        # Nothing drains, so that both journals hold parts of the same sequences.
        database.freeze()
        try:
            for _ in range(NUM_MOVES):
                await load.progress(200)
                balancer.cut_all()
            await first.kill()
        finally:
            database.thaw()
        await load.progress(500)
        await first.started()
        await load.settle()
    await stored(nodes, checker)
    checker.check(acked_min=200 * NUM_MOVES + 500)
    # Both held some of the same events, or this has shown nothing.
    assert sum(node.metric("events_already_stored_total") for node in nodes) > 0
