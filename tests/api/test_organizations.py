"""Partner companies, organisations, establishments and areas over REST: what each level sees and may do, and the rules."""

import asyncio
import base64
import json
from uuid import UUID, uuid4

import pytest

from tests.api.conftest import Client, problem_of
from tests.api.world import World


async def names(api: Client, path: str, headers: dict[str, str]) -> list[str]:
    response = await api.get(f"/api/v1/{path}", headers=headers)
    assert response.status_code == 200, response.text
    return [item["name"] for item in response.json()["items"]]


async def test_everybody_sees_what_is_his_and_nothing_else(api: Client, world: World) -> None:
    for person, partners, organizations, sites in (
        (world.root, ["Alpha", "Beta"], ["Acme", "Bolt", "Core"], ["Acme 1", "Acme 2", "Bolt 1", "Core 1"]),
        (world.partner, ["Alpha"], ["Acme"], ["Acme 1", "Acme 2"]),
        (world.chief, None, ["Acme"], ["Acme 1", "Acme 2"]),
        (world.admin, None, ["Acme"], ["Acme 1"]),
        (world.user, None, ["Acme"], ["Acme 1"]),
        (world.custom, None, None, ["Acme 1"]),
    ):
        for path, expected in (
            ("partner-companies", partners),
            ("organizations", organizations),
            ("establishments", sites),
        ):
            if expected is None:
                response = await api.get(f"/api/v1/{path}", headers=person.headers)
                problem_of(response, 403, "permission.missing")
            else:
                assert await names(api, path, person.headers) == expected, (person.email, path)


async def test_what_one_may_not_see_is_not_there_and_what_one_may_not_do_is_refused(api: Client, world: World) -> None:
    foreign = f"/api/v1/establishments/{world.other_tenant.sites[0].id}"
    for call in (api.get(foreign, headers=world.chief.headers), api.delete(foreign, headers=world.chief.headers)):
        problem_of(await call, 404, "resource.not-found")
    own = f"/api/v1/establishments/{world.tenant.sites[0].id}"
    response = await api.patch(own, headers=world.user.headers, json={"name": "Mine"})
    assert problem_of(response, 403, "permission.missing")["action"] == "update_establishment"


async def test_an_admin_who_makes_an_establishment_works_there(api: Client, world: World) -> None:
    body = {"organization_id": str(world.tenant.id), "name": "Acme 3", "timezone": "Europe/Madrid"}
    made = await api.post("/api/v1/establishments", headers=world.admin.headers, json=body)
    assert made.status_code == 201, made.text
    assert await names(api, "establishments", world.admin.headers) == ["Acme 1", "Acme 3"]
    assert await names(api, "establishments", world.chief.headers) == ["Acme 1", "Acme 2", "Acme 3"]
    again = await api.post("/api/v1/establishments", headers=world.chief.headers, json=body)
    problem_of(again, 409, "resource.taken")


async def test_a_change_with_an_old_etag_is_refused(api: Client, world: World) -> None:
    path = f"/api/v1/establishments/{world.tenant.sites[0].id}"
    read = await api.get(path, headers=world.chief.headers)
    etag = {"If-Match": read.headers["etag"]}
    first = await api.patch(path, headers={**world.chief.headers, **etag}, json={"name": "New", "address": None})
    assert first.status_code == 200, first.text
    second = await api.patch(path, headers={**world.chief.headers, **etag}, json={"name": "Newer"})
    problem_of(second, 412, "resource.stale")


async def test_absent_stays_and_null_empties(api: Client, world: World) -> None:
    path = f"/api/v1/establishments/{world.tenant.sites[0].id}"
    headers = world.chief.headers
    await api.patch(path, headers=headers, json={"address": "Here", "latitude": -33.4, "longitude": -70.6})
    changed = await api.patch(path, headers=headers, json={"name": "New"})
    assert changed.json()["address"] == "Here"
    emptied = await api.patch(path, headers=headers, json={"address": None})
    assert emptied.json()["address"] is None
    half = await api.patch(path, headers=headers, json={"latitude": None})
    assert problem_of(half, 422, "request.invalid")["field"] == "latitude"


async def test_areas_form_a_tree_without_cycles(api: Client, world: World) -> None:
    site, headers = world.tenant.sites[0], world.chief.headers
    inner = await api.post(
        "/api/v1/areas",
        headers=headers,
        json={"establishment_id": str(site.id), "name": "Room", "type": "office", "parent_area_id": str(site.area_id)},
    )
    assert inner.status_code == 201, inner.text
    inner_id = inner.json()["id"]
    cycle = await api.patch(f"/api/v1/areas/{site.area_id}", headers=headers, json={"parent_area_id": inner_id})
    problem_of(cycle, 409, "areas.cycle")
    foreign = {"parent_area_id": str(world.tenant.sites[1].area_id)}
    problem_of(await api.patch(f"/api/v1/areas/{inner_id}", headers=headers, json=foreign), 422, "request.invalid")
    problem_of(await api.delete(f"/api/v1/areas/{site.area_id}", headers=headers), 409, "resource.in-use")
    assert (await api.delete(f"/api/v1/areas/{inner_id}", headers=headers)).status_code == 204


async def test_two_moves_at_once_make_no_cycle(api: Client, world: World) -> None:
    site, headers = world.tenant.sites[0], world.chief.headers
    body = {"establishment_id": str(site.id), "name": "Other", "type": "office"}
    other = (await api.post("/api/v1/areas", headers=headers, json=body)).json()["id"]
    moves = await asyncio.gather(
        api.patch(f"/api/v1/areas/{site.area_id}", headers=headers, json={"parent_area_id": other}),
        api.patch(f"/api/v1/areas/{other}", headers=headers, json={"parent_area_id": str(site.area_id)}),
    )
    assert sorted(move.status_code for move in moves) == [200, 409]


async def test_pages_go_through_everything_once(api: Client, world: World) -> None:
    for number in range(7):
        body = {
            "establishment_id": str(world.tenant.sites[0].id),
            "name": f"Room {number % 2}{number}",
            "type": "office",
        }
        assert (await api.post("/api/v1/areas", headers=world.chief.headers, json=body)).status_code == 201
    seen: list[str] = []
    cursor = None
    while True:
        params: dict[str, str | int] = {"limit": 3, "sort": "-name", "q": "room"}
        if cursor is not None:
            params["cursor"] = cursor
        page = (await api.get("/api/v1/areas", headers=world.chief.headers, params=params)).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 7


@pytest.mark.parametrize("cursor", ["x", "bm90IGpzb24", "WyJuYW1lIiwgMSwgMV0", "é"])
async def test_a_cursor_of_another_list_is_refused(api: Client, world: World, cursor: str) -> None:
    response = await api.get("/api/v1/areas", headers=world.chief.headers, params={"cursor": cursor})
    problem_of(response, 422, "request.invalid")


@pytest.mark.parametrize(
    ("path", "sort", "value", "row_id"),
    [
        ("users", "last_name", "a", "123"),
        ("users", "last_name", "a", 123),
        ("audit-entries", "-id", 1, str(UUID(int=1))),
        ("audit-entries", "-id", 1, "9" * 30),
        ("audit-entries", "-id", 1, "-1"),
        ("audit-entries", "-id", 10**30, "1"),
    ],
)
async def test_a_cursor_that_somebody_made_up_is_refused(
    api: Client, world: World, path: str, sort: str, value: object, row_id: object
) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps([sort, value, row_id]).encode()).decode().rstrip("=")
    params = {"sort": sort, "cursor": cursor}
    response = await api.get(f"/api/v1/{path}", headers=world.root.headers, params=params)
    problem_of(response, 422, "request.invalid")


async def test_a_request_sent_again_with_its_key_is_answered_again_and_not_done_again(
    api: Client, world: World
) -> None:
    headers = {**world.chief.headers, "Idempotency-Key": str(uuid4())}
    body = {"establishment_id": str(world.tenant.sites[0].id), "name": "Once", "type": "office"}
    answers = await asyncio.gather(*(api.post("/api/v1/areas", headers=headers, json=body) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await api.post("/api/v1/areas", headers=headers, json={**body, "name": "Twice"})
    problem_of(other, 422, "request.invalid")


async def test_disabling_an_organisation_shuts_its_people_out_at_once(api: Client, world: World) -> None:
    path = f"/api/v1/organizations/{world.tenant.id}"
    problem_of(await api.patch(path, headers=world.chief.headers, json={"is_active": False}), 403, "permission.missing")
    assert (await api.patch(path, headers=world.partner.headers, json={"is_active": False})).status_code == 200
    problem_of(await api.get("/api/v1/areas", headers=world.chief.headers), 401, "identity.unauthenticated")
    assert (await api.patch(path, headers=world.partner.headers, json={"is_active": True})).status_code == 200
    problem_of(await api.get("/api/v1/areas", headers=world.chief.headers), 401, "identity.unauthenticated")


async def test_without_a_token_nothing_is_answered(api: Client) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"X-API-Key": "hse_x_y"}):
        problem_of(await api.get("/api/v1/areas", headers=headers), 401, "identity.unauthenticated")
