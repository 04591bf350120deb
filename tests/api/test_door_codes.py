"""Door codes as people see them: digits for who may read them, tried again, backups given out, locks set up; over both skins."""

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.door_code_tables import door_lock_codes, door_locks
from tests.api.booked import make_lock, new_booking, new_door_code, new_guest
from tests.api.bookings import done, refused
from tests.api.conftest import Client
from tests.api.graphql import data
from tests.api.test_booking_isolation import database
from tests.api.test_isolation import as_person
from tests.api.world import Person, Site, Tenant, World

__all__ = ["database"]


@pytest.fixture
def booking_id(world: World) -> UUID:
    """A booking of an area with a lock."""
    site = world.tenant.sites[0]
    make_lock(world, site)
    return new_booking(world, world.tenant, site, new_guest(world, world.tenant, site))


def clerk(world: World, *actions: str) -> Person:
    """Somebody at the site who may do these things."""
    tenant, site = world.tenant, world.tenant.sites[0]
    role = world.add_role_now(f"clerk {uuid4()}", list(actions), organization_id=tenant.id)
    return world.add_person_now(f"{uuid4()}@example.org", role, organization_id=tenant.id, sites=[site])


def audited(world: World, action: str) -> list[Any]:
    with psycopg.connect(world.database_url) as connection:
        statement = "select before, after from audit_entries where action = %s order by id"
        return connection.execute(statement, [action]).fetchall()


async def test_digits_are_shown_to_who_may_read_them_and_the_rest_to_who_sees_the_booking(
    api: Client, world: World, booking_id: UUID
) -> None:
    code_id = new_door_code(world, world.tenant, world.tenant.sites[0], booking_id)
    seer, reader = clerk(world, "read_booking"), clerk(world, "read_booking", "read_door_code")
    for person, shown in ((world.admin, "482913"), (reader, "482913"), (seer, None)):
        (listed,) = (await done(api, "GET", f"bookings/{booking_id}/door-codes", person))["items"]
        assert (listed["code"], listed["state"], listed["reason"]) == (shown, "failed", "offline")
        assert await done(api, "GET", f"door-codes/{code_id}", person) == listed
        assert (await done(api, "GET", "door-codes", person, state="failed"))["items"] == [listed]
    for person in (world.other_site_admin, world.other_partner):
        assert (await refused(api, "GET", f"door-codes/{code_id}", person))[0] == 404
        assert (await refused(api, "GET", f"bookings/{booking_id}/door-codes", person))[0] == 404
        assert (await done(api, "GET", "door-codes", person))["items"] == []


async def test_a_code_is_tried_again_by_who_may_and_not_when_it_has_ended(
    api: Client, world: World, booking_id: UUID
) -> None:
    code_id = new_door_code(world, world.tenant, world.tenant.sites[0], booking_id)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update door_lock_codes set num_tries = 7, not_before = now() + interval '9 min'")
        connection.execute("delete from booking_queue")
    path = f"door-codes/{code_id}/retry"
    assert (await refused(api, "POST", path, clerk(world, "read_booking", "read_door_code")))[0] == 403
    assert (await done(api, "POST", path, world.admin))["num_tries"] == 0
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select booking_id from booking_queue").fetchall() == [(booking_id,)]
        connection.execute(
            "update door_lock_codes set state = 'revoked', ended_at = now(), sealed_code = null, code_mac = null"
        )
    assert (await refused(api, "POST", path, world.admin))[:2] == (409, "door-codes.ended")
    ((before, after),) = audited(world, "door_code.retry")
    assert (before["code"], after["code"]) == (None, None)


async def test_a_backup_code_is_given_to_a_booking_whose_own_is_late_and_to_one_only(
    api: Client, world: World, booking_id: UUID
) -> None:
    site = world.tenant.sites[0]
    path, body = f"bookings/{booking_id}/door-codes/pull-backup", {"device_id": str(site.device_id)}
    assert (await refused(api, "POST", path, world.admin, body=body))[:2] == (409, "door-codes.backup-not-needed")
    own = new_door_code(world, world.tenant, site, booking_id)
    assert (await refused(api, "POST", path, world.admin, body=body))[:2] == (409, "door-codes.no-backup")
    backup = new_door_code(world, world.tenant, site, None, digits="739164", state="active")
    assert (await done(api, "GET", f"door-codes/{backup}", world.admin))["code"] is None, "it is nobody's yet"
    assert (await refused(api, "POST", path, clerk(world, "read_booking", "read_door_code"), body=body))[0] == 403
    pulled = await done(api, "POST", path, world.admin, body=body)
    assert (pulled["id"], pulled["code"], pulled["booking_id"]) == (str(backup), "739164", str(booking_id))
    booking = await done(api, "GET", f"bookings/{booking_id}", world.admin)
    assert [pulled["valid_from"], pulled["valid_until"]] == [booking["check_in"], booking["check_out"]]
    assert pulled["on_lock_until"] > pulled["valid_until"], "what the lock knows so far is said, too"
    assert (await refused(api, "POST", path, world.admin, body=body))[:2] == (409, "door-codes.no-backup")
    ((_, after),) = audited(world, "door_code.pull_backup")
    assert (after["id"], after["code"]) == (str(backup), None)
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update door_lock_codes set state = 'set', on_lock_from = valid_from, on_lock_until = valid_until,"
            " may_be_on_lock = true where id = %s",
            [own],
        )
    assert (await refused(api, "POST", path, world.admin, body=body))[:2] == (409, "door-codes.backup-not-needed")


async def test_a_lock_is_set_up_by_who_may_and_only_while_it_is_as_read(
    api: Client, world: World, booking_id: UUID
) -> None:
    site = world.tenant.sites[0]
    path = f"devices/{site.device_id}/door-lock"
    new_door_code(world, world.tenant, site, booking_id)
    found = await done(api, "GET", path, world.admin)
    assert (found["num_backup_codes"], found["wrong_codes_max"], found["num_codes"], found["version"]) == (0, 5, 1, 0)
    changed = await done(api, "PATCH", path, world.admin, body={"num_backup_codes": 2})
    assert (changed["num_backup_codes"], changed["wrong_codes_minutes"], changed["version"]) == (2, 10, 1)
    again = await done(api, "PATCH", path, world.admin, body={"wrong_codes_max": 3})
    assert (again["num_backup_codes"], again["wrong_codes_max"], again["version"]) == (2, 3, 2)
    assert await done(api, "GET", path, world.admin) == again
    stale = {**world.admin.headers, "If-Match": '"1"'}
    assert (await api.patch(f"/api/v1/{path}", headers=stale, json={"wrong_codes_max": 4})).status_code == 412
    assert (await refused(api, "PATCH", path, world.admin, body={"num_backup_codes": 11}))[0] == 422
    seer = clerk(world, "read_booking", "read_device")
    assert (await done(api, "GET", path, seer)) == again
    assert (await refused(api, "PATCH", path, seer, body={"wrong_codes_max": 4}))[0] == 403
    assert (await refused(api, "GET", path, world.other_site_admin))[0] == 404
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update devices set device_type = 'sensor' where id = %s", [site.device_id])
    assert (await refused(api, "GET", path, world.admin))[:2] == (409, "door-codes.not-a-lock")
    assert [after["version"] for _, after in audited(world, "door_lock.update")] == [1, 2]


async def test_the_same_is_done_over_graphql(api: Client, world: World, booking_id: UUID) -> None:
    site = world.tenant.sites[0]
    code_id = new_door_code(world, world.tenant, site, booking_id)
    new_door_code(world, world.tenant, site, None, digits="739164", state="active")
    query = """
    query($booking: UUID!, $lock: UUID!) {
        booking(id: $booking) { doorCodes { edges { node { id code state device { id } } } } }
        doorLock(id: $lock) { numCodes version }
    }
    """
    found = await data(api, world.admin, query, booking=str(booking_id), lock=str(site.device_id))
    node = {"id": str(code_id), "code": "482913", "state": "failed", "device": {"id": str(site.device_id)}}
    assert found["booking"]["doorCodes"]["edges"] == [{"node": node}]
    assert found["doorLock"] == {"numCodes": 2, "version": 0}
    mutation = """
    mutation($booking: UUID!, $lock: UUID!, $code: UUID!) {
        retryDoorCode(id: $code) { numTries }
        pullBackupCode(id: $booking, input: {deviceId: $lock}) { code isBackup }
        changeDoorLock(id: $lock, input: {numBackupCodes: 1}) { numBackupCodes }
    }
    """
    given = {"booking": str(booking_id), "lock": str(site.device_id), "code": str(code_id)}
    done_so = await data(api, world.admin, mutation, **given)
    assert done_so["pullBackupCode"] == {"code": "739164", "isBackup": True}
    assert (done_so["retryDoorCode"], done_so["changeDoorLock"]) == ({"numTries": 0}, {"numBackupCodes": 1})


async def test_a_command_on_a_code_is_seen_without_its_secret(api: Client, world: World) -> None:
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute(
            "insert into device_commands (organization_id, establishment_id, device_id, created_by, type, params,"
            " sealed_params, deadline) values (%s, %s, %s, %s, 'set_code', '{\"code_id\": \"a\"}', 'sealed',"
            " now() + interval '1 hour') returning id",
            [world.tenant.id, world.tenant.sites[0].id, world.tenant.sites[0].device_id, world.root.id],
        ).fetchone()
    assert row is not None
    found = await done(api, "GET", f"device-commands/{row[0]}", world.admin)
    assert found["params"] == {"code_id": "a"}
    assert "sealed_params" not in found


async def test_the_database_shows_codes_and_locks_of_one_s_places_alone_and_no_secret_of_a_command(
    database: Database, world: World, booking_id: UUID
) -> None:
    site, foreign = world.tenant.sites[0], world.other_tenant.sites[0]
    own, others = (new_door_code(world, tenant, at, None, state="active") for tenant, at in places(world))
    with psycopg.connect(world.database_url) as connection:
        for at in (site, foreign):
            connection.execute(
                "insert into door_locks (device_id, configured_by) values (%s, %s)", [at.device_id, world.root.id]
            )
    for person, code_id, at in ((world.admin, own, site), (world.other_partner, others, foreign)):
        async with as_person(database, person) as asking:
            assert list((await asking.execute(sa.select(door_lock_codes.c.id))).scalars()) == [code_id]
            assert list((await asking.execute(sa.select(door_locks.c.device_id))).scalars()) == [at.device_id]
            give_away = sa.update(door_lock_codes).values(booking_id=booking_id)
            assert (await asking.execute(give_away.where(door_lock_codes.c.id != code_id))).rowcount == 0
    for statement in (
        "select sealed_params from device_commands",
        "update device_commands set sealed_params = null",
        "update door_lock_codes set state = 'set'",
        "update door_lock_codes set sealed_code = null",
        "delete from door_lock_codes",
        "insert into door_lock_codes (device_id) values (gen_random_uuid())",
    ):
        async with as_person(database, world.root) as asking:
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                await asking.execute(sa.text(statement))


def places(world: World) -> list[tuple[Tenant, Site]]:
    """A place of one tenant, and one of another."""
    return [(tenant, tenant.sites[0]) for tenant in (world.tenant, world.other_tenant)]
