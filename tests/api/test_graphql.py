"""Queries over GraphQL: the same things as REST for everybody, and nothing more through nested fields."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from litestar import Litestar

from tests.api.conftest import Client, problem_of
from tests.api.graphql import ask, data, names, nodes, refusal
from tests.api.world import World

# REST's path and GraphQL's field of each list.
LISTS = {
    "partner-companies": "partnerCompanies",
    "organizations": "organizations",
    "establishments": "establishments",
    "areas": "areas",
    "devices": "devices",
    "users": "users",
    "roles": "roles",
}


@contextmanager
def counted(app: Litestar) -> Iterator[list[str]]:
    """The statements that are sent meanwhile, by whichever pool."""
    statements: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    readers = app.state.database.readers.pool
    readers.on_statement = lambda text: statements.append(text.decode())
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        readers.on_statement = None
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.mark.parametrize(("path", "field"), LISTS.items())
async def test_every_list_shows_everybody_what_rest_shows_him(api: Client, world: World, path: str, field: str) -> None:
    query = f"{{ {field}(first: 200) {{ totalCount edges {{ node {{ id }} }} }} }}"
    single = f"query One($id: UUID!) {{ one: {field_of_one(field)}(id: $id) {{ id }} }}"
    everything = [item["id"] for item in await listed(api, world.root.headers, path)]
    for person in world.people:
        response = await api.get(f"/api/v1/{path}", headers=person.headers, params={"limit": 200})
        if response.status_code == 403:
            extensions = await refusal(api, person, query, "permission.missing")
            assert extensions["action"] == response.json()["action"]
            continue
        seen = [item["id"] for item in response.json()["items"]]
        connection = (await data(api, person, query))[field]
        assert [node["id"] for node in nodes(connection)] == seen, person.email
        assert connection["totalCount"] == len(seen)
        for one in everything:
            if one in seen:
                assert (await data(api, person, single, id=one))["one"]["id"] == one
            else:
                await refusal(api, person, single, "resource.not-found", id=one)


def field_of_one(field: str) -> str:
    """The field that reads one of what another lists."""
    return f"{field[:-3]}y" if field.endswith("ies") else field[:-1]


async def listed(api: Client, headers: dict[str, str], path: str) -> list[dict[str, Any]]:
    """All that REST lists."""
    response = await api.get(f"/api/v1/{path}", headers=headers, params={"limit": 200})
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def test_every_field_has_the_value_that_rest_gives_it(api: Client, world: World) -> None:
    for path, field in LISTS.items():
        for item in await listed(api, world.root.headers, path):
            given = {camel(name): value for name, value in item.items()}
            query = f"query One($id: UUID!) {{ one: {field_of_one(field)}(id: $id) {{ {' '.join(given)} }} }}"
            one = (await data(api, world.root, query, id=item["id"]))["one"]
            for name, value in one.items():
                assert value == given[name] or (name.endswith("At") and value.replace("+00:00", "Z") == given[name])


def camel(name: str) -> str:
    """REST's name of a field as GraphQL has it."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


async def test_an_admin_sees_of_his_organisation_only_the_establishments_he_is_assigned_to(
    api: Client, world: World
) -> None:
    query = """{ organizations { edges { node { name partnerCompany { name }
        establishments { totalCount edges { node { name organization { name } areas { edges { node { name } } } } } } } } } }"""
    for person, sites in ((world.chief, ["Acme 1", "Acme 2"]), (world.admin, ["Acme 1"]), (world.user, ["Acme 1"])):
        (organization,) = nodes((await data(api, person, query))["organizations"])
        assert names(organization["establishments"]) == sites
        assert organization["establishments"]["totalCount"] == len(sites)
        # He may not see partner companies at all: it is as if there were none.
        assert organization["partnerCompany"] is None


async def test_what_leads_out_of_ones_reach_is_null_or_missing_and_no_error(api: Client, world: World) -> None:
    query = (
        "{ establishments { edges { node { name organization { id } areas { totalCount edges { node { id } } } } } } }"
    )
    (site,) = nodes((await data(api, world.custom, query))["establishments"])
    assert site == {"name": "Acme 1", "organization": None, "areas": {"totalCount": 0, "edges": []}}


async def test_a_partner_sees_nothing_of_another_one_however_he_asks(api: Client, world: World) -> None:
    query = """query Look($foreign: UUID!, $own: UUID!) {
        organizations(partnerCompanyId: $foreign) { totalCount edges { node { id } } }
        establishments(organizationId: $own) { edges { node { name organization { partnerCompany { name } } } } } }"""
    answer = await data(
        api, world.partner, query, foreign=str(world.other_partner_company), own=str(world.other_tenant.id)
    )
    assert answer == {"organizations": {"totalCount": 0, "edges": []}, "establishments": {"edges": []}}


async def test_the_statements_of_a_nested_query_do_not_grow_with_the_things_in_it(
    app: Litestar, api: Client, world: World
) -> None:
    query = """{ establishments(first: 70) { totalCount edges { node {
        name
        organization { name partnerCompany { name } }
        users(first: 3) { totalCount edges { node { email role { name } } } }
        devices(first: 2) { edges { node { name area { name } } } }
        areas(first: 5) { totalCount pageInfo { hasNextPage } edges { node {
            name establishment { name } parent { name } devices(first: 2) { edges { node { gateway { name } } } } } } }
    } } } }"""
    # The first answer of all is not counted: it opens connections.
    await data(api, world.root, query)
    with counted(app) as before:
        await data(api, world.root, query)
    world.add_sites(50, areas_each=7)
    with counted(app) as after:
        found = nodes((await data(api, world.root, query))["establishments"])
    assert len(found) == 54
    assert sum(len(site["areas"]["edges"]) for site in found) == 4 + 50 * 5
    assert 0 < len(after) == len(before) <= 29, "\n".join(after)


async def test_each_parent_has_a_page_of_its_own(api: Client, world: World) -> None:
    world.add_sites(3, areas_each=5)
    query = """query Page($after: String) { organizations { edges { node { establishments(first: 10) { edges { node {
        name areas(first: 2, after: $after, sort: "-name") { totalCount pageInfo { hasNextPage endCursor }
        edges { cursor node { name } } } } } } } } } }"""
    (organization,) = nodes((await data(api, world.chief, query))["organizations"])
    sites = [site["areas"] for site in nodes(organization["establishments"]) if site["name"].startswith("Site")]
    assert [names(areas) for areas in sites] == [["Area 5", "Area 4"]] * 3
    assert {areas["totalCount"] for areas in sites} == {5}
    cursor = sites[0]["pageInfo"]["endCursor"]
    assert cursor == sites[0]["edges"][-1]["cursor"]
    (organization,) = nodes((await data(api, world.chief, query, after=cursor))["organizations"])
    sites = [site["areas"] for site in nodes(organization["establishments"]) if site["name"].startswith("Site")]
    assert names(sites[0]) == ["Area 3", "Area 2"]
    assert sites[0]["totalCount"] == 5


async def test_pages_go_through_everything_once(api: Client, world: World) -> None:
    world.add_sites(9, areas_each=0)
    query = """query Page($after: String) { establishments(first: 4, after: $after, sort: "-created_at", search: "site") {
        pageInfo { hasNextPage endCursor } edges { node { name } } } }"""
    seen: list[str] = []
    cursor = None
    while True:
        page = (await data(api, world.chief, query, after=cursor))["establishments"]
        seen += names(page)
        cursor = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert sorted(seen) == sorted(f"Site {number}" for number in range(1, 10))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ("first: 201", "first"),
        ("first: 0", "first"),
        ('after: "x"', "cursor"),
        ('sort: "metadata"', "sort"),
        ('search: "\\u0000"', "establishment"),
    ],
)
async def test_a_page_that_cannot_be_is_refused(api: Client, world: World, arguments: str, field: str) -> None:
    root = f"{{ establishments({arguments}) {{ edges {{ node {{ id }} }} }} }}"
    assert (await refusal(api, world.chief, root, "request.invalid"))["field"] == field
    nested = f"{{ organizations {{ edges {{ node {{ {root[1:-1]} }} }} }} }}"
    assert (await refusal(api, world.chief, nested, "request.invalid"))["field"] == field


async def test_one_field_that_is_refused_leaves_the_others(api: Client, world: World) -> None:
    query = "{ partnerCompanies { totalCount } organizations { totalCount } }"
    answer = await ask(api, world.chief, query)
    assert answer["data"] == {"partnerCompanies": None, "organizations": {"totalCount": 1}}
    (error,) = answer["errors"]
    assert error["path"] == ["partnerCompanies"]
    assert error["extensions"]["kind"] == "forbidden"


async def test_a_device_leads_to_all_that_it_belongs_to(api: Client, world: World) -> None:
    site = world.tenant.sites[0]
    gateway = {"name": "Gate", "establishment_id": str(site.id)}
    gateway_id = (await api.post("/api/v1/devices", headers=world.chief.headers, json=gateway)).json()["id"]
    child = {"name": "Behind", "gateway_id": gateway_id, "establishment_id": str(world.tenant.sites[1].id)}
    await api.post("/api/v1/devices", headers=world.chief.headers, json=child)
    query = """query Device($id: UUID!) { device(id: $id) { organization { name } establishment { name areas { edges { node {
        devices { edges { node { name } } } } } } } area { name } gateway { name } children { totalCount edges { node { name
        gateway { name } establishment { name } } } } } }"""
    device = (await data(api, world.chief, query, id=gateway_id))["device"]
    assert device["organization"] == {"name": "Acme"}
    assert device["establishment"]["name"] == "Acme 1"
    assert [names(area["devices"]) for area in nodes(device["establishment"]["areas"])] == [["Acme 1 meter"]]
    assert device["area"] is None
    assert nodes(device["children"]) == [
        {"name": "Behind", "gateway": {"name": "Gate"}, "establishment": {"name": "Acme 2"}}
    ]
    # Who works at the gateway's establishment only sees nothing of what stands at the other one.
    device = (await data(api, world.admin, query, id=gateway_id))["device"]
    assert device["children"] == {"totalCount": 0, "edges": []}


async def test_a_refusal_has_the_correlation_id_of_the_request(api: Client, world: World) -> None:
    headers = {**world.chief.headers, "X-Correlation-Id": "look-for-me"}
    query = {"query": f'{{ area(id: "{uuid4()}") {{ id }} }}'}
    response = await api.post("/graphql", headers=headers, json=query)
    assert response.json()["errors"][0]["extensions"]["correlationId"] == "look-for-me"


async def test_without_somebody_signed_in_nothing_is_answered_not_even_the_schema(api: Client, world: World) -> None:
    introspection = {"query": "{ __schema { types { name } } }"}
    world.revoke(world.user)
    for headers in ({}, {"X-API-Key": "hse_x_y"}, {"Authorization": "Bearer nonsense"}, world.user.headers):
        problem_of(await api.post("/graphql", headers=headers, json=introspection), 401, "identity.unauthenticated")
    response = await api.post("/graphql", headers=world.custom.headers, json=introspection)
    assert "Establishment" in {kind["name"] for kind in response.json()["data"]["__schema"]["types"]}


async def test_what_is_no_graphql_request_is_a_problem_as_everywhere(api: Client, world: World) -> None:
    headers = world.chief.headers
    for content, status, code in (
        (b"{", 400, "request.malformed"),
        (b"[" * 100_000, 400, "request.malformed"),
        (b'[{"query": "{ areas { totalCount } }"}]', 400, "request.malformed"),
        (b"{}", 400, "request.malformed"),
        (b'{"query": 1}', 400, "request.malformed"),
        (b'{"query": "{ a }", "operationName": "x"}', 400, "request.malformed"),
        (b"{" + b" " * (1 << 20) + b"}", 413, "request.too-large"),
    ):
        sent = {**headers, "Content-Type": "application/json"}
        problem_of(await api.post("/graphql", headers=sent, content=content), status, code)
    form = await api.post("/graphql", headers=headers, data={"query": "{ areas { totalCount } }"})
    problem_of(form, 415, "request.unsupported-media-type")
    get = await api.get("/graphql", headers=headers, params={"query": "{ areas { totalCount } }"})
    problem_of(get, 405, "request.method-not-allowed")
