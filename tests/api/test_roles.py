"""Roles over REST: nobody makes one that holds more than he does, and what a role holds counts at once."""

import asyncio
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.api.conftest import Client, problem_of
from tests.api.world import Person, World

# Who makes what; None when it is made, else the refusal. Ids of the world are written as its attributes.
CREATIONS: list[tuple[str, dict[str, Any], tuple[int, str] | None]] = [
    ("root", {}, None),
    ("root", {"partner_company_id": "partner_company"}, None),
    ("root", {"organization_id": "tenant"}, None),
    ("root", {"establishment_id": "site"}, None),
    ("root", {"organization_id": "tenant", "partner_company_id": "partner_company"}, (422, "request.invalid")),
    ("root", {"organization_id": "other_tenant", "establishment_id": "site"}, (422, "request.invalid")),
    ("root", {"actions": ["create_organization"]}, (409, "roles.action-exclusive")),
    ("root", {"actions": ["view_all_organizations"]}, (409, "roles.action-exclusive")),
    ("root", {"actions": ["create_user"]}, (409, "roles.action-not-for-hierarchy")),
    ("root", {"actions": ["fly"]}, (422, "request.invalid")),
    ("root", {"hierarchy": 4}, (422, "request.invalid")),
    ("partner", {}, None),
    ("partner", {"organization_id": "tenant"}, None),
    ("partner", {"organization_id": "other_tenant"}, (404, "resource.not-found")),
    ("partner", {"organization_id": "direct_tenant"}, (404, "resource.not-found")),
    ("partner", {"partner_company_id": "other_partner_company"}, (404, "resource.not-found")),
    ("partner", {"actions": ["create_establishment"]}, (409, "roles.action-exclusive")),
    ("chief", {}, None),
    ("chief", {"establishment_id": "other_site"}, None),
    ("chief", {"organization_id": "other_tenant"}, (404, "resource.not-found")),
    ("chief", {"partner_company_id": "partner_company"}, (404, "resource.not-found")),
    ("chief", {"actions": ["read_partner_company"]}, (403, "roles.action-not-held")),
    ("chief", {"actions": ["manage_organization_users"]}, (409, "roles.action-exclusive")),
    ("admin", {}, None),
    ("admin", {"establishment_id": "site"}, None),
    ("admin", {"establishment_id": "other_site"}, (404, "resource.not-found")),
    ("user", {}, (403, "permission.missing")),
    ("custom", {}, (403, "permission.missing")),
]


def body_of(world: World, changes: dict[str, Any]) -> dict[str, Any]:
    known = {
        "tenant": world.tenant.id,
        "other_tenant": world.other_tenant.id,
        "direct_tenant": world.direct_tenant.id,
        "partner_company": world.partner_company,
        "other_partner_company": world.other_partner_company,
        "site": world.tenant.sites[0].id,
        "other_site": world.tenant.sites[1].id,
    }
    places = {name: str(known[value]) for name, value in changes.items() if name.endswith("_id")}
    return {"name": "Keeper", "actions": ["read_device"], **changes, **places}


async def make(api: Client, person: Person, **body: Any) -> Any:
    response = await api.post(
        "/api/v1/roles", headers=person.headers, json={"name": "Keeper", "actions": ["read_device"], **body}
    )
    assert response.status_code == 201, response.text
    return response.json()


async def test_roles_are_made_within_what_their_maker_holds_and_reaches(api: Client, world: World) -> None:
    for number, (name, changes, refusal) in enumerate(CREATIONS):
        person: Person = getattr(world, name)
        body = {**body_of(world, changes), "name": f"Keeper {number}"}
        response = await api.post("/api/v1/roles", headers=person.headers, json=body)
        if refusal is None:
            assert response.status_code == 201, (name, changes, response.text)
        else:
            assert response.status_code == refusal[0], (name, changes, response.text)
            problem_of(response, *refusal)


async def test_a_role_without_a_binding_is_bound_to_whom_its_maker_belongs(api: Client, world: World) -> None:
    of_root, of_partner = await make(api, world.root), await make(api, world.partner)
    of_admin = await make(api, world.admin)
    assert (of_root["partner_company_id"], of_root["organization_id"]) == (None, None)
    assert of_partner["partner_company_id"] == str(world.partner_company)
    assert of_admin["organization_id"] == str(world.tenant.id)
    assert of_admin["created_by"] == str(world.admin.id)


async def test_everybody_sees_the_roles_that_are_for_him(api: Client, world: World) -> None:
    await make(api, world.root, name="everywhere")
    await make(api, world.root, name="foreign", organization_id=str(world.other_tenant.id))
    await make(api, world.partner, name="of partner")
    await make(api, world.chief, name="site 2", establishment_id=str(world.tenant.sites[1].id))
    system = {"root", "partner", "admin", "user", "everywhere"}
    own = {"device keeper", "second keeper", "site 2"}
    for person, expected in (
        (world.root, system | own | {"foreign", "of partner", "foreign keeper", "direct keeper"}),
        (world.partner, system | own | {"of partner"}),
        (world.chief, system | own),
        (world.other_site_admin, system | own),
        (world.admin, system | {"device keeper"}),
        (world.other_chief, system | {"foreign", "foreign keeper"}),
    ):
        response = await api.get("/api/v1/roles", headers=person.headers, params={"limit": 100})
        assert {role["name"] for role in response.json()["items"]} == expected, person.email
    problem_of(await api.get("/api/v1/roles", headers=world.user.headers), 403, "permission.missing")


async def test_the_catalogue_is_no_secret(api: Client, world: World) -> None:
    answers = [await api.get("/api/v1/actions", headers=one.headers) for one in (world.root, world.custom)]
    first, second = (answer.json()["items"] for answer in answers)
    assert first == second
    assert {"name", "exclusive_to", "hierarchy_max"} <= first[0].keys()


async def test_what_a_role_holds_is_changed_within_what_one_holds(api: Client, world: World) -> None:
    role = await make(api, world.chief, actions=["read_device", "read_area"])
    path = f"/api/v1/roles/{role['id']}"
    changed = await api.patch(path, headers=world.chief.headers, json={"actions": ["read_area", "update_device"]})
    assert changed.json()["actions"] == ["read_area", "update_device"]
    assert changed.json()["version"] == role["version"] + 1
    for person, body, status, code in (
        (world.chief, {"actions": ["read_partner_company"]}, 403, "roles.action-not-held"),
        (world.chief, {"actions": ["create_establishment"]}, 409, "roles.action-exclusive"),
        (world.chief, {"actions": ["assign_role"]}, 409, "roles.action-not-for-hierarchy"),
        (world.other_chief, {"name": "Mine"}, 404, "resource.not-found"),
        (world.user, {"name": "Mine"}, 404, "resource.not-found"),
    ):
        problem_of(await api.patch(path, headers=person.headers, json=body), status, code)
    stale = {**world.chief.headers, "If-Match": f'"{role["version"]}"'}
    problem_of(await api.patch(path, headers=stale, json={"name": "Late"}), 412, "resource.stale")


async def test_what_a_role_holds_already_may_stay_when_one_does_not_hold_it(api: Client, world: World) -> None:
    role = await make(
        api, world.root, organization_id=str(world.tenant.id), actions=["read_partner_company", "read_area"]
    )
    path = f"/api/v1/roles/{role['id']}"
    kept = await api.patch(path, headers=world.chief.headers, json={"actions": ["read_partner_company", "read_device"]})
    assert kept.status_code == 200, kept.text


async def test_a_change_counts_at_the_holder_s_next_request(api: Client, world: World) -> None:
    read = "/api/v1/areas"
    problem_of(await api.get(read, headers=world.custom.headers), 403, "permission.missing")
    path = f"/api/v1/roles/{world.custom_role}"
    given = await api.patch(path, headers=world.chief.headers, json={"actions": ["read_area"]})
    assert given.status_code == 200, given.text
    assert (await api.get(read, headers=world.custom.headers)).status_code == 200
    await api.patch(path, headers=world.chief.headers, json={"actions": []})
    problem_of(await api.get(read, headers=world.custom.headers), 403, "permission.missing")


async def test_an_admin_changes_a_role_only_where_it_counts_at_his_establishments(api: Client, world: World) -> None:
    """Else he would give it to people whom another admin looks after."""
    path, body = f"/api/v1/roles/{world.custom_role}", {"actions": ["read_device", "read_area"]}
    problem_of(
        await api.patch(path, headers=world.other_site_admin.headers, json=body),
        403,
        "users.beyond-your-establishments",
    )
    # Nor does he take anything from them.
    fewer = {"actions": ["read_device"]}
    problem_of(
        await api.patch(path, headers=world.other_site_admin.headers, json=fewer),
        403,
        "users.beyond-your-establishments",
    )
    assert (await api.patch(path, headers=world.admin.headers, json=body)).status_code == 200


async def test_system_roles_are_changed_by_root_alone_and_root_s_never(api: Client, world: World) -> None:
    listed = await api.get("/api/v1/roles", headers=world.root.headers, params={"limit": 100})
    roles = {role["name"]: role for role in listed.json()["items"]}
    admin, user = (f"/api/v1/roles/{roles[name]['id']}" for name in ("admin", "user"))
    for person, path, body, status, code in (
        (world.partner, user, {"actions": ["read_area"]}, 403, "permission.missing"),
        (world.chief, user, {"actions": ["read_area"]}, 403, "permission.missing"),
        (world.root, f"/api/v1/roles/{roles['root']['id']}", {"actions": []}, 403, "roles.system-fixed"),
        (world.root, user, {"name": "guest"}, 403, "roles.system-fixed"),
        (world.root, user, {"actions": ["create_establishment"]}, 409, "roles.action-exclusive"),
        (world.root, user, {"actions": ["create_user"]}, 409, "roles.action-not-for-hierarchy"),
        (world.root, admin, {"actions": ["create_organization"]}, 409, "roles.action-exclusive"),
    ):
        problem_of(await api.patch(path, headers=person.headers, json=body), status, code)
    for person in (world.root, world.chief):
        problem_of(await api.delete(user, headers=person.headers), 403, "roles.system-fixed")
    fewer = [name for name in roles["admin"]["actions"] if name != "create_area"]
    assert (await api.patch(admin, headers=world.root.headers, json={"actions": fewer})).status_code == 200
    body = {"establishment_id": str(world.tenant.sites[0].id), "name": "New", "type": "office"}
    problem_of(await api.post("/api/v1/areas", headers=world.chief.headers, json=body), 403, "permission.missing")


async def test_a_role_that_somebody_has_is_not_deleted(api: Client, world: World) -> None:
    path = f"/api/v1/roles/{world.custom_role}"
    problem_of(await api.delete(path, headers=world.user.headers), 404, "resource.not-found")
    problem_of(await api.delete(path, headers=world.chief.headers), 409, "resource.in-use")
    role = await make(api, world.chief, name="Spare")
    assert (await api.delete(f"/api/v1/roles/{role['id']}", headers=world.chief.headers)).status_code == 204
    problem_of(await api.get(f"/api/v1/roles/{role['id']}", headers=world.chief.headers), 404, "resource.not-found")


async def test_a_name_is_taken_within_its_binding_only(api: Client, world: World) -> None:
    await make(api, world.chief)
    body = {"name": "Keeper", "actions": []}
    problem_of(await api.post("/api/v1/roles", headers=world.chief.headers, json=body), 409, "resource.taken")
    await make(api, world.other_chief)


async def test_a_key_makes_no_role_that_holds_more_than_the_key(api: Client, world: World) -> None:
    key = world.add_api_key(world.chief, ["create_role", "read_role", "read_area"])
    for actions, status in ((["read_area"], 201), (["read_device"], 403)):
        body = {"name": f"By key {status}", "actions": actions}
        response = await api.post("/api/v1/roles", headers={"X-API-Key": key}, json=body)
        assert response.status_code == status, response.text


async def test_roles_changed_at_once_lose_no_change(api: Client, world: World) -> None:
    role = await make(api, world.chief, actions=[])
    path, version = f"/api/v1/roles/{role['id']}", {"If-Match": '"1"'}
    changes = await asyncio.gather(
        *(
            api.patch(path, headers={**world.chief.headers, **version}, json={"actions": [name]})
            for name in ("read_area", "read_device", "read_role")
        )
    )
    assert sorted(change.status_code for change in changes) == [200, 412, 412]


@pytest.mark.parametrize(("action", "constraint"), [("create_organization", "exclusive"), ("create_user", "hierarchy")])
def test_the_database_refuses_what_the_policy_would(world: World, action: str, constraint: str) -> None:
    """The second lock: the same rule in a trigger."""
    with psycopg.connect(world.database_url) as connection, pytest.raises(psycopg.errors.CheckViolation) as refused:
        connection.execute(
            "insert into permissions (role_id, action_name) values (%s, %s)", [world.custom_role, action]
        )
    assert refused.value.diag.constraint_name == f"permissions_{constraint}"


async def test_a_role_that_is_not_there_is_not_found(api: Client, world: World) -> None:
    for call in (api.get, api.delete):
        problem_of(await call(f"/api/v1/roles/{uuid4()}", headers=world.root.headers), 404, "resource.not-found")
