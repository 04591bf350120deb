"""Devices over REST: where they may stand, who may do what to them, their gateways, and their tokens."""

import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio

from tests.api.conftest import Client, problem_of
from tests.api.world import Person, World
from tests.faults.core import Core
from tests.faults.wire import Credentials, Peer

DEVICES = "/api/v1/devices"
# A change in the registry reaches the core in this time.
FRESH_SECONDS = 2.0


async def add(api: Client, person: Person, **body: object) -> dict[str, Any]:
    """Register a device and return it."""
    response = await api.post(DEVICES, headers=person.headers, json={"name": "Meter", **body})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def names(api: Client, person: Person, **params: object) -> list[str]:
    response = await api.get(DEVICES, headers=person.headers, params={"sort": "name", **params})  # type: ignore[dict-item]
    assert response.status_code == 200, response.text
    return [item["name"] for item in response.json()["items"]]


def site(world: World, number: int = 0) -> str:
    return str(world.tenant.sites[number].id)


async def test_everybody_sees_the_devices_of_his_sites_and_no_other(api: Client, world: World) -> None:
    await add(api, world.chief, name="Spare", organization_id=str(world.tenant.id))
    own, second = "Acme 1 meter", "Acme 2 meter"
    assert await names(api, world.root) == [own, second, "Bolt 1 meter", "Core 1 meter", "Spare"]
    assert await names(api, world.partner) == [own, second, "Spare"]
    assert await names(api, world.chief) == [own, second, "Spare"]
    for person in (world.admin, world.user, world.custom):
        assert await names(api, person) == [own]
    foreign = f"{DEVICES}/{world.other_tenant.sites[0].device_id}"
    for call in (
        api.get(foreign, headers=world.chief.headers),
        api.delete(foreign, headers=world.chief.headers),
        api.patch(foreign, headers=world.chief.headers, json={"name": "Mine"}),
        api.post(f"{foreign}/token", headers=world.chief.headers),
        api.get(f"{foreign}/children", headers=world.chief.headers),
    ):
        problem_of(await call, 404, "resource.not-found")


async def test_what_one_may_see_and_not_do_is_refused_by_its_name(api: Client, world: World) -> None:
    path = f"{DEVICES}/{world.tenant.sites[0].device_id}"
    for action, call in (
        ("update_device", api.patch(path, headers=world.user.headers, json={"name": "Mine"})),
        ("delete_device", api.delete(path, headers=world.user.headers)),
        ("manage_device_token", api.post(f"{path}/token", headers=world.custom.headers)),
        ("manage_device_token", api.delete(f"{path}/token", headers=world.custom.headers)),
        (
            "create_device",
            api.post(DEVICES, headers=world.user.headers, json={"name": "M", "establishment_id": site(world)}),
        ),
    ):
        assert problem_of(await call, 403, "permission.missing")["action"] == action
    assert (await api.patch(path, headers=world.custom.headers, json={"model": "iEM"})).status_code == 200


async def test_a_device_is_registered_where_it_stands(api: Client, world: World) -> None:
    made = await add(
        api,
        world.admin,
        establishment_id=site(world),
        area_id=str(world.tenant.sites[0].area_id),
        mac_address="00-1B-44-11-3A-B7",
        ip_address="2001:DB8::0:1",
        serial_number="SN-1",
        metadata={"floor plan": [1, 2]},
    )
    read = await api.get(f"{DEVICES}/{made['id']}", headers=world.admin.headers)
    assert read.json() == made
    assert read.headers["etag"] == '"1"'
    assert made["mac_address"] == "00:1b:44:11:3a:b7"
    assert made["ip_address"] == "2001:db8::1"
    assert made["organization_id"] == str(world.tenant.id)
    assert (made["has_token"], made["is_enabled"], made["status"]) == (False, True, "offline")
    twin = {"name": "Twin", "establishment_id": site(world), "serial_number": "SN-1"}
    taken = problem_of(await api.post(DEVICES, headers=world.admin.headers, json=twin), 409, "resource.taken")
    assert taken["field"] == "serial_number"


async def test_one_that_is_not_placed_needs_the_reach_of_the_whole_organisation(api: Client, world: World) -> None:
    body = {"name": "Spare", "organization_id": str(world.tenant.id)}
    refused = await api.post(DEVICES, headers=world.admin.headers, json=body)
    assert problem_of(refused, 403, "permission.missing")["action"] == "create_device"
    for person in (world.chief, world.partner, world.root):
        made = await add(api, person, **{**body, "name": person.email})
        assert made["establishment_id"] is None
    problem_of(await api.post(DEVICES, headers=world.other_chief.headers, json=body), 404, "resource.not-found")
    nowhere = await api.post(DEVICES, headers=world.chief.headers, json={"name": "Spare"})
    assert problem_of(nowhere, 422, "request.invalid")["field"] == "establishment_id"
    both = {**body, "organization_id": str(world.other_tenant.id), "establishment_id": site(world)}
    problem_of(await api.post(DEVICES, headers=world.chief.headers, json=both), 422, "request.invalid")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mac_address", "00:1b:44:11:3a"),
        ("mac_address", "00:1b-44:11:3a:b7"),
        ("mac_address", "zz:1b:44:11:3a:b7"),
        ("ip_address", "192.0.2.256"),
        ("ip_address", "192.0.2.0/24"),
        ("ip_address", "fe80::1%eth0"),
        ("name", "a\0b"),
        ("name", "a\nb"),
        ("serial_number", ""),
        ("manufacturer", "\x1b[31m"),
        ("metadata", {"a": "x" * 17_000}),
        ("token_hash", "x"),
        ("status", "online"),
    ],
)
async def test_what_cannot_be_so_is_refused(api: Client, world: World, field: str, value: object) -> None:
    body = {"name": "Meter", "establishment_id": site(world), field: value}
    problem_of(await api.post(DEVICES, headers=world.admin.headers, json=body), 422, "request.invalid")


async def test_an_area_must_be_of_the_establishment(api: Client, world: World) -> None:
    foreign = str(world.tenant.sites[1].area_id)
    body = {"name": "M", "establishment_id": site(world), "area_id": foreign}
    for person in (world.chief, world.admin):
        refused = await api.post(DEVICES, headers=person.headers, json=body)
        assert problem_of(refused, 422, "request.invalid")["field"] == "area_id"
    path = f"{DEVICES}/{world.tenant.sites[0].device_id}"
    problem_of(await api.patch(path, headers=world.chief.headers, json={"area_id": foreign}), 422, "request.invalid")


async def test_a_device_moves_only_with_the_permission_at_both_places(api: Client, world: World) -> None:
    made = await add(api, world.admin, establishment_id=site(world), area_id=str(world.tenant.sites[0].area_id))
    path, move = f"{DEVICES}/{made['id']}", {"establishment_id": site(world, 1)}
    problem_of(await api.patch(path, headers=world.admin.headers, json=move), 404, "resource.not-found")
    unplaced = {"establishment_id": None}
    problem_of(await api.patch(path, headers=world.admin.headers, json=unplaced), 403, "permission.missing")
    moved = await api.patch(path, headers=world.chief.headers, json=move)
    assert moved.status_code == 200, moved.text
    assert (moved.json()["establishment_id"], moved.json()["area_id"]) == (site(world, 1), None)
    problem_of(await api.get(path, headers=world.admin.headers), 404, "resource.not-found")
    away = {"establishment_id": str(world.other_tenant.sites[0].id)}
    problem_of(await api.patch(path, headers=world.chief.headers, json=away), 404, "resource.not-found")
    refused = await api.patch(path, headers=world.root.headers, json=away)
    assert problem_of(refused, 422, "request.invalid")["field"] == "establishment_id"
    assert (await api.patch(path, headers=world.chief.headers, json=unplaced)).status_code == 200


async def test_a_change_with_an_old_etag_is_refused(api: Client, world: World) -> None:
    path = f"{DEVICES}/{world.tenant.sites[0].device_id}"
    headers = {**world.admin.headers, "If-Match": (await api.get(path, headers=world.admin.headers)).headers["etag"]}
    assert (await api.patch(path, headers=headers, json={"is_enabled": False})).json()["is_enabled"] is False
    problem_of(await api.patch(path, headers=headers, json={"is_enabled": True}), 412, "resource.stale")


async def test_lists_are_filtered_and_searched(api: Client, world: World) -> None:
    gateway = await add(api, world.chief, name="Gate", establishment_id=site(world), device_type="gateway")
    child = {"establishment_id": site(world, 1), "gateway_id": gateway["id"], "protocol": "modbus"}
    await add(api, world.chief, name="Child", serial_number="XY-77", manufacturer="Kamstrup", is_enabled=False, **child)
    for params, expected in (
        ({"organization_id": str(world.tenant.id)}, ["Acme 1 meter", "Acme 2 meter", "Child", "Gate"]),
        ({"organization_id": str(world.other_tenant.id)}, []),
        ({"establishment_id": site(world, 1)}, ["Acme 2 meter", "Child"]),
        ({"area_id": str(world.tenant.sites[0].area_id)}, ["Acme 1 meter"]),
        ({"gateway_id": gateway["id"]}, ["Child"]),
        ({"device_type": "gateway"}, ["Gate"]),
        ({"protocol": "modbus"}, ["Child"]),
        ({"is_enabled": False}, ["Child"]),
        ({"q": "y-77"}, ["Child"]),
        ({"q": "kamSTR"}, ["Child"]),
        ({"q": "%"}, []),
    ):
        assert await names(api, world.chief, **params) == expected, params
    path = f"{DEVICES}/{gateway['id']}/children"
    assert [one["name"] for one in (await api.get(path, headers=world.chief.headers)).json()["items"]] == ["Child"]
    assert (await api.get(path, headers=world.admin.headers)).json()["items"] == []


async def test_a_gateway_is_a_visible_device_of_the_same_organisation_that_is_no_child(
    api: Client, world: World
) -> None:
    gateway = await add(api, world.chief, name="Gate", establishment_id=site(world))
    child = await add(api, world.chief, name="Child", establishment_id=site(world), gateway_id=gateway["id"])
    hidden, foreign = world.tenant.sites[1].device_id, world.other_tenant.sites[0].device_id
    for unusable in (child["id"], str(hidden), str(foreign), str(uuid4())):
        body = {"name": "C", "establishment_id": site(world), "gateway_id": unusable}
        refused = await api.post(DEVICES, headers=world.admin.headers, json=body)
        problem_of(refused, 409, "devices.unusable-gateway")
    path, headers = f"{DEVICES}/{gateway['id']}", world.chief.headers
    for unusable in (gateway["id"], child["id"]):
        response = await api.patch(path, headers=headers, json={"gateway_id": unusable})
        problem_of(response, 409, "devices.unusable-gateway")
    other = await add(api, world.chief, name="Other", establishment_id=site(world))
    becomes_child = await api.patch(path, headers=headers, json={"gateway_id": other["id"]})
    problem_of(becomes_child, 409, "devices.still-gateway")
    in_use = problem_of(await api.delete(path, headers=headers), 409, "resource.in-use")
    assert in_use["by"] == "devices"
    assert (await api.patch(f"{DEVICES}/{child['id']}", headers=headers, json={"gateway_id": None})).status_code == 200
    assert (await api.delete(path, headers=headers)).status_code == 204


async def test_to_stand_behind_a_gateway_takes_the_permission_at_its_place_too(api: Client, world: World) -> None:
    """What a gateway says of a name goes to who has that name, or that serial number."""
    gateway = await add(api, world.chief, name="Gate", establishment_id=site(world, 1))
    child = await add(api, world.chief, name="Child", establishment_id=site(world), gateway_id=gateway["id"])
    # He sees the gateway, and may do nothing at its place.
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into user_establishments (user_id, establishment_id, role_id) values (%s, %s, %s)",
            [world.admin.id, site(world, 1), world.second_site_role],
        )
    behind = {"name": "door-1", "establishment_id": site(world), "gateway_id": gateway["id"]}
    problem_of(await api.post(DEVICES, headers=world.admin.headers, json=behind), 403, "permission.missing")
    own, headers = f"{DEVICES}/{world.tenant.sites[0].device_id}", world.admin.headers
    problem_of(await api.patch(own, headers=headers, json={"gateway_id": gateway["id"]}), 403, "permission.missing")
    path = f"{DEVICES}/{child['id']}"
    for called in ({"name": "door-1"}, {"serial_number": "door-1"}):
        problem_of(await api.patch(path, headers=headers, json=called), 403, "permission.missing")
    kept = {"name": "Child", "model": "M"}
    assert (await api.patch(path, headers=headers, json=kept)).json()["model"] == "M"


async def test_a_gateway_with_children_out_of_sight_does_not_become_a_child(api: Client, world: World) -> None:
    gateway = await add(api, world.chief, name="Gate", establishment_id=site(world))
    await add(api, world.chief, name="Child", establishment_id=site(world, 1), gateway_id=gateway["id"])
    other = await add(api, world.chief, name="Other", establishment_id=site(world))
    change = {"gateway_id": other["id"]}
    refused = await api.patch(f"{DEVICES}/{gateway['id']}", headers=world.admin.headers, json=change)
    assert problem_of(refused, 422, "request.invalid")["field"] == "gateway_id"


async def test_a_token_is_told_once_and_kept_as_a_hash(api: Client, world: World) -> None:
    made = await add(api, world.admin, establishment_id=site(world))
    path = f"{DEVICES}/{made['id']}"
    tokens = [(await api.post(f"{path}/token", headers=world.admin.headers)).json() for _ in range(2)]
    assert all(set(one) == {"device_id", "token"} and len(one["token"]) == 43 for one in tokens)
    assert tokens[0]["token"] != tokens[1]["token"]
    assert (await api.get(path, headers=world.admin.headers)).json()["has_token"] is True
    with psycopg.connect(world.database_url) as connection:
        kept = connection.execute("select token_hash from devices where id = %s", [made["id"]]).fetchone()
        audited = connection.execute(
            "select action, before, after, audit_entries::text from audit_entries where entity_id = %s order by id",
            [made["id"]],
        ).fetchall()
    digest = hashlib.sha256(tokens[1]["token"].encode()).digest()
    assert kept == (digest,)
    assert [row[0] for row in audited] == ["device.create", "device.issue_token", "device.issue_token"]
    for row in audited:
        assert digest.hex() not in row[3]
        assert all(one["token"] not in row[3] for one in tokens)
        assert "token_hash" not in row[3]
    assert (await api.delete(f"{path}/token", headers=world.admin.headers)).status_code == 204
    assert (await api.delete(f"{path}/token", headers=world.admin.headers)).status_code == 204
    assert (await api.get(path, headers=world.admin.headers)).json()["has_token"] is False


async def test_a_token_that_is_asked_for_again_under_one_key_is_told_again_and_not_made_again(
    api: Client, world: World
) -> None:
    path = f"{DEVICES}/{world.tenant.sites[0].device_id}/token"
    headers = {**world.admin.headers, "Idempotency-Key": str(uuid4())}
    first = await api.post(path, headers=headers)
    again = await api.post(path, headers=headers)
    assert again.json() == first.json()
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute("select sealed from idempotency_keys").fetchone()
    assert row is not None
    assert first.json()["token"].encode() not in row[0]


async def test_an_api_key_is_told_again_what_it_was_told_itself_and_nothing_else(api: Client, world: World) -> None:
    path = f"{DEVICES}/{world.tenant.sites[0].device_id}/token"
    once = {"Idempotency-Key": "x" * 200}
    first_key, second_key, weaker_key = (
        {"X-API-Key": world.add_api_key(world.admin, ["read_device", *more]), **once}
        for more in (["manage_device_token"], ["manage_device_token"], [])
    )
    session = {**world.admin.headers, **once}
    told = [(await api.post(path, headers=headers)).json()["token"] for headers in (session, first_key, second_key)]
    assert len({*told}) == 3, "each asked for a token of its own"
    refused = problem_of(await api.post(path, headers=weaker_key), 403, "permission.missing")
    assert refused["action"] == "manage_device_token"
    later = {**world.sign_in(world.admin.id, world.admin.email).headers, **once}
    again = [(await api.post(path, headers=headers)).json()["token"] for headers in (later, first_key, second_key)]
    assert again == told


async def test_a_child_has_no_token_and_who_has_one_becomes_no_child(api: Client, world: World) -> None:
    gateway = await add(api, world.admin, name="Gate", establishment_id=site(world))
    child = await add(api, world.admin, name="Child", establishment_id=site(world), gateway_id=gateway["id"])
    for call in (api.post, api.delete):
        response = await call(f"{DEVICES}/{child['id']}/token", headers=world.admin.headers)
        problem_of(response, 409, "devices.child-has-no-token")
    alone = await add(api, world.admin, name="Alone", establishment_id=site(world))
    path = f"{DEVICES}/{alone['id']}"
    await api.post(f"{path}/token", headers=world.admin.headers)
    change = {"gateway_id": gateway["id"]}
    problem_of(await api.patch(path, headers=world.admin.headers, json=change), 409, "devices.token-must-go-first")
    await api.delete(f"{path}/token", headers=world.admin.headers)
    assert (await api.patch(path, headers=world.admin.headers, json=change)).status_code == 200


@pytest_asyncio.fixture
async def core(tmp_path: Path, world: World) -> AsyncIterator[Core]:
    made = Core(tmp_path / "core", world.database_url)
    await made.started()
    yield made
    for peer in list(Peer.still_open):
        peer.abort()
    made.clean_up()


async def greeted(core: Core, device: Credentials) -> str:
    """WELCOME, or the code of the ERROR."""
    peer = await Peer.dial(core.port)
    answer = await peer.ask("hello", **device.hello())
    await peer.close()
    return "welcome" if answer.name == "welcome" else str(answer["code"])


@pytest.mark.parametrize("ending", ["revoked", "disabled", "deleted"])
async def test_the_core_lets_a_device_in_once_it_has_a_token_and_cuts_it_off_when_that_ends(
    api: Client, world: World, core: Core, ending: str
) -> None:
    made = await add(api, world.admin, establishment_id=site(world))
    path, headers = f"{DEVICES}/{made['id']}", world.admin.headers
    token = (await api.post(f"{path}/token", headers=headers)).json()["token"]
    device = Credentials(UUID(made["id"]), token)
    issued, heard = time.monotonic(), ""
    while heard != "welcome":
        heard = await greeted(core, device)
        assert time.monotonic() < issued + FRESH_SECONDS, heard
    peer = await Peer.join(core.port, device)
    await peer.acked(1, {"type": "before"})
    match ending:
        case "revoked":
            ended = await api.delete(f"{path}/token", headers=headers)
        case "disabled":
            ended = await api.patch(path, headers=headers, json={"is_enabled": False})
        case _:
            ended = await api.delete(path, headers=headers)
    assert ended.is_success, ended.text
    changed = time.monotonic()
    await peer.everything(seconds=FRESH_SECONDS + 1)
    assert time.monotonic() - changed < FRESH_SECONDS
    assert await greeted(core, device) == "auth_failed"
