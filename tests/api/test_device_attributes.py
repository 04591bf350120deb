"""Attributes of devices: merged, versioned, told to who speaks with the device, and shown to who may see them; over both skins."""

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.tables import device_attributes
from tests.api.bookings import done, refused
from tests.api.conftest import Client
from tests.api.graphql import data, refusal
from tests.api.test_booking_isolation import database
from tests.api.test_door_codes import audited, clerk
from tests.api.test_isolation import PEOPLE, as_person
from tests.api.world import World

__all__ = ["database"]


def path(world: World, number: int = 0) -> str:
    return f"devices/{world.tenant.sites[number].device_id}/attributes"


def report(world: World, reported: str) -> None:
    """Have the first site's device have said something."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into device_attributes (device_id, reported, reported_version, reported_at) values (%s, %s, 1, now())"
            " on conflict (device_id) do update set reported = excluded.reported, reported_at = now(),"
            " reported_version = device_attributes.reported_version + 1",
            [world.tenant.sites[0].device_id, reported],
        )


async def test_what_is_desired_is_merged_and_what_is_missing_of_it_is_told(api: Client, world: World) -> None:
    empty = await done(api, "GET", path(world), world.admin)
    assert (empty["version"], empty["desired"], empty["reported"], empty["delta"]) == (0, {}, {}, {})
    wanted = {"interval_s": 60, "display": {"brightness": 40, "text": "hi"}}
    first = await done(api, "PATCH", path(world), world.admin, body={"desired": wanted})
    assert (first["version"], first["desired"], first["delta"]) == (1, wanted, wanted)
    report(world, '{"interval_s": 60, "display": {"brightness": 80, "text": "hi"}, "firmware": "1.2"}')
    change = {"interval_s": 60.0, "display": {"text": None}}
    second = await done(api, "PATCH", path(world), world.admin, body={"desired": change})
    assert (second["version"], second["reported_version"]) == (2, 1)
    assert second["desired"] == {"interval_s": 60, "display": {"brightness": 40}}
    assert second["delta"] == {"display": {"brightness": 40}}
    assert second["reported"]["firmware"] == "1.2"
    assert await done(api, "GET", path(world), world.admin) == second
    assert (await done(api, "PATCH", path(world), world.admin, body={"desired": change}))["version"] == 2
    assert (await done(api, "PATCH", path(world), world.admin, body={"desired": {}}))["version"] == 2


async def test_a_change_is_made_to_what_was_read_and_reports_do_not_count(api: Client, world: World) -> None:
    url, headers = f"/api/v1/{path(world)}", {**world.admin.headers, "If-Match": '"0"'}
    assert (await api.get(url, headers=headers)).headers["etag"] == '"0"'
    made = await api.patch(url, headers=headers, json={"desired": {"a": 1}})
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    assert (await api.patch(url, headers=headers, json={"desired": {"a": 2}})).status_code == 412
    report(world, '{"a": 1}')
    headers["If-Match"] = '"1"'
    assert (await api.patch(url, headers=headers, json={"desired": {"a": 2}})).status_code == 200


async def test_who_sees_the_device_and_may_see_attributes_sees_them(api: Client, world: World) -> None:
    await done(api, "PATCH", path(world), world.chief, body={"desired": {"a": 1}})
    for person in (world.root, world.partner, world.chief, world.admin):
        assert (await done(api, "GET", path(world), person))["desired"] == {"a": 1}
    for person in (world.other_partner, world.other_chief, world.other_site_admin):
        for method, body in (("GET", None), ("PATCH", {"desired": {"a": 2}})):
            assert (await refused(api, method, path(world), person, body=body))[0] == 404
    seer, blind = clerk(world, "read_device", "read_device_attribute"), clerk(world, "read_device", "update_device")
    manager = clerk(world, "read_device", "manage_device_attribute")
    assert (await done(api, "GET", path(world), seer))["desired"] == {"a": 1}
    for person, method, action in (
        (seer, "PATCH", "manage_device_attribute"),
        (blind, "GET", "read_device_attribute"),
        (blind, "PATCH", "read_device_attribute"),
        # The answer would show him what he may not see.
        (manager, "PATCH", "read_device_attribute"),
    ):
        body = {"desired": {"a": 2}} if method == "PATCH" else None
        status, _, problem = await refused(api, method, path(world), person, body=body)
        assert (status, problem["action"]) == (403, action)
    assert (await done(api, "GET", path(world), world.admin))["version"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"desired": {"": 1}},
        {"desired": {"a": "x" * 17_000}},
        {"desired": {"a": "\0"}},
        {"desired": {"a": [[[[[[[[1]]]]]]]]}},
        {"desired": [1]},
        {"desired": None},
        {"reported": {"a": 1}},
        {},
    ],
)
async def test_what_cannot_be_kept_is_refused(api: Client, world: World, wrong: dict[str, Any]) -> None:
    assert (await refused(api, "PATCH", path(world), world.admin, body=wrong))[:2] == (422, "request.invalid")
    assert (await done(api, "GET", path(world), world.admin))["version"] == 0


async def test_a_little_at_a_time_it_does_not_become_more_than_fits(api: Client, world: World) -> None:
    half = "x" * 9_000
    await done(api, "PATCH", path(world), world.admin, body={"desired": {"a": half}})
    status, _, problem = await refused(api, "PATCH", path(world), world.admin, body={"desired": {"b": half}})
    assert (status, problem["field"]) == (422, "desired")
    assert await done(api, "PATCH", path(world), world.admin, body={"desired": {"a": None, "b": half}})


async def test_the_audit_log_holds_what_changed_and_no_values(api: Client, world: World) -> None:
    for secret in ("hunter2", "correct horse"):
        wanted = {"wifi": {"password": secret}, "interval_s": 60}
        await done(api, "PATCH", path(world), world.admin, body={"desired": wanted})
    assert audited(world, "device_attributes.update") == [
        ({"version": 0}, {"version": 1, "changed": ["interval_s", "wifi"]}),
        ({"version": 1}, {"version": 2, "changed": ["wifi"]}),
    ]
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select 1 from audit_entries a where a::text ~ 'hunter2|horse'").fetchall() == []


async def test_who_speaks_with_devices_is_told_once_and_of_changes_alone(api: Client, world: World) -> None:
    device_id = world.tenant.sites[0].device_id
    with psycopg.connect(world.database_url, autocommit=True) as hearing:
        hearing.execute("listen hse_device_attributes")
        for desired in ({"a": 1}, {"a": 1}, {"": 1}, {"a": 2}):
            await api.patch(f"/api/v1/{path(world)}", headers=world.admin.headers, json={"desired": desired})
        told = [one.payload for one in hearing.notifies(timeout=10, stop_after=2)]
        hearing.execute("notify hse_device_attributes, 'end'")
        rest = [one.payload for one in hearing.notifies(timeout=10, stop_after=1)]
    assert told == [f"{device_id} 1", f"{device_id} 2"]
    assert rest == ["end"]


async def test_the_graph_reads_and_changes_them(api: Client, world: World) -> None:
    device_id = str(world.tenant.sites[0].device_id)
    change = """mutation($id: UUID!, $input: DeviceAttributesChange!, $version: Int) {
        changeDeviceAttributes(id: $id, input: $input, version: $version) { version delta device { name } } }"""
    desired = {"display": {"brightness": 40}}
    given = {"id": device_id, "input": {"desired": desired}}
    await refusal(api, world.admin, change, "resource.stale", **given, version=7)
    changed = (await data(api, world.admin, change, **given, version=0))["changeDeviceAttributes"]
    assert changed == {"version": 1, "delta": desired, "device": {"name": "Acme 1 meter"}}
    query = "query($id: UUID!) { deviceAttributes(id: $id) { desired reported reportedVersion desiredAt reportedAt } }"
    shown = (await data(api, world.admin, query, id=device_id))["deviceAttributes"]
    assert (shown["desired"], shown["reportedVersion"], shown["reportedAt"]) == (desired, 0, None)
    assert shown["desiredAt"] is not None
    assert (await refusal(api, world.user, query, "permission.missing", id=device_id))[
        "action"
    ] == "read_device_attribute"


@pytest.mark.parametrize("name", PEOPLE)
async def test_the_database_shows_nobody_those_of_devices_that_he_does_not_reach(
    name: str, database: Database, world: World
) -> None:
    sites = [site for tenant in (world.tenant, world.other_tenant, world.direct_tenant) for site in tenant.sites]
    with psycopg.connect(world.database_url) as connection:
        for site in sites:
            connection.execute("insert into device_attributes (device_id) values (%s)", [site.device_id])
    first, second = (site.device_id for site in world.tenant.sites)
    foreign = world.other_tenant.sites[0].device_id
    expected = {
        "root": {site.device_id for site in sites},
        "partner": {first, second},
        "chief": {first, second},
        "other_partner": {foreign},
        "other_chief": {foreign},
        "other_site_admin": {second},
    }.get(name, {first})
    row = device_attributes.c
    async with as_person(database, getattr(world, name)) as connection:
        assert set((await connection.execute(sa.select(row.device_id))).scalars()) == expected
        changed = await connection.execute(sa.update(device_attributes).values(desired={"mine": True}))
        assert changed.rowcount == len(expected)
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            await connection.execute(sa.update(device_attributes).values(reported={"mine": True}))
