"""People, roles, keys and the audit log over GraphQL."""

from uuid import UUID

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


async def test_people_lead_to_their_roles_and_places_and_those_to_people(api: Client, world: World) -> None:
    query = """{ users { totalCount edges { node { email role { name actions } organization { name } partnerCompany { name }
        establishments { edges { node { name users { edges { node { email } } } } } } } } } }"""
    found = {node["email"]: node for node in nodes((await data(api, world.chief, query))["users"])}
    assert set(found) == await emails(api, world, organization_id=world.tenant.id)
    admin = found["admin@example.com"]
    assert admin["role"]["name"] == "admin"
    assert "create_establishment" in admin["role"]["actions"]
    assert (admin["organization"], admin["partnerCompany"]) == ({"name": "Acme"}, None)
    (site,) = nodes(admin["establishments"])
    assert site["name"] == "Acme 1"
    there = {node["email"] for node in nodes(site["users"])}
    assert there == await emails(api, world, establishment_id=world.tenant.sites[0].id)
    # Somebody who is assigned to the other establishment sees who they are, and not that they work at this one.
    found = {node["email"]: node for node in nodes((await data(api, world.other_site_admin, query))["users"])}
    assert nodes(found["admin@example.com"]["establishments"]) == []
    assert len(nodes(found["second@example.com"]["establishments"])) == 1


async def emails(api: Client, world: World, **filters: UUID) -> set[str]:
    """Whom root finds over REST."""
    params: dict[str, str | int] = {"limit": 200, **{name: str(value) for name, value in filters.items()}}
    response = await api.get("/api/v1/users", headers=world.root.headers, params=params)
    return {item["email"] for item in response.json()["items"]}


async def test_who_may_not_see_people_and_roles_finds_none_through_what_he_sees(api: Client, world: World) -> None:
    query = "{ establishments { edges { node { users { totalCount edges { node { role { name } } } } } } } }"
    for person in (world.user, world.custom):
        (site,) = nodes((await data(api, person, query))["establishments"])
        assert site["users"] == {"totalCount": 0, "edges": []}
    body = {"name": "looker", "actions": ["read_user"]}
    role = (await api.post("/api/v1/roles", headers=world.chief.headers, json=body)).json()["id"]
    looker = world.add_person_now("looker@example.com", UUID(role), organization_id=world.tenant.id)
    query = "{ users { edges { node { email role { name } } } } }"
    assert {node["role"] for node in nodes((await data(api, looker, query))["users"])} == {None}


async def test_who_works_at_a_place_that_one_does_not_see_is_not_learnt_by_asking(api: Client, world: World) -> None:
    hidden = str(world.tenant.sites[0].id)
    query = "query Who($site: UUID!) { users(establishmentId: $site) { totalCount edges { node { email } } } }"
    assert (await data(api, world.other_site_admin, query, site=hidden))["users"] == {"totalCount": 0, "edges": []}
    nested = (
        "query Who($site: UUID!) { organizations { edges { node { users(establishmentId: $site) { totalCount } } } } }"
    )
    await refusal(api, world.other_site_admin, nested, "request.invalid", site=hidden)


async def test_a_role_is_made_given_and_taken_away(api: Client, world: World) -> None:
    create = "mutation Make($input: NewRole!) { createRole(input: $input) { id name hierarchy actions organization { name } } }"
    wanted = {"name": "viewer", "actions": ["read_device", "read_area"]}
    role = (await data(api, world.chief, create, input=wanted))["createRole"]
    assert role == {
        **wanted,
        "id": role["id"],
        "hierarchy": 5,
        "actions": ["read_area", "read_device"],
        "organization": {"name": "Acme"},
    }
    too_much = {"name": "climber", "actions": ["create_partner_company"]}
    rest = await api.post("/api/v1/roles", headers=world.chief.headers, json=too_much)
    await refusal(api, world.chief, create, rest.json()["code"], input=too_much)

    give = "mutation Give($id: UUID!, $input: NewRoleOfUser!) { assignRole(id: $id, input: $input) { role { name } } }"
    user, given = str(world.user.id), {"roleId": role["id"]}
    assert (await data(api, world.chief, give, id=user, input=given))["assignRole"] == {"role": {"name": "viewer"}}
    await refusal(api, world.user, give, "resource.not-found", id=str(world.admin.id), input=given)

    place = """mutation Place($id: UUID!, $input: WorkPlaces!) { assignEstablishments(id: $id, input: $input) {
        establishment { name } role { name } user { email } } }"""
    places = {"establishments": [{"establishmentId": str(world.tenant.sites[1].id), "roleId": role["id"]}]}
    expected = [
        {"establishment": {"name": "Acme 2"}, "role": {"name": "viewer"}, "user": {"email": "user@example.com"}}
    ]
    assert (await data(api, world.chief, place, id=user, input=places))["assignEstablishments"] == expected
    read = "query Places($id: UUID!) { userEstablishments(id: $id) { establishment { name } role { name } user { email } } }"
    assert (await data(api, world.chief, read, id=user))["userEstablishments"] == expected

    change = (
        "mutation Change($id: UUID!, $input: RoleChange!) { changeRole(id: $id, input: $input) { actions version } }"
    )
    changed = await data(api, world.chief, change, id=role["id"], input={"actions": ["read_area"]})
    assert changed["changeRole"] == {"actions": ["read_area"], "version": 2}
    await refusal(api, world.chief, "mutation D($id: UUID!) { deleteRole(id: $id) }", "resource.in-use", id=role["id"])


async def test_the_catalogue_of_actions_is_read_whole(api: Client, world: World) -> None:
    rest = (await api.get("/api/v1/actions", headers=world.admin.headers)).json()["items"]
    actions = (await data(api, world.admin, "{ actions { name exclusiveTo } }"))["actions"]
    assert [action["name"] for action in actions] == [item["name"] for item in rest]


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


async def test_somebody_is_invited_and_the_invitation_taken_back(api: Client, world: World) -> None:
    invite = """mutation Invite($input: NewInvitation!) { createInvitation(input: $input) { id email status sentCount
        organization { name } role { name } } }"""
    roles = nodes((await data(api, world.chief, "{ roles { edges { node { id name } } } }"))["roles"])
    wanted = {
        "email": "new@example.com",
        "firstName": "Eva",
        "lastName": "Rojas",
        "roleId": next(role["id"] for role in roles if role["name"] == "user"),
        "establishmentIds": [str(world.tenant.sites[0].id)],
    }
    made = (await data(api, world.chief, invite, input=wanted))["createInvitation"]
    assert (made["status"], made["organization"], made["role"]) == ("pending", {"name": "Acme"}, {"name": "user"})
    listed = '{ invitations(status: "pending") { totalCount edges { node { email } } } }'
    assert "new@example.com" in {one["email"] for one in nodes((await data(api, world.chief, listed))["invitations"])}
    await refusal(api, world.user, listed, "permission.missing")
    await refusal(api, world.user, invite, "permission.missing", input=wanted)
    resend = "mutation Again($id: UUID!) { resendInvitation(id: $id) { sentCount } }"
    assert (await data(api, world.chief, resend, id=made["id"]))["resendInvitation"]["sentCount"] == made[
        "sentCount"
    ] + 1
    revoke = "mutation Back($id: UUID!) { revokeInvitation(id: $id) { status } }"
    await refusal(api, world.other_chief, revoke, "resource.not-found", id=made["id"])
    assert (await data(api, world.chief, revoke, id=made["id"]))["revokeInvitation"] == {"status": "revoked"}
    await refusal(api, world.chief, revoke, "invitations.answered", id=made["id"])
