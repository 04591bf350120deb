"""Live streams that break off and go on, nodes that cannot be heard, and what a slow reader costs the others."""

import pytest
from litestar import Litestar

from hse.adapters.live.subscription import EVENTS_WAITING_MAX, STATES_WAITING_MAX
from hse.api import health
from hse.api.app import Parts, create_app
from tests.api.conftest import client_of, living
from tests.api.live import Open, device, devices_of, streams_of
from tests.api.live_node import LiveNode
from tests.api.world import World
from tests.faults.conditions import until

# grpc.aio wants one event loop a process.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_slow_reader_is_told_what_he_missed_and_slows_nobody(
    screens: Open, live_app: Litestar, world: World, node: LiveNode
) -> None:
    slow = [await screens(world.user).opened() for _ in range(10)]
    slow += [await screens(world.chief).opened() for _ in range(10)]
    fast = await screens(world.admin, kind="event").opened()
    for screen in slow:
        screen.stop_reading()
    count = 2 * EVENTS_WAITING_MAX
    for number in range(count):
        node.event(device(world), number)
        if number % 100 == 99:
            await fast.value(float(number))
    for stream in streams_of(live_app)._streams:
        assert stream.subscription.num_waiting <= EVENTS_WAITING_MAX + STATES_WAITING_MAX
    slow[0].go_on_reading()
    missed = await slow[0].next("missed")
    assert 0 < missed["num_missed"] < count
    last = await slow[0].next("event", lambda one: one["value"] == count - 1)
    assert last["device_id"] == str(device(world))


async def test_what_the_node_could_not_send_is_told_to_everybody(screens: Open, world: World, node: LiveNode) -> None:
    screen = await screens(world.user).opened()
    await until(lambda: node.num_subscriptions == 1, "the node is heard")
    node.missed(17)
    assert await screen.next("missed") == {"num_missed": 17}


async def test_a_connection_to_a_node_that_breaks_is_shown_and_nothing_is_lost(
    screens: Open, world: World, node: LiveNode
) -> None:
    screen = await screens(world.user, kind="event").opened()
    node.event(device(world), 1)
    await screen.value(1.0)
    await node.stop()
    assert await screen.next("sources") == {"num_nodes": 1, "num_away": 1}
    for number in range(2, 6):
        node.event(device(world), number)
    await node.start(is_new_run=False)
    told = await screen.value(5.0)
    assert [one["value"] for name, one in told if name == "event"] == [2.0, 3.0, 4.0, 5.0]
    assert [name for name, _ in told if name == "missed"] == []
    node.event(device(world), 6)
    told += await screen.value(6.0)
    assert ("sources", {"num_nodes": 1, "num_away": 0}) in told


async def test_the_breaker_before_a_node_is_shown(
    screens: Open, live_app: Litestar, world: World, node: LiveNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REMEMBERED_SECONDS", 0)
    await screens(world.user).opened()
    async with client_of(live_app) as api:

        async def readiness() -> str:
            found = (await api.get("/health/readiness")).json()
            assert found["status"] == "ready"
            return str(found["ingest_nodes"])

        assert await readiness() == "closed"
        await node.stop()
        circuits = streams_of(live_app).hub._link.ingest.circuits  # type: ignore[union-attr]
        await until(lambda: circuits()[node.name] == 2, "the breaker opens", seconds=30)
        assert await readiness() == "open"
        assert f'hse_api_ingest_node_circuit{{node="{node.name}"}} 2.0' in (await api.get("/metrics")).text
        await node.start(is_new_run=False)
        await until(lambda: circuits()[node.name] == 0, "the node answers again", seconds=60)
        assert await readiness() == "closed"


async def test_another_run_of_a_node_is_heard_from_its_beginning(screens: Open, world: World, node: LiveNode) -> None:
    screen = await screens(world.user, kind="event").opened()
    node.event(device(world), 1)
    await screen.value(1.0)
    await node.stop()
    await screen.next("sources", lambda one: one["num_away"] == 1)
    await node.start()
    node.event(device(world), 2)
    told = await screen.value(2.0)
    assert ("missed", {"num_missed": None}) in told, "nobody knows what the last run still told"


async def test_a_reader_goes_on_where_he_was_at_another_process(
    screens: Open, live_parts: Parts, world: World, node: LiveNode
) -> None:
    first = await screens(world.user, kind="event").opened()
    node.event(device(world), 1)
    await first.value(1.0)
    first.last_id = None
    position = await first.position()
    await first.close()
    for number in range(2, 5):
        node.event(device(world), number)
        node.event(world.other_tenant.sites[0].device_id, number)
    restarted = create_app(live_parts)
    async with living(restarted):
        second = await screens(world.user, app=restarted, kind="event", last_event_id=position).opened()
        node.event(device(world), 5)
        told = await second.value(5.0)
        assert [one["value"] for name, one in told if name == "event"] == [2.0, 3.0, 4.0, 5.0]
        assert devices_of(told) == {str(device(world))}
        new = await screens(world.user, app=restarted, kind="event").opened()
        node.event(device(world), 6)
        told = await new.value(6.0)
        assert [one["value"] for name, one in told if name == "event"] == [6.0], (
            "what is past is for those who were there"
        )
        await second.close()
        await new.close()


async def test_a_reader_who_comes_too_late_is_told_that_he_missed_something(
    screens: Open, live_parts: Parts, world: World, node: LiveNode
) -> None:
    first = await screens(world.user, kind="event").opened()
    node.event(device(world), 0)
    await first.value(0.0)
    first.last_id = None
    position = await first.position()
    await first.close()
    for number in range(1, 151):
        node.event(device(world), number)
    restarted = create_app(live_parts)
    async with living(restarted):
        second = await screens(world.user, app=restarted, kind="event", last_event_id=position).opened()
        told = await second.value(150.0)
        assert [one for name, one in told if name == "missed"] == [{"num_missed": 50}]
        assert [one["value"] for name, one in told if name == "event"] == [float(number) for number in range(51, 151)]
        await second.close()


async def test_a_process_that_ends_tells_its_readers_to_come_back(
    screens: Open, live_app: Litestar, world: World
) -> None:
    screen = await screens(world.user).opened()
    streams_of(live_app).end_all()
    assert await screen.next("end") == {"reason": "shutting-down"}
    late = screens(world.user)
    assert await late.next("end") == {"reason": "shutting-down"}
