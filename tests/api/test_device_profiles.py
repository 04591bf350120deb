"""Device profiles: who sees, writes and gives them, what is refused, and what the database itself shows; over both skins."""

from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from strawberry.utils.str_converters import to_camel_case

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.tables import device_profiles
from tests.api.bookings import done, refused
from tests.api.conftest import Client
from tests.api.graphql import data, nodes, refusal
from tests.api.profiled import POINT, give_profile, new_profile
from tests.api.test_booking_isolation import database
from tests.api.test_door_codes import audited, clerk
from tests.api.test_isolation import PEOPLE, as_person
from tests.api.world import Person, World

__all__ = ["database"]

METER = {
    "points": [{"key": "power", "unit": "W"}, {"key": "energy", "unit": "kWh", "counter": {"kind": "resets"}}],
    "format": {"kind": "json", "mappings": [{"path": "$['ENERGY'].Power", "point": "power", "scale": 0.1}]},
    "expected_interval_s": 60,
}
KEPT = {
    "kind": "json",
    "items": None,
    "time": None,
    "mappings": [{"path": "$.ENERGY.Power", "point": "power", "scale": 0.1, "offset": 0, "unit": "W"}],
}
ADDRESS = {"host": "10.0.4.7", "port": 502, "unit_id": 17, "framing": "rtu_over_tcp"}


async def a_profile(api: Client, person: Person, world: World, **more: Any) -> Any:
    """Describe a meter."""
    body = {"organization_id": str(world.tenant.id), "name": "Meter", **METER, **more}
    return await done(api, "POST", "device-profiles", person, body=body)


def device(world: World, number: int = 0) -> str:
    return f"devices/{world.tenant.sites[number].device_id}"


async def test_a_profile_is_kept_with_every_field_and_stays_the_same_when_it_is_sent_again(
    api: Client, world: World
) -> None:
    made = await a_profile(api, world.chief, world, description="In the cellar")
    assert (made["name"], made["description"], made["expected_interval_s"]) == ("Meter", "In the cellar", 60)
    assert made["points"][0] == {**POINT, "name": "power"}
    assert made["format"] == KEPT
    path = f"device-profiles/{made['id']}"
    assert await done(api, "GET", path, world.chief) == made
    same = {name: made[name] for name in ("name", "description", "points", "format", "expected_interval_s")}
    assert (await done(api, "PATCH", path, world.chief, body=same))["version"] == 1
    assert [after["format"] for _, after in audited(world, "device_profile.create")] == [KEPT]
    assert audited(world, "device_profile.update") == []


async def test_who_belongs_to_the_organisation_sees_its_profiles_and_who_reaches_it_whole_writes_them(
    api: Client, world: World
) -> None:
    made = await a_profile(api, world.chief, world)
    path = f"device-profiles/{made['id']}"
    for person in (world.root, world.partner, world.chief, world.admin, world.other_site_admin):
        assert await done(api, "GET", path, person) == made
        assert (await done(api, "GET", "device-profiles", person))["items"] == [made]
    for person in (world.user, world.custom):
        status, _, problem = await refused(api, "GET", path, person)
        assert (status, problem["action"]) == (403, "read_device_profile")
    for person in (world.other_partner, world.other_chief):
        assert (await refused(api, "GET", path, person))[0] == 404
        assert (await refused(api, "PATCH", path, person, body={"name": "Mine"}))[0] == 404
        assert (await done(api, "GET", "device-profiles", person))["items"] == []
    for method, body in (("PATCH", {"name": "Mine"}), ("DELETE", None)):
        status, _, problem = await refused(api, method, path, world.admin, body=body)
        assert (status, problem["action"]) == (403, "manage_device_profile")
    for person in (world.root, world.partner, world.chief):
        changed = await done(api, "PATCH", path, person, body={"description": person.email})
        assert changed["description"] == person.email


async def test_a_change_is_made_to_what_was_read_and_to_nothing_newer(api: Client, world: World) -> None:
    made = await a_profile(api, world.chief, world)
    path, headers = f"/api/v1/device-profiles/{made['id']}", {**world.chief.headers, "If-Match": '"7"'}
    assert (await api.patch(path, headers=headers, json={"name": "Other"})).status_code == 412
    headers["If-Match"] = '"1"'
    changed = await api.patch(path, headers=headers, json={"name": "Other"})
    assert (changed.json()["name"], changed.headers["etag"]) == ("Other", '"2"')
    assert (await api.patch(path, headers=headers, json={"name": "Third"})).status_code == 412
    new_profile(world, world.tenant, name="Taken")
    new_profile(world, world.other_tenant, name="Elsewhere")
    status, code, problem = await refused(
        api, "PATCH", f"device-profiles/{made['id']}", world.chief, body={"name": "Taken"}
    )
    assert (status, code, problem["field"]) == (409, "resource.taken", "name")
    assert await done(api, "PATCH", f"device-profiles/{made['id']}", world.chief, body={"name": "Elsewhere"})


async def test_points_and_format_must_fit_together_after_a_change_of_either(api: Client, world: World) -> None:
    made = await a_profile(api, world.chief, world)
    path = f"device-profiles/{made['id']}"
    status, code, problem = await refused(api, "PATCH", path, world.chief, body={"points": [{"key": "energy"}]})
    assert (status, code, problem["field"]) == (422, "request.invalid", "format.mappings[0].point")
    assert "energy" in problem["reason"]
    register = {"point": "power", "function": 3, "address": 65_535, "type": "f32"}
    wrong = {"format": {"kind": "modbus", "registers": [register]}}
    assert (await refused(api, "PATCH", path, world.chief, body=wrong))[2]["field"] == "format.registers[0].address"
    both = {"points": [{"key": "level"}], "format": {"kind": "senml"}}
    assert (await done(api, "PATCH", path, world.chief, body=both))["format"] == {"kind": "senml"}
    assert (await done(api, "GET", "device-profiles", world.chief, format_kind="senml"))["items"] != []
    assert (await done(api, "GET", "device-profiles", world.chief, format_kind="json"))["items"] == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"points": [{"key": "a b"}]}, "points[0].key"),
        ({"points": [{"key": "a"}, {"key": "a"}]}, "points[1].key"),
        ({"points": ["a"]}, None),
        ({"format": {"kind": "xml"}}, "format.kind"),
        ({"format": {"kind": "json", "mappings": [{"path": "p", "point": "power"}]}}, "format.mappings[0].path"),
        ({"expected_interval_s": 0}, None),
        ({"name": "two\nlines"}, None),
        ({"description": "x" * 2001}, None),
        ({"color": "red"}, None),
    ],
)
async def test_what_cannot_be_is_refused_by_its_place_over_both_skins(
    api: Client, world: World, wrong: dict[str, Any], field: str | None
) -> None:
    body = {"organization_id": str(world.tenant.id), "name": "Meter", **METER, **wrong}
    status, code, problem = await refused(api, "POST", "device-profiles", world.chief, body=body)
    assert (status, code) == (422, "request.invalid")
    if field is None:
        return
    assert problem["field"] == field
    camel = {to_camel_case(name): value for name, value in body.items()}
    mutation = "mutation($input: NewDeviceProfile!) { createDeviceProfile(input: $input) { id } }"
    assert (await refusal(api, world.chief, mutation, "request.invalid", input=camel))["field"] == field


async def test_a_device_has_a_profile_of_its_own_organisation_that_its_keeper_sees(api: Client, world: World) -> None:
    made = await a_profile(api, world.chief, world)
    foreign = str(new_profile(world, world.other_tenant))
    path, given = device(world), {"profile_id": made["id"]}
    # The holder of the custom role changes devices, and sees no profiles.
    for person, profile_id in ((world.root, foreign), (world.admin, foreign), (world.custom, made["id"])):
        status, _, problem = await refused(api, "PATCH", path, person, body={"profile_id": profile_id})
        assert (status, problem["field"]) == (422, "profile_id")
    having = await done(api, "PATCH", path, world.admin, body=given)
    assert having["profile_id"] == made["id"]
    assert (await done(api, "PATCH", path, world.custom, body={**given, "model": "EM24"}))["model"] == "EM24"
    ((_, after),) = audited(world, "device.update")[:1]
    assert after["profile_id"] == made["id"]
    body = {"name": "New", "establishment_id": str(world.tenant.sites[0].id)}
    made_with = await done(api, "POST", "devices", world.admin, body={**body, **given})
    assert made_with["profile_id"] == made["id"]
    wrong = {**body, "profile_id": foreign}
    assert (await refused(api, "POST", "devices", world.root, body=wrong))[2]["field"] == "profile_id"
    listed = (await done(api, "GET", "devices", world.admin, profile_id=made["id"], sort="name"))["items"]
    assert [one["id"] for one in listed] == [having["id"], made_with["id"]]


async def test_a_child_has_a_profile_of_its_own(api: Client, world: World) -> None:
    made = await a_profile(api, world.chief, world)
    body = {
        "name": "Slave 17",
        "establishment_id": str(world.tenant.sites[0].id),
        "gateway_id": str(world.tenant.sites[0].device_id),
        "profile_id": made["id"],
        "modbus": ADDRESS,
    }
    child = await done(api, "POST", "devices", world.admin, body=body)
    assert (child["profile_id"], child["modbus"]) == (made["id"], ADDRESS)
    query = """query($id: UUID!) { device(id: $id) { modbus profile { name format } gateway { profile { name } } } }"""
    shown = (await data(api, world.admin, query, id=child["id"]))["device"]
    assert shown == {
        "modbus": ADDRESS,
        "profile": {"name": "Meter", "format": KEPT},
        "gateway": {"profile": None},
    }


async def test_a_profile_that_devices_have_is_not_deleted_and_says_how_many(api: Client, world: World) -> None:
    profile_id = new_profile(world, world.tenant)
    for site in world.tenant.sites:
        give_profile(world, site.device_id, profile_id)
    path = f"device-profiles/{profile_id}"
    status, code, problem = await refused(api, "DELETE", path, world.chief)
    assert (status, code, problem["by"]) == (409, "resource.in-use", "2 devices")
    await done(api, "PATCH", device(world, 1), world.chief, body={"profile_id": None})
    assert (await refused(api, "DELETE", path, world.chief))[2]["by"] == "1 device"
    await done(api, "PATCH", device(world), world.chief, body={"profile_id": None})
    await done(api, "DELETE", path, world.chief)
    assert (await refused(api, "GET", path, world.chief))[0] == 404
    ((before, after),) = audited(world, "device_profile.delete")
    assert (before["name"], after) == ("Meter", None)


async def test_where_a_device_answers_is_checked_and_kept_whole(api: Client, world: World) -> None:
    path = device(world)
    kept = (await done(api, "PATCH", path, world.admin, body={"modbus": {"host": "Meter.Plant.example"}}))["modbus"]
    assert kept == {"host": "meter.plant.example", "port": 502, "unit_id": 1, "framing": "tcp"}
    for wrong, field in (
        ({"host": "127.0.0.1"}, "modbus.host"),
        ({"port": 502}, "modbus.host"),
        ({**ADDRESS, "unit_id": 256}, "modbus.unit_id"),
        ({**ADDRESS, "baud": 9600}, "modbus.baud"),
    ):
        assert (await refused(api, "PATCH", path, world.admin, body={"modbus": wrong}))[2]["field"] == field
    assert (await done(api, "GET", path, world.admin))["modbus"] == kept
    assert (await done(api, "PATCH", path, world.admin, body={"modbus": None}))["modbus"] is None


async def test_the_graph_writes_and_lists_profiles_with_their_devices(api: Client, world: World) -> None:
    mutation = "mutation($input: NewDeviceProfile!) { createDeviceProfile(input: $input) { id version format } }"
    wanted = {
        "organizationId": str(world.tenant.id),
        "name": "Meter",
        "points": METER["points"],
        "format": METER["format"],
    }
    made = (await data(api, world.chief, mutation, input=wanted))["createDeviceProfile"]
    assert (made["version"], made["format"]) == (1, KEPT)
    give_profile(world, world.tenant.sites[1].device_id, UUID(made["id"]))
    give_profile(world, world.tenant.sites[0].device_id, UUID(made["id"]))
    listed = '{ deviceProfiles(formatKind: "json") { edges { node { name organization { name }'
    listed += ' devices(sort: "name") { edges { node { name } } } } } } }'
    for person, shown in ((world.chief, ["Acme 1 meter", "Acme 2 meter"]), (world.admin, ["Acme 1 meter"])):
        (profile,) = nodes((await data(api, person, listed))["deviceProfiles"])
        assert (profile["name"], profile["organization"]) == ("Meter", {"name": "Acme"})
        assert [one["name"] for one in nodes(profile["devices"])] == shown
    change = """mutation($id: UUID!, $input: DeviceProfileChange!, $version: Int) {
        changeDeviceProfile(id: $id, input: $input, version: $version) { name version } }"""
    given = {"id": made["id"], "input": {"name": "Other"}}
    await refusal(api, world.chief, change, "resource.stale", **given, version=7)
    changed = (await data(api, world.chief, change, **given, version=1))["changeDeviceProfile"]
    assert changed == {"name": "Other", "version": 2}
    delete = "mutation($id: UUID!) { deleteDeviceProfile(id: $id) }"
    assert (await refusal(api, world.chief, delete, "resource.in-use", id=made["id"]))["by"] == "2 devices"


async def test_who_may_see_profiles_sees_a_device_s_and_who_may_not_sees_none(api: Client, world: World) -> None:
    give_profile(world, world.tenant.sites[0].device_id, new_profile(world, world.tenant))
    query = "query($id: UUID!) { device(id: $id) { profile { name } } }"
    seer = clerk(world, "read_device", "read_device_profile")
    for person, shown in ((seer, {"name": "Meter"}), (clerk(world, "read_device"), None)):
        found = await data(api, person, query, id=str(world.tenant.sites[0].device_id))
        assert found["device"]["profile"] == shown


@pytest.mark.parametrize("name", PEOPLE)
async def test_the_database_shows_nobody_more_than_his_organisations_and_lets_him_write_where_he_reaches_them_whole(
    name: str, database: Database, world: World
) -> None:
    known = {
        tenant.id: new_profile(world, tenant) for tenant in (world.tenant, world.other_tenant, world.direct_tenant)
    }
    own = {
        "root": set(known),
        "other_partner": {world.other_tenant.id},
        "other_chief": {world.other_tenant.id},
    }.get(name, {world.tenant.id})
    written = own if name in ("root", "partner", "other_partner", "chief", "other_chief") else set()
    async with as_person(database, getattr(world, name)) as connection:
        assert set((await connection.execute(sa.select(device_profiles.c.organization_id))).scalars()) == own
        for tenant_id, profile_id in known.items():
            where = device_profiles.c.id == profile_id
            changed = await connection.execute(sa.update(device_profiles).where(where).values(name="Mine"))
            deleted = await connection.execute(sa.delete(device_profiles).where(where))
            expected = int(tenant_id in written)
            assert (changed.rowcount, deleted.rowcount) == (expected, expected), tenant_id
    for tenant_id in known.keys() - written:
        async with as_person(database, getattr(world, name)) as connection:
            with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
                await connection.execute(
                    sa.insert(device_profiles).values(
                        organization_id=tenant_id, name="Mine", points=[], format={"kind": "hdp"}
                    )
                )


def test_no_device_has_a_profile_of_another_organisation_whatever_code_writes(world: World) -> None:
    with psycopg.connect(world.database_url) as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute(
            "update devices set profile_id = %s where id = %s",
            [new_profile(world, world.other_tenant), world.tenant.sites[0].device_id],
        )


def test_a_change_of_a_profile_or_of_who_has_it_is_told_to_the_core(world: World) -> None:
    device_id = world.tenant.sites[0].device_id
    with psycopg.connect(world.database_url, autocommit=True) as hearing:
        hearing.execute("listen hse_device_profiles")
        hearing.execute("listen hse_devices")
        profile_id = new_profile(world, world.tenant)
        give_profile(world, device_id, profile_id)
        with psycopg.connect(world.database_url) as connection:
            connection.execute("update device_profiles set expected_interval_s = 9 where id = %s", [profile_id])
            connection.execute("update devices set profile_id = null where id = %s", [device_id])
            connection.execute("delete from device_profiles where id = %s", [profile_id])
        told = [(one.channel, one.payload) for one in hearing.notifies(timeout=10, stop_after=5)]
    profile, of_device = ("hse_device_profiles", str(profile_id)), ("hse_devices", str(device_id))
    assert told[:2] == [profile, of_device]
    assert sorted(told[2:]) == sorted([profile, of_device])
