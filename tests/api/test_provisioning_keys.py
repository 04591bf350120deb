"""Provisioning keys: who makes and sees them, what is told of them, and what the database shows; over both skins."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.tables import provisioning_keys
from hse.adapters.tokens import hash_of
from tests.api.bookings import done, refused
from tests.api.conftest import Client
from tests.api.graphql import data, nodes, refusal
from tests.api.profiled import new_profile, new_provisioning_key
from tests.api.test_booking_isolation import database
from tests.api.test_door_codes import audited, clerk
from tests.api.test_isolation import PEOPLE, as_person
from tests.api.world import Person, World

__all__ = ["database"]

KEYS = "provisioning-keys"


async def a_key(api: Client, person: Person, world: World, **more: Any) -> Any:
    """Make a key of the first site."""
    body = {"name": "Series 7", "establishment_id": str(world.tenant.sites[0].id), **more}
    return await done(api, "POST", KEYS, person, body=body)


def stored(world: World) -> Any:
    with psycopg.connect(world.database_url) as connection:
        return connection.execute("select key, secret_hash from provisioning_keys").fetchone()


async def test_both_halves_are_told_once_and_the_secret_one_never_again(api: Client, world: World) -> None:
    made = await a_key(api, world.admin, world)
    assert set(made) == {"id", "key", "secret"}
    assert stored(world) == (made["key"], hash_of(made["secret"]))
    read = await done(api, "GET", f"{KEYS}/{made['id']}", world.admin)
    assert (read["key"], read["devices_max"], read["num_devices"]) == (made["key"], 1000, 0)
    assert (read["makes_devices"], read["is_enabled"], read["expires_at"]) == (True, True, None)
    assert read["organization_id"] == str(world.tenant.id)
    listed = await api.get(f"/api/v1/{KEYS}", headers=world.admin.headers)
    with psycopg.connect(world.database_url) as connection:
        log = connection.execute("select string_agg(a::text, '') from audit_entries a").fetchone()
    for text in (str(read), listed.text, str(log)):
        assert made["secret"] not in text
        assert stored(world)[1].hex() not in text
    ((_, after),) = audited(world, "provisioning_key.create")
    assert after["key"] == made["key"]


async def test_a_key_is_made_where_one_could_register_devices_and_give_them_tokens_oneself(
    api: Client, world: World
) -> None:
    body = {"name": "Series 7", "establishment_id": str(world.tenant.sites[0].id)}
    held = ["read_establishment", "manage_provisioning_key", "create_device", "manage_device_token"]
    for missing in held[1:]:
        person = clerk(world, *(one for one in held if one != missing))
        status, _, problem = await refused(api, "POST", KEYS, person, body=body)
        assert (status, problem["action"]) == (403, missing)
    assert await done(api, "POST", KEYS, clerk(world, *held), body=body)
    whole = {"name": "Series 8", "organization_id": str(world.tenant.id)}
    assert (await refused(api, "POST", KEYS, world.admin, body=whole))[0] == 403
    assert await done(api, "POST", KEYS, world.chief, body=whole)
    assert (await refused(api, "POST", KEYS, world.other_chief, body=body))[0] == 404
    assert (await refused(api, "POST", KEYS, world.chief, body={"name": "Nowhere"}))[2]["field"] == "establishment_id"
    both = {**body, "organization_id": str(world.other_tenant.id)}
    assert (await refused(api, "POST", KEYS, world.root, body=both))[2]["field"] == "organization_id"


async def test_a_key_is_changed_while_it_is_as_read_and_taken_out_of_use_by_who_manages_it(
    api: Client, world: World
) -> None:
    made = await a_key(api, world.admin, world)
    path, headers = f"/api/v1/{KEYS}/{made['id']}", {**world.admin.headers, "If-Match": '"7"'}
    assert (await api.patch(path, headers=headers, json={"name": "Other"})).status_code == 412
    headers["If-Match"] = '"1"'
    changed = await api.patch(path, headers=headers, json={"name": "Other", "devices_max": 5, "makes_devices": False})
    assert (changed.json()["devices_max"], changed.headers["etag"]) == (5, '"2"')
    manager = clerk(world, "read_provisioning_key", "manage_provisioning_key")
    status, _, problem = await refused(api, "PATCH", f"{KEYS}/{made['id']}", manager, body={"devices_max": 9})
    assert (status, problem["action"]) == (403, "create_device")
    out = {"is_enabled": False}
    assert (await done(api, "PATCH", f"{KEYS}/{made['id']}", manager, body=out))["is_enabled"] is False
    assert (await refused(api, "PATCH", f"{KEYS}/{made['id']}", manager, body={"is_enabled": True}))[0] == 403
    await done(api, "DELETE", f"{KEYS}/{made['id']}", manager)
    assert (await refused(api, "GET", f"{KEYS}/{made['id']}", world.admin))[0] == 404


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"devices_max": 0}, None),
        ({"devices_max": 100_001}, None),
        ({"expires_at": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()}, "expires_at"),
        ({"name": "two\nlines"}, None),
        ({"secret": "mine"}, None),
    ],
)
async def test_what_cannot_be_is_refused(api: Client, world: World, wrong: dict[str, Any], field: str | None) -> None:
    body = {"name": "Series 7", "establishment_id": str(world.tenant.sites[0].id), **wrong}
    status, code, problem = await refused(api, "POST", KEYS, world.admin, body=body)
    assert (status, code) == (422, "request.invalid")
    assert field is None or problem["field"] == field


async def test_its_profile_is_one_of_its_organisation_and_stays_while_the_key_names_it(
    api: Client, world: World
) -> None:
    own, foreign = new_profile(world, world.tenant), new_profile(world, world.other_tenant)
    body = {"name": "S", "establishment_id": str(world.tenant.sites[0].id), "profile_id": str(foreign)}
    assert (await refused(api, "POST", KEYS, world.root, body=body))[2]["field"] == "profile_id"
    made = await a_key(api, world.admin, world, profile_id=str(own))
    path = f"{KEYS}/{made['id']}"
    wrong = {"profile_id": str(foreign)}
    assert (await refused(api, "PATCH", path, world.root, body=wrong))[2]["field"] == "profile_id"
    status, code, _ = await refused(api, "DELETE", f"device-profiles/{own}", world.chief)
    assert (status, code) == (409, "resource.in-use")
    await done(api, "PATCH", path, world.admin, body={"profile_id": None})
    await done(api, "DELETE", f"device-profiles/{own}", world.chief)


async def test_the_graph_makes_lists_and_changes_them(api: Client, world: World) -> None:
    profile_id = new_profile(world, world.tenant)
    make = "mutation($input: NewProvisioningKey!) { createProvisioningKey(input: $input) { id key secret } }"
    wanted = {"name": "S", "establishmentId": str(world.tenant.sites[0].id), "profileId": str(profile_id)}
    made = (await data(api, world.admin, make, input=wanted))["createProvisioningKey"]
    assert hash_of(made["secret"]) == stored(world)[1]
    listed = "{ provisioningKeys(isEnabled: true) { edges { node { key profile { name } establishment { name } } } } }"
    (one,) = nodes((await data(api, world.admin, listed))["provisioningKeys"])
    assert one == {"key": made["key"], "profile": {"name": "Meter"}, "establishment": {"name": "Acme 1"}}
    change = """mutation($id: UUID!, $version: Int) {
        changeProvisioningKey(id: $id, input: {isEnabled: false}, version: $version) { isEnabled } }"""
    await refusal(api, world.admin, change, "resource.stale", id=made["id"], version=7)
    assert await data(api, world.admin, change, id=made["id"], version=1)
    assert nodes((await data(api, world.admin, listed))["provisioningKeys"]) == []


@pytest.mark.parametrize("name", PEOPLE)
async def test_the_database_shows_nobody_more_than_his_places_and_nobody_the_secrets(
    name: str, database: Database, world: World
) -> None:
    sites = [site for tenant in (world.tenant, world.other_tenant, world.direct_tenant) for site in tenant.sites]
    for tenant in (world.tenant, world.other_tenant, world.direct_tenant):
        for site in tenant.sites:
            new_provisioning_key(world, tenant, site)
    first, second = (site.id for site in world.tenant.sites)
    foreign = world.other_tenant.sites[0].id
    expected = {
        "root": {site.id for site in sites},
        "partner": {first, second},
        "chief": {first, second},
        "other_partner": {foreign},
        "other_chief": {foreign},
        "other_site_admin": {second},
    }.get(name, {first})
    row = provisioning_keys.c
    async with as_person(database, getattr(world, name)) as connection:
        assert set((await connection.execute(sa.select(row.establishment_id))).scalars()) == expected
        changed = await connection.execute(sa.update(provisioning_keys).values(name="Mine"))
        assert changed.rowcount == len(expected)
    for statement in (
        sa.select(row.secret_hash),
        sa.update(provisioning_keys).values(num_devices=0),
        sa.text("select * from hse_provision_device('x', '', 'x', '')"),
    ):
        async with as_person(database, getattr(world, name)) as connection:
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                await connection.execute(statement)
