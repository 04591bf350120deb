"""People, roles, keys and the audit log over GraphQL."""

from tests.api.conftest import Client
from tests.api.graphql import data, nodes, refusal
from tests.api.world import World

MAKE_KEY = """mutation Make($input: NewApiKey!, $key: String) { createApiKey(input: $input, idempotencyKey: $key) {
    key apiKey { id name actions useCount } } }"""


async def test_a_key_is_made_shown_once_used_and_revoked(api: Client, world: World) -> None:
    wanted = {"name": "dashboard", "actions": ["read_device", "read_area"]}
    made = (await data(api, world.admin, MAKE_KEY, input=wanted, key="once"))["createApiKey"]
    assert made["apiKey"]["actions"] == ["read_area", "read_device"]
    assert (await data(api, world.admin, MAKE_KEY, input=wanted, key="once"))["createApiKey"] == made
    (listed,) = nodes((await data(api, world.admin, "{ apiKeys { edges { node { id name } } } }"))["apiKeys"])
    assert listed["id"] == made["apiKey"]["id"]

    query = {
        "query": "{ devices { totalCount } areas { totalCount } establishments { totalCount } apiKeys { totalCount } }"
    }
    answer = (await api.post("/graphql", headers={"X-API-Key": made["key"]}, json=query)).json()
    assert answer["data"] == {
        "devices": {"totalCount": 1},
        "areas": {"totalCount": 1},
        "establishments": None,
        "apiKeys": None,
    }
    codes = {error["path"][0]: error["extensions"]["code"] for error in answer["errors"]}
    assert codes == {"establishments": "permission.missing", "apiKeys": "api-keys.refused"}

    revoke = "mutation Revoke($id: UUID!) { revokeApiKey(id: $id) }"
    await refusal(api, world.user, revoke, "resource.not-found", id=listed["id"])
    await data(api, world.admin, revoke, id=listed["id"])
    assert (await api.post("/graphql", headers={"X-API-Key": made["key"]}, json=query)).status_code == 401


async def test_a_key_cannot_hold_what_its_maker_does_not(api: Client, world: World) -> None:
    for actions, code in (
        (["delete_organization"], "permission.missing"),
        (["manage_user_sessions"], "request.invalid"),
        ([], "request.invalid"),
    ):
        await refusal(api, world.admin, MAKE_KEY, code, input={"name": "x", "actions": actions})
    rate = {"name": "x", "actions": ["read_area"], "requestsPerMinute": 100_000}
    extensions = await refusal(api, world.admin, MAKE_KEY, "request.invalid", input=rate)
    assert extensions["field"] == "requestsPerMinute"


async def test_the_audit_log_is_read_within_ones_reach_the_newest_first(api: Client, world: World) -> None:
    rename = "mutation Rename($id: UUID!, $name: String!) { changeArea(id: $id, input: {name: $name}) { id } }"
    for person, site in ((world.chief, world.tenant.sites[0]), (world.other_chief, world.other_tenant.sites[0])):
        for name in ("First", "Second", "Third"):
            await data(api, person, rename, id=str(site.area_id), name=name)
    query = """query Log($after: String, $since: DateTime) {
        auditEntries(first: 2, after: $after, action: "area.update", since: $since) { totalCount pageInfo { endCursor hasNextPage }
        edges { cursor node { id action actorId after organization { name } establishment { name } } } } }"""
    page = (await data(api, world.chief, query))["auditEntries"]
    assert [entry["after"]["name"] for entry in nodes(page)] == ["Third", "Second"]
    assert page["totalCount"] == 3
    assert nodes(page)[0]["organization"] == {"name": "Acme"}
    assert nodes(page)[0]["establishment"] == {"name": "Acme 1"}
    rest = (await data(api, world.chief, query, after=page["pageInfo"]["endCursor"]))["auditEntries"]
    assert [entry["after"]["name"] for entry in nodes(rest)] == ["First"]
    later = (await data(api, world.chief, query, since="2999-01-01T00:00:00Z"))["auditEntries"]
    assert later["totalCount"] == 0
    assert (await refusal(api, world.chief, query, "request.invalid", since="2999-01-01T00:00:00"))["field"] == "since"
    # Who works at the other establishment only reads nothing of this one.
    page = (await data(api, world.other_site_admin, query))["auditEntries"]
    assert page["totalCount"] == 0
    await refusal(api, world.user, query, "permission.missing")
