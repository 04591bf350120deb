"""The audit log shows of an entry what its reader may see: nobody learns of other establishments, companies or organisations."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hse.adapters.postgres.audit import OWNED
from hse.adapters.postgres.reach import OwnerScope, OwnScope
from hse.adapters.postgres.stores import TableStore
from tests.api.conftest import Client
from tests.api.graphql import data
from tests.api.inviting import invite, role_ids
from tests.api.world import Person, World

QUERY = """
query ($action: String) { auditEntries(first: 50, action: $action) {
    totalCount edges { node { entityId before after } } } }
"""
Sides = list[tuple[Any, Any]]
Reading = Callable[[Client, Person, str], Any]


async def over_rest(api: Client, person: Person, action: str) -> Sides:
    params = {"action": action, "with_total": "true"}
    response = await api.get("/api/v1/audit-entries", headers=person.headers, params=params)
    assert response.status_code == 200, response.text
    page = response.json()
    assert page["total"] == len(page["items"])
    return [(entry["before"], entry["after"]) for entry in page["items"]]


async def over_graphql(api: Client, person: Person, action: str) -> Sides:
    found = (await data(api, person, QUERY, action=action))["auditEntries"]
    assert found["totalCount"] == len(found["edges"])
    return [(edge["node"]["before"], edge["node"]["after"]) for edge in found["edges"]]


def every_store(kind: type[TableStore[Any]] = TableStore) -> Iterator[type[TableStore[Any]]]:
    """Every store that the application has."""
    for store in kind.__subclasses__():
        if hasattr(store, "scope"):
            yield store
        yield from every_store(store)


@pytest.fixture(params=[over_rest, over_graphql], ids=["rest", "graphql"])
def read(request: pytest.FixtureRequest) -> Reading:
    """One of the two ways to read the log."""
    reading: Reading = request.param
    return reading


async def done(api: Client, method: str, path: str, person: Person, body: dict[str, Any]) -> Any:
    response = await api.request(method, f"/api/v1/{path}", headers=person.headers, json=body)
    assert response.is_success, response.text
    return response.json()


async def test_where_somebody_works_is_told_to_those_who_reach_a_place_at_which_it_changed(
    api: Client, world: World, read: Reading
) -> None:
    first, second = (str(site.id) for site in world.tenant.sites)
    both = {"establishments": [{"establishment_id": place} for place in (first, second)]}
    await done(api, "PUT", f"users/{world.user.id}/establishments", world.chief, both)
    action = "user.assign_establishments"
    whole: Sides = [({first: None}, {first: None, second: None})]
    for person in (world.root, world.partner, world.chief):
        assert await read(api, person, action) == whole, person.email
    assert await read(api, world.other_site_admin, action) == [({}, {second: None})]
    assert await read(api, world.admin, action) == [], "nothing changed where he looks"
    assert await read(api, world.other_chief, action) == []


async def test_an_invitation_tells_of_the_establishments_that_its_reader_reaches(
    api: Client, world: World, read: Reading
) -> None:
    first, second = (str(site.id) for site in world.tenant.sites)
    offer = {"establishment_ids": [first, second]}
    made = await invite(api, world.chief, role_ids(world)["user"], **offer)
    await done(api, "POST", f"invitations/{made.json()['id']}/revoke", world.chief, {})
    for action, num_sides in (("invitation.create", 1), ("invitation.update", 2)):
        for person, places in (
            (world.root, {first, second}),
            (world.partner, {first, second}),
            (world.chief, {first, second}),
            (world.admin, {first}),
            (world.other_site_admin, {second}),
        ):
            ((before, after),) = await read(api, person, action)
            told = [set(side["establishment_ids"]) for side in (before, after) if side is not None]
            assert told == [places] * num_sides, person.email


async def test_where_a_device_stood_is_told_to_those_who_reach_that(api: Client, world: World, read: Reading) -> None:
    first, second = world.tenant.sites
    await done(api, "PATCH", f"devices/{first.device_id}", world.chief, {"establishment_id": str(second.id)})
    for person in (world.root, world.chief):
        ((before, after),) = await read(api, person, "device.update")
        assert [side["establishment_id"] for side in (before, after)] == [str(first.id), str(second.id)]
    ((before, after),) = await read(api, world.other_site_admin, "device.update")
    assert (before, after["establishment_id"]) == (None, str(second.id))
    assert await read(api, world.admin, "device.update") == []


async def test_a_device_without_a_place_is_told_to_those_who_reach_the_organisation_whole(
    api: Client, world: World, read: Reading
) -> None:
    await done(api, "POST", "devices", world.chief, {"name": "In its box", "organization_id": str(world.tenant.id)})
    for person, num_entries in ((world.root, 1), (world.chief, 1), (world.admin, 0), (world.other_chief, 0)):
        assert len(await read(api, person, "device.create")) == num_entries, person.email


async def test_what_is_the_organisation_s_as_a_whole_is_told_to_those_who_reach_it_whole(
    api: Client, world: World, read: Reading
) -> None:
    own = str(world.tenant.id)
    await done(api, "POST", "provisioning-keys", world.chief, {"name": "The next series", "organization_id": own})
    template = {"type": "booking_confirmed", "channel": "email", "language": "en", "subject": "S", "message": "Words"}
    await done(api, "POST", "notification-templates", world.chief, {**template, "organization_id": own})
    device = await done(api, "POST", "devices", world.chief, {"name": "In its box", "organization_id": own})
    await done(api, "PATCH", f"devices/{device['id']}/attributes", world.chief, {"desired": {"colour": "red"}})
    for action in ("provisioning_key.create", "notification_template.create", "device_attributes.update"):
        for person, num_entries in ((world.root, 1), (world.chief, 1), (world.admin, 0), (world.other_chief, 0)):
            assert len(await read(api, person, action)) == num_entries, (action, person.email)


def test_the_log_tells_everybody_of_an_owner_no_more_than_the_stores_do() -> None:
    scopes = {store.entity: store.scope for store in every_store()}
    of_owners = {entity for entity, scope in scopes.items() if isinstance(scope, OwnerScope | OwnScope)}
    # These have scopes of their own, which begin with the owner.
    assert set(OWNED) == of_owners | {"api_key", "device_command_group", "role"}


async def test_whom_somebody_belonged_to_is_not_told_to_whom_he_belongs_now(
    api: Client, world: World, read: Reading
) -> None:
    moved = {"role_id": str(role_ids(world)["admin"]), "organization_id": str(world.other_tenant.id)}
    await done(api, "PUT", f"users/{world.admin.id}/role", world.root, moved)
    ((before, _),) = await read(api, world.root, "user.update")
    assert before["organization_id"] == str(world.tenant.id)
    for person in (world.other_chief, world.other_partner):
        ((before, after),) = await read(api, person, "user.update")
        assert (before, after["organization_id"]) == (None, str(world.other_tenant.id)), person.email
    moved = {"role_id": str(role_ids(world)["partner"]), "partner_company_id": str(world.other_partner_company)}
    await done(api, "PUT", f"users/{world.partner.id}/role", world.root, moved)
    (before, after), _ = await read(api, world.other_partner, "user.update")
    assert (before, after["partner_company_id"]) == (None, str(world.other_partner_company))


async def test_how_many_devices_were_commanded_is_told_to_who_reaches_all_of_them(
    api: Client, world: World, read: Reading
) -> None:
    command = {"type": "ping", "target": {"organization_id": str(world.tenant.id)}}
    await done(api, "POST", "device-command-groups", world.chief, command)
    at_first = {"type": "ping", "target": {"establishment_id": str(world.tenant.sites[0].id)}}
    await done(api, "POST", "device-command-groups", world.chief, at_first)
    for person, expected in (
        (world.root, [1, 2]),
        (world.chief, [1, 2]),
        (world.admin, [1, None]),
        (world.other_site_admin, [None, None]),
    ):
        found = await read(api, person, "device_command_group.create")
        assert [after and after["num_commands"] for _, after in found] == expected, person.email
