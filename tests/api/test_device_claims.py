"""Claiming: a code that is told once and good once, within its organisation, for who works where the device shall stand."""

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.device_claims import UNMISTAKABLE, hash_of_code
from hse.adapters.postgres.tables import device_claims
from tests.api.bookings import done, refused
from tests.api.conftest import Client
from tests.api.graphql import data, refusal
from tests.api.profiled import new_claim, new_waiting_device
from tests.api.test_booking_isolation import database
from tests.api.test_door_codes import audited, clerk
from tests.api.test_isolation import as_person
from tests.api.world import World

__all__ = ["database"]

UNKNOWN = (404, "device-claims.unknown-code")


@pytest.fixture
def device_id(world: World) -> UUID:
    """A device of the organisation that stands nowhere yet."""
    return new_waiting_device(world, world.tenant)


def claim(world: World, code: str, number: int = 0) -> dict[str, Any]:
    return {"code": code, "establishment_id": str(world.tenant.sites[number].id)}


async def test_who_holds_the_device_has_it_stand_where_he_works_once(
    api: Client, world: World, device_id: UUID
) -> None:
    issued = await done(api, "POST", f"devices/{device_id}/claim-code", world.chief)
    code = issued["code"]
    assert {len(group) for group in code.split("-")} == {4}
    assert set(code) <= {*UNMISTAKABLE, "-"}
    assert (await refused(api, "GET", f"devices/{device_id}", world.admin))[0] == 404
    typed = f" {code.lower().replace('-', ' ')} "
    placed = await done(api, "POST", "device-claims", world.admin, body=claim(world, typed))
    assert (placed["id"], placed["establishment_id"]) == (str(device_id), str(world.tenant.sites[0].id))
    assert await done(api, "GET", f"devices/{device_id}", world.admin) == placed
    for person, number in ((world.admin, 0), (world.chief, 1)):
        again = await refused(api, "POST", "device-claims", person, body=claim(world, code, number))
        assert again[:2] == UNKNOWN
    ((before, after),) = audited(world, "device.claim")
    assert (before, after["establishment_id"]) == (None, placed["establishment_id"])


async def test_a_code_that_says_nothing_is_one_answer(api: Client, world: World, device_id: UUID) -> None:
    new_claim(world, device_id, "GOOD")
    foreign = new_waiting_device(world, world.other_tenant)
    new_claim(world, foreign, "FOREIGN")
    revoked = new_waiting_device(world, world.tenant)
    code = (await done(api, "POST", f"devices/{revoked}/claim-code", world.chief))["code"]
    newer = (await done(api, "POST", f"devices/{revoked}/claim-code", world.chief))["code"]
    for wrong in ("UNKNOWN", "FOREIGN", code):
        assert (await refused(api, "POST", "device-claims", world.admin, body=claim(world, wrong)))[:2] == UNKNOWN
    await done(api, "DELETE", f"devices/{revoked}/claim-code", world.chief)
    assert (await refused(api, "POST", "device-claims", world.admin, body=claim(world, newer)))[:2] == UNKNOWN
    # Who has it placed by hand takes the code out of the world.
    body = {"establishment_id": str(world.tenant.sites[1].id)}
    await done(api, "PATCH", f"devices/{device_id}", world.chief, body=body)
    await done(api, "PATCH", f"devices/{device_id}", world.chief, body={"establishment_id": None})
    assert (await refused(api, "POST", "device-claims", world.admin, body=claim(world, "GOOD")))[:2] == UNKNOWN


async def test_codes_are_given_by_who_may_move_the_device_and_used_by_who_may_claim_there(
    api: Client, world: World, device_id: UUID
) -> None:
    for person in (world.admin, world.user, world.custom, world.other_chief):
        assert (await refused(api, "POST", f"devices/{device_id}/claim-code", person))[0] == 404
    placed = world.tenant.sites[0].device_id
    status, _, problem = await refused(api, "POST", f"devices/{placed}/claim-code", world.user)
    assert (status, problem["action"]) == (403, "update_device")
    answer = await refused(api, "POST", f"devices/{placed}/claim-code", world.chief)
    assert answer[:2] == (409, "device-claims.already-placed")
    new_claim(world, device_id, "GOOD")
    status, _, problem = await refused(api, "POST", "device-claims", world.user, body=claim(world, "GOOD"))
    assert (status, problem["action"]) == (403, "claim_device")
    assert (await refused(api, "POST", "device-claims", world.other_chief, body=claim(world, "GOOD")))[1] != UNKNOWN[1]
    installer = clerk(world, "read_establishment", "claim_device", "read_device")
    assert await done(api, "POST", "device-claims", installer, body=claim(world, "GOOD"))


async def test_of_many_who_claim_at_once_one_gets_it(api: Client, world: World, device_id: UUID) -> None:
    new_claim(world, device_id, "GOOD")
    headers, site = world.chief.headers, world.tenant.sites
    asked = [
        api.post("/api/v1/device-claims", headers=headers, json={"code": "GOOD", "establishment_id": str(one.id)})
        for one in [*site] * 4
    ]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*asked))
    assert statuses == [200, *[404] * 7]


async def test_a_code_is_kept_as_a_hash_and_is_in_no_log(api: Client, world: World, device_id: UUID) -> None:
    code = (await done(api, "POST", f"devices/{device_id}/claim-code", world.chief))["code"]
    await done(api, "POST", "device-claims", world.admin, body=claim(world, code))
    plain = code.replace("-", "")
    with psycopg.connect(world.database_url) as connection:
        log = connection.execute("select string_agg(a::text, '') from audit_entries a").fetchone()
    for text in (code, plain, hash_of_code(code).hex()):
        assert text not in str(log)


async def test_the_graph_gives_codes_and_takes_them(api: Client, world: World, device_id: UUID) -> None:
    issue = "mutation($id: UUID!) { issueClaimCode(id: $id) { deviceId code } }"
    issued = (await data(api, world.chief, issue, id=str(device_id)))["issueClaimCode"]
    take = "mutation($input: DeviceClaim!) { claimDevice(input: $input) { id establishment { name } } }"
    given = {"code": issued["code"], "establishmentId": str(world.tenant.sites[0].id)}
    placed = (await data(api, world.admin, take, input=given))["claimDevice"]
    assert placed == {"id": str(device_id), "establishment": {"name": "Acme 1"}}
    await refusal(api, world.admin, take, "device-claims.unknown-code", input=given)
    await refusal(api, world.chief, issue, "device-claims.already-placed", id=str(device_id))


async def test_the_database_places_nothing_where_one_does_not_reach_and_shows_no_hashes(
    database: Database, world: World, device_id: UUID
) -> None:
    new_claim(world, device_id, "GOOD")
    take = sa.text("select hse_claim_device(:code, :site)").bindparams(sa.bindparam("code", type_=sa.LargeBinary))
    own, foreign = world.tenant.sites[0].id, world.other_tenant.sites[0].id
    for person, site in ((world.other_chief, own), (world.admin, foreign), (world.admin, world.tenant.sites[1].id)):
        async with as_person(database, person) as connection:
            given = {"code": hash_of_code("GOOD"), "site": site}
            assert (await connection.execute(take, given)).scalar_one() is None
    for person, seen in ((world.chief, {device_id}), (world.admin, set()), (world.other_chief, set())):
        async with as_person(database, person) as connection:
            assert set((await connection.execute(sa.select(device_claims.c.device_id))).scalars()) == seen
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                await connection.execute(sa.select(device_claims.c.code_hash))
