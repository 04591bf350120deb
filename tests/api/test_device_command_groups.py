"""One command to many devices over REST: whom it reaches, and what is known of all of them together."""

from typing import Any

import psycopg
import pytest

from tests.api.conftest import Client, problem_of
from tests.api.graphql import data, nodes
from tests.api.test_device_commands import COMMANDS, DEVICES, GROUPS, sent
from tests.api.world import Person, World

AREAS = "/api/v1/areas"


async def add_device(api: Client, world: World, number: int = 0, **body: Any) -> str:
    """Register a device at a site."""
    body = {"name": "Lock", "establishment_id": str(world.tenant.sites[number].id), **body}
    response = await api.post(DEVICES, headers=world.chief.headers, json=body)
    assert response.status_code == 201, response.text
    made: str = response.json()["id"]
    return made


async def add_area(api: Client, world: World, name: str, parent: str) -> str:
    body = {"establishment_id": str(world.tenant.sites[0].id), "parent_area_id": parent, "name": name, "type": "floor"}
    made: str = (await api.post(AREAS, headers=world.chief.headers, json=body)).json()["id"]
    return made


async def reached(api: Client, person: Person, **target: Any) -> set[str]:
    """The devices that a group of commands goes to."""
    group = await sent(api, person, GROUPS, target=target)
    response = await api.get(COMMANDS, headers=person.headers, params={"group_id": group["id"], "limit": 200})
    found = {item["device_id"] for item in response.json()["items"]}
    assert group["num_commands"] == len(found) == sum(group["states"].values())
    assert all(item["params"] == group["params"] for item in response.json()["items"])
    return found


async def test_an_area_counts_with_all_that_lies_in_it(api: Client, world: World) -> None:
    hall, device = str(world.tenant.sites[0].area_id), str(world.tenant.sites[0].device_id)
    floor = await add_area(api, world, "Floor", hall)
    room = await add_area(api, world, "Room", floor)
    in_floor, in_room = await add_device(api, world, area_id=floor), await add_device(api, world, area_id=room)
    await add_device(api, world)
    assert await reached(api, world.admin, area_id=hall) == {device, in_floor, in_room}
    assert await reached(api, world.admin, area_id=room) == {in_room}


async def test_an_establishment_an_organisation_and_a_filter_reach_what_one_may_command(
    api: Client, world: World
) -> None:
    first, second = (str(site.device_id) for site in world.tenant.sites)
    lock = await add_device(api, world, 1, device_type="lock", manufacturer="Assa", model="L1")
    await add_device(api, world, 1, device_type="lock", is_enabled=False)
    await add_device(api, world, 0, gateway_id=first)
    establishment = str(world.tenant.sites[1].id)
    assert await reached(api, world.chief, establishment_id=establishment) == {second, lock}
    assert await reached(api, world.chief) == {first, second, lock}
    assert await reached(api, world.admin) == {first}
    assert await reached(api, world.partner, organization_id=str(world.tenant.id)) == {first, second, lock}
    assert await reached(api, world.chief, device_type="lock", manufacturer="Assa", model="L1") == {lock}
    assert await reached(api, world.chief, protocol="hdp", establishment_id=establishment) == {second, lock}


@pytest.mark.parametrize(
    ("who", "target", "status", "code"),
    [
        ("root", {}, 422, "request.invalid"),
        ("chief", {"device_type": "boiler"}, 409, "commands.no-devices"),
        ("chief", {"organization_id": "other"}, 404, "resource.not-found"),
        ("chief", {"establishment_id": "foreign"}, 404, "resource.not-found"),
        ("admin", {"establishment_id": "second"}, 404, "resource.not-found"),
        ("user", {"establishment_id": "first"}, 403, "permission.missing"),
        ("user", {}, 403, "permission.missing"),
        ("chief", {"establishment_id": "first", "organization_id": "other"}, 422, "request.invalid"),
        ("chief", {"area_id": "hall", "establishment_id": "second"}, 422, "request.invalid"),
        ("chief", {"floor": 3}, 422, "request.invalid"),
    ],
)
async def test_a_target_that_is_none_is_refused(
    api: Client, world: World, who: str, target: dict[str, Any], status: int, code: str
) -> None:
    first, second = world.tenant.sites
    known = {
        "other": world.other_tenant.id,
        "foreign": world.other_tenant.sites[0].id,
        "first": first.id,
        "second": second.id,
        "hall": first.area_id,
    }
    body = {"type": "ping", "target": {name: str(known.get(value, value)) for name, value in target.items()}}
    person: Person = getattr(world, who)
    problem_of(await api.post(GROUPS, headers=person.headers, json=body), status, code)


async def test_a_group_is_counted_by_state_and_what_waits_of_it_is_taken_back(api: Client, world: World) -> None:
    group = await sent(api, world.chief, GROUPS)
    assert group["states"] == {"queued": 2}
    path = f"{GROUPS}/{group['id']}"
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update device_commands set state = 'sent', dispatch = 'under_way', attempts = 1, sent_at = now()"
            " where device_id = %s",
            [world.tenant.sites[0].device_id],
        )
    assert (await api.get(path, headers=world.chief.headers)).json()["states"] == {"queued": 1, "sent": 1}
    seen = await api.get(path, headers=world.admin.headers)
    assert seen.json()["states"] == {"sent": 1}, "he sees his site's"
    problem_of(await api.get(path, headers=world.other_chief.headers), 404, "resource.not-found")
    cancelled = await api.post(f"{path}/cancel", headers=world.chief.headers)
    assert cancelled.json()["states"] == {"cancelled": 1, "sent": 1}
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update device_commands set state = 'succeeded', dispatch = 'over', finished_at = now() where state = 'sent'"
        )
    ended = await api.get(path, headers=world.chief.headers, params={"wait": 10})
    assert ended.json()["states"] == {"cancelled": 1, "succeeded": 1}


async def test_groups_are_listed_to_those_who_see_one_of_their_commands(api: Client, world: World) -> None:
    target = {"establishment_id": str(world.tenant.sites[1].id)}
    group = await sent(api, world.chief, GROUPS, target=target)
    for person, expected in ((world.chief, 1), (world.partner, 1), (world.admin, 0), (world.other_chief, 0)):
        items = (await api.get(GROUPS, headers=person.headers)).json()["items"]
        assert len(items) == expected
    assert group["target"] == {**target, "organization_id": str(world.tenant.id)}


async def test_how_many_devices_there_were_elsewhere_is_told_to_who_reaches_the_target(
    api: Client, world: World
) -> None:
    first, second = world.tenant.sites
    whole = {"organization_id": str(world.tenant.id)}
    group = await sent(api, world.chief, GROUPS, target=whole)
    area = {"area_id": str(first.area_id), "establishment_id": str(first.id), **whole}
    at_first = await sent(api, world.chief, GROUPS, target={"area_id": area["area_id"]})
    # He works at the second site, too, and sees no commands there.
    blind = world.add_person_now("blind@example.com", "admin", organization_id=world.tenant.id, sites=[first, second])
    world.give_role_at(blind, second, world.second_site_role)
    for person, of_group, of_first in (
        (world.chief, (whole, 2, 0, {"queued": 2}), (area, 1, 0, {"queued": 1})),
        (world.partner, (whole, 2, 0, {"queued": 2}), (area, 1, 0, {"queued": 1})),
        (world.root, (whole, 2, 0, {"queued": 2}), (area, 1, 0, {"queued": 1})),
        (world.admin, (None, 1, None, {"queued": 1}), (area, 1, 0, {"queued": 1})),
        (blind, (None, 1, None, {"queued": 1}), (area, 1, 0, {"queued": 1})),
        (world.other_site_admin, (None, 1, None, {"queued": 1}), None),
    ):
        expected = {group["id"]: of_group, at_first["id"]: of_first} if of_first else {group["id"]: of_group}
        for read in (over_rest, over_graphql):
            assert await read(api, person) == expected, (person.email, read)


async def test_who_takes_back_his_part_is_told_of_his_part_and_the_log_keeps_the_whole(
    api: Client, world: World
) -> None:
    group = await sent(api, world.chief, GROUPS)
    cancelled = await api.post(f"{GROUPS}/{group['id']}/cancel", headers=world.admin.headers)
    assert told_of(cancelled.json()) == (None, 1, None, {"cancelled": 1})
    params = {"action": "device_command_group.cancel"}
    logged = await api.get("/api/v1/audit-entries", headers=world.chief.headers, params=params)
    after = logged.json()["items"][0]["after"]
    assert (after["target"], after["num_commands"]) == ({"organization_id": str(world.tenant.id)}, 2)


Told = tuple[Any, int, int | None, dict[str, int]]


def told_of(group: dict[str, Any]) -> Told:
    return group["target"], group["num_commands"], group["num_left_out"], group["states"]


async def over_rest(api: Client, person: Person) -> dict[str, Told]:
    """What somebody is told of the groups that he sees, the same in their list and of each."""
    listed = (await api.get(GROUPS, headers=person.headers)).json()["items"]
    for group in listed:
        assert (await api.get(f"{GROUPS}/{group['id']}", headers=person.headers)).json() == group
    return {group["id"]: told_of(group) for group in listed}


async def over_graphql(api: Client, person: Person) -> dict[str, Told]:
    """The same by way of the list, and of the commands that they belong to."""
    group = "{ id target numCommands numLeftOut states }"
    query = f"{{ deviceCommandGroups {{ edges {{ node {group} }} }} deviceCommands {{ edges {{ node {{ group {group} }} }} }} }}"
    found = await data(api, person, query)
    listed = {one["id"]: one for one in nodes(found["deviceCommandGroups"])}
    assert {one["group"]["id"]: one["group"] for one in nodes(found["deviceCommands"])} == listed
    return {one["id"]: (one["target"], one["numCommands"], one["numLeftOut"], one["states"]) for one in listed.values()}
