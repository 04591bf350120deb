"""Mutations over GraphQL: the commands of REST, with its refusals."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from hse.domain.organizations import commands
from tests.api.conftest import Client
from tests.api.graphql import ask, data, names, nodes, refusal
from tests.api.world import World

CREATE = """mutation Make($input: NewEstablishment!, $key: String) {
    createEstablishment(input: $input, idempotencyKey: $key) { id name version organization { name } } }"""
CHANGE = """mutation Change($id: UUID!, $input: EstablishmentChange!, $version: Int) {
    changeEstablishment(id: $id, input: $input, version: $version) { name address latitude metadata version } }"""
DELETE = "mutation Delete($id: UUID!) { deleteEstablishment(id: $id) }"


def new_site(world: World, **more: Any) -> dict[str, Any]:
    """The input that makes an establishment of the first tenant."""
    return {"organizationId": str(world.tenant.id), "name": "New", "timezone": "Europe/Madrid", **more}


async def test_a_thing_is_made_changed_and_deleted(api: Client, world: World) -> None:
    made = (await data(api, world.chief, CREATE, input=new_site(world, metadata={"floors": [1]})))[
        "createEstablishment"
    ]
    assert made["organization"] == {"name": "Acme"}
    change = {"name": "Newer", "latitude": -33.4, "longitude": -70.6}
    changed = (await data(api, world.chief, CHANGE, id=made["id"], input=change))["changeEstablishment"]
    assert changed == {"name": "Newer", "address": None, "latitude": -33.4, "metadata": {"floors": [1]}, "version": 2}
    assert await data(api, world.chief, DELETE, id=made["id"]) == {"deleteEstablishment": made["id"]}
    await refusal(api, world.chief, DELETE, "resource.not-found", id=made["id"])


async def test_absent_stays_and_null_empties(api: Client, world: World) -> None:
    site = str(world.tenant.sites[0].id)
    await data(api, world.chief, CHANGE, id=site, input={"address": "Here"})
    kept = await data(api, world.chief, CHANGE, id=site, input={"name": "New"})
    assert kept["changeEstablishment"]["address"] == "Here"
    # A variable that is not given is absent, too.
    unset = "mutation Change($id: UUID!, $address: String) { changeEstablishment(id: $id, input: {address: $address}) { address } }"
    assert (await data(api, world.chief, unset, id=site))["changeEstablishment"]["address"] == "Here"
    emptied = await data(api, world.chief, unset, id=site, address=None)
    assert emptied["changeEstablishment"]["address"] is None
    extensions = await refusal(api, world.chief, CHANGE, "request.invalid", id=site, input={"name": None})
    assert extensions["field"] == "name"


async def test_a_change_of_an_old_version_is_refused(api: Client, world: World) -> None:
    site = str(world.tenant.sites[0].id)
    first = await data(api, world.chief, CHANGE, id=site, input={"name": "One"}, version=1)
    assert first["changeEstablishment"]["version"] == 2
    extensions = await refusal(api, world.chief, CHANGE, "resource.stale", id=site, input={"name": "Two"}, version=1)
    assert extensions["kind"] == "stale"


@pytest.mark.parametrize(
    ("who", "where", "change"),
    [
        ("chief", "foreign", {"name": "x"}),
        ("user", "own", {"name": "x"}),
        ("other_site_admin", "own", {"name": "x"}),
        ("custom", "own", {"name": "x"}),
        ("chief", "own", {"name": "Acme 2"}),
        ("chief", "own", {"timezone": "Mars"}),
        ("chief", "foreign", None),
        ("chief", "own", None),
        ("user", "own", None),
    ],
)
async def test_a_command_is_refused_with_the_code_that_rest_gives(
    api: Client, world: World, who: str, where: str, change: dict[str, Any] | None
) -> None:
    person = getattr(world, who)
    site = str((world.tenant if where == "own" else world.other_tenant).sites[0].id)
    path = f"/api/v1/establishments/{site}"
    if change is None:
        problem = (await api.delete(path, headers=person.headers)).json()
        extensions = await refusal(api, person, DELETE, problem["code"], id=site)
    else:
        problem = (await api.patch(path, headers=person.headers, json=change)).json()
        extensions = await refusal(api, person, CHANGE, problem["code"], id=site, input=change)
    assert extensions.get("action") == problem.get("action")
    assert extensions.get("field") == problem.get("field")


async def test_an_area_cannot_be_moved_into_itself(api: Client, world: World) -> None:
    move = "mutation Move($id: UUID!) { changeArea(id: $id, input: {parentAreaId: $id}) { id } }"
    area = str(world.tenant.sites[0].area_id)
    assert (await refusal(api, world.chief, move, "areas.cycle", id=area))["parentAreaId"] == area


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"latitude": 91, "longitude": 0}, "latitude"),
        ({"latitude": 1}, "longitude"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"x": "y" * 20_000}}, "metadata"),
        ({"metadata": {"x": "\0"}}, "metadata"),
    ],
)
async def test_what_rest_refuses_in_a_body_is_refused_in_an_input(
    api: Client, world: World, change: dict[str, Any], field: str
) -> None:
    site = world.tenant.sites[0].id
    rest = await api.patch(f"/api/v1/establishments/{site}", headers=world.chief.headers, json=change)
    assert (rest.status_code, rest.json()["code"]) == (422, "request.invalid")
    extensions = await refusal(api, world.chief, CHANGE, "request.invalid", id=str(site), input=change)
    assert extensions["field"] == field


async def test_a_mutation_sent_again_with_its_key_is_answered_again_and_not_done_again(
    api: Client, world: World
) -> None:
    key = str(uuid4())
    answers = await asyncio.gather(
        *(data(api, world.chief, CREATE, input=new_site(world, name="Once"), key=key) for _ in range(4))
    )
    assert len({answer["createEstablishment"]["id"] for answer in answers}) == 1
    assert {answer["createEstablishment"]["organization"]["name"] for answer in answers} == {"Acme"}
    other = new_site(world, name="Twice")
    extensions = await refusal(api, world.chief, CREATE, "request.invalid", input=other, key=key)
    assert extensions["field"] == "Idempotency-Key"
    await refusal(api, world.chief, CREATE, "request.invalid", input=other, key="")


async def test_a_device_is_registered_given_a_token_once_and_cut_off(api: Client, world: World) -> None:
    create = "mutation Make($input: NewDevice!) { createDevice(input: $input) { id deviceType hasToken } }"
    issue = "mutation Issue($id: UUID!, $key: String) { issueDeviceToken(id: $id, idempotencyKey: $key) { deviceId token } }"
    revoke = "mutation Revoke($id: UUID!) { revokeDeviceToken(id: $id) }"
    read = "query Read($id: UUID!) { device(id: $id) { hasToken } }"
    device = {"name": "Meter", "establishmentId": str(world.tenant.sites[0].id)}
    made = (await data(api, world.admin, create, input=device))["createDevice"]
    assert made == {"id": made["id"], "deviceType": "sensor", "hasToken": False}
    await refusal(api, world.custom, issue, "permission.missing", id=made["id"])
    first = (await data(api, world.admin, issue, id=made["id"], key="again"))["issueDeviceToken"]
    assert first["deviceId"] == made["id"]
    assert (await data(api, world.admin, issue, id=made["id"], key="again"))["issueDeviceToken"] == first
    assert (await data(api, world.admin, issue, id=made["id"]))["issueDeviceToken"] != first
    await refusal(api, world.admin, issue, "request.invalid", id=str(world.tenant.sites[0].device_id), key="again")
    assert (await data(api, world.admin, read, id=made["id"]))["device"] == {"hasToken": True}
    await data(api, world.admin, revoke, id=made["id"])
    assert (await data(api, world.admin, read, id=made["id"]))["device"] == {"hasToken": False}


async def test_mutations_are_done_in_their_order_and_see_what_the_ones_before_did(api: Client, world: World) -> None:
    query = """mutation Twice($one: NewEstablishment!, $two: NewEstablishment!) {
        one: createEstablishment(input: $one) { organization { establishments { totalCount edges { node { name } } } } }
        two: createEstablishment(input: $two) { organization { establishments { totalCount edges { node { name } } } } } }"""
    answer = await data(api, world.chief, query, one=new_site(world, name="Acme 3"), two=new_site(world, name="Acme 4"))
    assert names(answer["one"]["organization"]["establishments"]) == ["Acme 1", "Acme 2", "Acme 3"]
    assert names(answer["two"]["organization"]["establishments"]) == ["Acme 1", "Acme 2", "Acme 3", "Acme 4"]


async def test_a_mutation_that_fails_keeps_nothing_and_leaves_those_before_it(api: Client, world: World) -> None:
    query = """mutation Both($one: NewEstablishment!) {
        one: createEstablishment(input: $one) { id } two: createEstablishment(input: $one) { id } }"""
    answer = await ask(api, world.chief, query, one=new_site(world))
    assert answer["data"]["one"]["id"]
    assert answer["data"]["two"] is None
    assert answer["errors"][0]["extensions"]["code"] == "resource.taken"
    seen = await data(api, world.chief, "{ establishments { edges { node { name } } } }")
    assert [node["name"] for node in nodes(seen["establishments"])].count("New") == 1


async def test_a_defect_is_masked(api: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # A command that breaks inside, as a defect would.
    monkeypatch.setattr(commands, "check_timezone", lambda _: 1 / 0)
    answer = await ask(api, world.chief, CREATE, input=new_site(world))
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "service.defect"
    assert "zero" not in str(answer)
    assert error["path"] == ["createEstablishment"]
