"""Live streams: who is told what, and whose stream ends when."""

import asyncio

import pytest
from litestar import Litestar

from hse.api.app import Parts, create_app
from hse.api.live import STREAMS_OF_USER_MAX
from tests.api.conftest import living
from tests.api.live import Open, add_watcher, device, devices_of, execute, streams_of
from tests.api.live_node import LiveNode
from tests.api.test_alarms import handle, report
from tests.api.world import World
from tests.faults.conditions import until

# grpc.aio wants one event loop a process.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_everybody_is_told_of_what_he_reaches_and_of_nothing_else(
    screens: Open, world: World, node: LiveNode
) -> None:
    own, unassigned, foreign = device(world), device(world, 1), world.other_tenant.sites[0].device_id
    people = {
        "root": (world.root, {own, unassigned, foreign}),
        "partner": (world.partner, {own, unassigned}),
        "chief": (world.chief, {own, unassigned}),
        "user": (world.user, {own}),
        "second": (world.other_site_admin, {unassigned}),
        "other chief": (world.other_chief, {foreign}),
    }
    opened = {name: await screens(person).opened() for name, (person, _) in people.items()}
    for number in range(3):
        for one in (foreign, unassigned, own):
            node.event(one, number)
    # What everybody sees of his own closes the round for him.
    for name, (_, seen) in people.items():
        told: list[tuple[str, dict[str, object]]] = []
        for _ in seen:
            told += await opened[name].value(2.0)
        assert devices_of(told) == {str(one) for one in seen}, name
        assert devices_of(told, "state") <= {str(one) for one in seen}, name
    assert node.num_subscriptions == 1, "however many streams there are, a node is heard once"


async def test_a_state_and_an_event_say_what_was_reported(screens: Open, world: World, node: LiveNode) -> None:
    screen = await screens(world.user).opened()
    node.connected(device(world))
    assert (await screen.next("state"))["is_connected"] is True
    node.event(device(world), 21.5, floor=3, room="B")
    event = await screen.next("event")
    assert (event["type"], event["value"], event["unit"]) == ("temperature", 21.5, "C")
    assert event["metadata"] == {"floor": 3, "room": "B"}
    state = await screen.next("state")
    assert (state["device_id"], state["is_connected"], state["last_event"]["value"]) == (str(device(world)), None, 21.5)
    node.connected(device(world), is_connected=False)
    assert (await screen.next("state"))["is_connected"] is False


async def test_filters_let_through_what_was_asked_for(screens: Open, world: World, node: LiveNode) -> None:
    first, second = device(world), device(world, 1)
    of_device = await screens(world.chief, device_id=second, kind="event").opened()
    of_site = await screens(world.chief, establishment_id=world.tenant.sites[1].id, kind="event").opened()
    of_type = await screens(world.chief, event_type=["humidity", "alarm"], kind="event").opened()
    states = await screens(world.chief, kind="state").opened()
    node.event(first, 1)
    node.event(second, 2)
    node.event(first, 3, "humidity")
    node.event(second, 4)
    for screen in (of_device, of_site):
        told = await screen.value(4.0)
        assert [one["value"] for name, one in told if name == "event"] == [2.0, 4.0]
        assert {name for name, _ in told} == {"event"}
    assert [one["value"] for _, one in await of_type.value(3.0)] == [3.0]
    await states.next("state", lambda one: one["last_event"]["value"] == 4.0)
    assert {name for name, _ in states.told} <= {"state"}


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"kind": "gossip"}, 422, "request.invalid"),
        ({"device_id": "of another tenant"}, 404, "resource.not-found"),
        ({"establishment_id": "of another tenant"}, 404, "resource.not-found"),
        ({"last_event_id": "nonsense"}, 422, "request.invalid"),
    ],
)
async def test_what_cannot_be_followed_is_refused(
    screens: Open, world: World, params: dict[str, object], status: int, code: str
) -> None:
    foreign = world.other_tenant.sites[0]
    known = {"device_id": foreign.device_id, "establishment_id": foreign.id}
    filled = {name: known.get(name, value) for name, value in params.items()}
    screen = screens(world.user, **filled)
    assert await screen.refused() == status
    assert screen.problem["code"] == code


async def test_nobody_and_who_may_not_see_devices_opens_none(screens: Open, world: World) -> None:
    blind = world.add_person_now(
        "blind@example.com", world.foreign_role, organization_id=world.other_tenant.id, sites=world.other_tenant.sites
    )
    for person, status in ((None, 401), (blind, 403)):
        assert await screens(person).refused() == status
    # He sees the device, and neither what it reports nor its alarms.
    for params in ({}, {"kind": "alarm"}, {"device_id": device(world)}):
        assert await screens(world.custom, **params).refused() == 403


async def test_a_device_that_is_moved_away_is_told_of_no_more(screens: Open, world: World, node: LiveNode) -> None:
    moved = device(world)
    new_home = world.tenant.sites[1]
    left = await screens(world.user, kind="event").opened()
    came = await screens(world.other_site_admin, kind="event").opened()
    node.event(moved, 1)
    await left.value(1.0)
    execute(world, "update devices set establishment_id = %s, area_id = null where id = %s", new_home.id, moved)
    # A device of his own, by which he tells that all before it was told.
    fence = world.add_device_now(world.tenant.sites[0])
    number = 2
    while not any(one.get("device_id") == str(moved) for _, one in came.told):
        node.event(moved, number)
        number += 1
        await asyncio.sleep(0.02)
    left.told.clear()
    for _ in range(3):
        node.event(moved, 1000)
    node.event(fence, 2000)
    told = await left.value(2000.0)
    assert devices_of(told) == {str(fence)}


async def test_who_is_assigned_elsewhere_is_told_of_what_stands_there(
    screens: Open, world: World, node: LiveNode
) -> None:
    first, second = world.tenant.sites
    screen = await screens(world.user, kind="event").opened()
    node.event(first.device_id, 1)
    await screen.value(1.0)
    execute(world, "update user_establishments set establishment_id = %s where user_id = %s", second.id, world.user.id)
    number = 2
    while not any(one.get("device_id") == str(second.device_id) for _, one in screen.told):
        node.event(second.device_id, number)
        number += 1
        await asyncio.sleep(0.02)
    screen.told.clear()
    node.event(first.device_id, 5000)
    node.event(second.device_id, 6000)
    assert devices_of(await screen.value(6000.0)) == {str(second.device_id)}


@pytest.mark.parametrize(
    "statement",
    [
        "update sessions set revoked_at = now() where user_id = %s",
        "update users set is_active = false where id = %s",
        "delete from users where id = %s",
    ],
)
async def test_the_end_of_a_session_or_of_a_user_is_the_end_of_the_stream(
    screens: Open, world: World, statement: str
) -> None:
    screen, other = await screens(world.user).opened(), await screens(world.second_user).opened()
    execute(world, statement, world.user.id)
    assert (await screen.next("end")) == {"reason": "session-ended"}
    await until(lambda: screen.is_over, "the stream is closed")
    assert not other.is_over


async def test_a_role_that_loses_the_permission_ends_the_streams_of_its_holders(screens: Open, world: World) -> None:
    watcher, role = add_watcher(world)
    screen = await screens(watcher).opened()
    execute(world, "delete from permissions where role_id = %s", role)
    await until(lambda: screen.is_over, "the stream is closed")
    assert (await screen.next("end")) == {"reason": "forbidden"}


async def test_a_person_has_only_so_many_streams(screens: Open, world: World) -> None:
    opened = [await screens(world.user).opened() for _ in range(STREAMS_OF_USER_MAX)]
    refused = screens(world.user)
    assert await refused.refused() == 429
    assert refused.problem["code"] == "live.too-many-streams"
    await screens(world.second_user).opened()
    await opened[0].close()
    await screens(world.user).opened()


async def test_a_reader_who_left_costs_nothing_more(screens: Open, live_app: Litestar, world: World) -> None:
    screen = await screens(world.user).opened()
    assert len(streams_of(live_app)._streams) == 1
    await screen.close()
    await until(lambda: not streams_of(live_app)._streams, "the stream is forgotten")
    assert streams_of(live_app).hub.num_streams == 0


async def test_an_alarm_is_told_as_it_is_raised_to_those_who_may_see_it(
    screens: Open, world: World, node: LiveNode
) -> None:
    told = await screens(world.user).opened()
    watcher, _ = add_watcher(world)
    not_told = [await screens(one).opened() for one in (watcher, world.other_site_admin, world.other_chief)]
    report(world, device(world), alarm_type="smoke", severity="critical")
    handle(world)
    alarm = await told.next("alarm")
    assert (alarm["type"], alarm["severity"], alarm["state"]) == ("smoke", "critical", "active")
    assert alarm["device_id"] == str(device(world))
    for one in (device(world), device(world, 1), world.other_tenant.sites[0].device_id):
        node.event(one, 7)
    for screen in not_told:
        assert [name for name, _ in await screen.value(7.0) if name == "alarm"] == []


async def test_without_a_way_to_the_nodes_alarms_are_told_all_the_same(
    screens: Open, parts: Parts, world: World
) -> None:
    app = create_app(parts)
    async with living(app):
        await until(lambda: streams_of(app)._is_told(), "notifications are heard")
        screen = await screens(world.user, app=app).opened()
        report(world, device(world), alarm_type="smoke")
        handle(world)
        assert (await screen.next("alarm"))["type"] == "smoke"
        await screen.close()
