"""Commands to devices over REST: who may send what where, what waits for what, and what is written down about it."""

import asyncio
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from hse.domain.devices.device_commands import QUEUE_COMMANDS_MAX
from tests.api.conftest import Client, problem_of
from tests.api.world import Person, World
from tests.faults.conditions import until_in_thread

DEVICES, COMMANDS, GROUPS = "/api/v1/devices", "/api/v1/device-commands", "/api/v1/device-command-groups"
OPEN = {"type": "open_door", "params": {"code": "482913", "seconds": 5}}


def path_of(world: World, number: int = 0) -> str:
    return f"{DEVICES}/{world.tenant.sites[number].device_id}/commands"


async def sent(api: Client, person: Person, path: str, **body: Any) -> dict[str, Any]:
    """Send a command and return it."""
    response = await api.post(path, headers=person.headers, json={**OPEN, **body})
    assert response.status_code == 202, response.text
    made: dict[str, Any] = response.json()
    assert response.headers["location"].endswith(made["id"])
    return made


def database(world: World, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(world.database_url) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


def succeed(world: World, command_id: str) -> None:
    """What a worker writes when the device has answered."""
    database(
        world,
        "update device_commands set state = 'succeeded', dispatch = 'over', attempts = 1, sent_at = now(), delivered_at = now(),"
        " finished_at = now(), result_at = now(), status = 0, node = 'n1', result = '{\"opened\": true}' where id = %s",
        command_id,
    )


async def test_a_command_waits_for_its_device_and_says_where_to_look(api: Client, world: World) -> None:
    made = await sent(api, world.admin, path_of(world))
    assert (made["state"], made["params"], made["attempts"]) == ("queued", OPEN["params"], 0)
    assert made["device_id"] == str(world.tenant.sites[0].device_id)
    assert made["establishment_id"] == str(world.tenant.sites[0].id)
    assert made["created_by"] == str(world.admin.id)
    read = await api.get(f"{COMMANDS}/{made['id']}", headers=world.admin.headers)
    assert read.json() == made
    queue = database(world, "select device_id, claimed_by from device_command_queues")
    assert queue == [(world.tenant.sites[0].device_id, None)]


async def test_who_may_not_see_a_device_gets_404_and_who_may_see_it_and_not_command_it_403(
    api: Client, world: World
) -> None:
    for person in (world.other_site_admin, world.other_chief, world.other_partner):
        problem_of(await api.post(path_of(world), headers=person.headers, json=OPEN), 404, "resource.not-found")
    for person in (world.user, world.custom):
        refused = await api.post(path_of(world), headers=person.headers, json=OPEN)
        assert problem_of(refused, 403, "permission.missing")["action"] == "send_command"
    for person in (world.root, world.partner, world.chief, world.admin):
        await sent(api, person, path_of(world))


@pytest.mark.parametrize("param", ["device_id", "lock_id"])
async def test_what_stands_elsewhere_is_not_commanded_through_its_gateway(
    api: Client, world: World, param: str
) -> None:
    here, there = world.tenant.sites
    database(
        world,
        "update devices set token_hash = null, gateway_id = %s where id = %s",
        here.device_id,
        there.device_id,
    )
    child = str(there.device_id)
    for text in (child, child.upper(), f"{{{child}}}", f"URN:UUID:{child}", there.device_id.hex):
        body = {**OPEN, "params": {param: text}}
        for path in (path_of(world), GROUPS):
            refused = await api.post(path, headers=world.admin.headers, json=body)
            assert problem_of(refused, 404, "resource.not-found")["entity"] == "device"
            await sent(api, world.chief, path, **body)
    places = database(world, "select distinct named_places from device_commands")
    assert places == [({child: str(there.id)},)], "which the worker compares with where it stands then"
    # He sees it there, and commands it not.
    keeper = world.add_person_now("keeper@example.com", "admin", organization_id=world.tenant.id, sites=[here, there])
    world.give_role_at(keeper, there, world.second_site_role)
    refused = await api.post(path_of(world), headers=keeper.headers, json={**OPEN, "params": {param: child}})
    assert problem_of(refused, 403, "permission.missing")["action"] == "send_command"
    # What is no id of a device is the gateway's own matter.
    for value in (str(here.device_id), "lamp 3", 3, {"in": child}):
        await sent(api, world.admin, path_of(world), params={param: value})


async def test_a_command_is_seen_by_those_who_may_read_commands_where_its_device_stood(
    api: Client, world: World
) -> None:
    made = await sent(api, world.admin, path_of(world))
    path = f"{COMMANDS}/{made['id']}"
    for person in (world.root, world.partner, world.chief, world.admin):
        assert (await api.get(path, headers=person.headers)).status_code == 200
    for person in (world.other_site_admin, world.other_chief, world.other_partner):
        problem_of(await api.get(path, headers=person.headers), 404, "resource.not-found")
        problem_of(await api.post(f"{path}/cancel", headers=person.headers), 404, "resource.not-found")
    problem_of(await api.get(path, headers=world.user.headers), 403, "permission.missing")
    for person, expected in ((world.chief, 1), (world.admin, 1), (world.other_site_admin, 0), (world.other_chief, 0)):
        assert len((await api.get(COMMANDS, headers=person.headers)).json()["items"]) == expected


async def test_who_may_send_and_not_read_still_learns_what_became_of_what_he_sent(api: Client, world: World) -> None:
    key = world.add_api_key(world.admin, ["read_device", "send_command"])
    headers = {"X-API-Key": key}
    calling = asyncio.create_task(api.post(path_of(world), headers=headers, json=OPEN, params={"wait": 20}))
    await until_in_thread(lambda: database(world, "select id from device_commands"), "the command is queued")
    ((command_id,),) = database(world, "select id from device_commands")
    succeed(world, str(command_id))
    response = await calling
    assert (response.status_code, response.json()["state"]) == (200, "succeeded")
    problem_of(await api.get(f"{COMMANDS}/{command_id}", headers=headers), 403, "permission.missing")


async def test_who_waits_hears_of_the_end_and_who_waits_too_short_is_told_where_to_look(
    api: Client, world: World
) -> None:
    made = await sent(api, world.admin, path_of(world))
    path = f"{COMMANDS}/{made['id']}"
    short = await api.get(path, headers=world.admin.headers, params={"wait": 1})
    assert short.json()["state"] == "queued"
    waiting = [asyncio.create_task(api.get(path, headers=world.admin.headers, params={"wait": 30})) for _ in range(3)]
    await asyncio.sleep(0)
    succeed(world, made["id"])
    for response in await asyncio.gather(*waiting):
        found = response.json()
        assert (found["state"], found["status"], found["result"]) == ("succeeded", 0, {"opened": True})
        assert found["finished_at"] is not None


@pytest.mark.parametrize("wait", [-1, 31, "x"])
async def test_nobody_waits_for_longer_than_half_a_minute(api: Client, world: World, wait: object) -> None:
    response = await api.post(f"{path_of(world)}?wait={wait}", headers=world.admin.headers, json=OPEN)
    problem_of(response, 422, "request.invalid")


async def test_a_command_that_is_sent_again_under_one_key_is_one_and_is_answered_as_it_stands(
    api: Client, world: World
) -> None:
    headers = {**world.admin.headers, "Idempotency-Key": str(uuid4())}
    first = await api.post(path_of(world), headers=headers, json=OPEN)
    succeed(world, first.json()["id"])
    again = await api.post(path_of(world), headers=headers, json=OPEN)
    assert (again.status_code, again.json()["state"]) == (200, "succeeded")
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert database(world, "select count(*) from device_commands") == [(1,)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", ""),
        ("type", "x" * 51),
        ("type", "a\nb"),
        ("params", {"a": "\0"}),
        ("params", {"a": "x" * 17_000}),
        ("params", {"a": 2**53 + 1}),
        ("params", {"a": [[[[[[[[[[[[1]]]]]]]]]]]]}),
        ("params", [1]),
        ("timeout_seconds", 0),
        ("timeout_seconds", 7 * 24 * 3600 + 1),
        ("state", "sent"),
    ],
)
async def test_what_could_not_be_said_to_a_device_is_refused(
    api: Client, world: World, field: str, value: object
) -> None:
    response = await api.post(path_of(world), headers=world.admin.headers, json={**OPEN, field: value})
    problem_of(response, 422, "request.invalid")


async def test_a_child_is_commanded_through_its_gateway_and_a_disabled_device_not_at_all(
    api: Client, world: World
) -> None:
    gateway = world.tenant.sites[0].device_id
    body = {"name": "Child", "establishment_id": str(world.tenant.sites[0].id), "gateway_id": str(gateway)}
    child = (await api.post(DEVICES, headers=world.admin.headers, json=body)).json()["id"]
    refused = await api.post(f"{DEVICES}/{child}/commands", headers=world.admin.headers, json=OPEN)
    assert problem_of(refused, 409, "commands.child-of-gateway")["gateway_id"] == str(gateway)
    change = {"is_enabled": False}
    await api.patch(f"{DEVICES}/{gateway}", headers=world.admin.headers, json=change)
    refused = await api.post(path_of(world), headers=world.admin.headers, json=OPEN)
    problem_of(refused, 409, "commands.device-disabled")


async def test_a_queue_is_full_at_a_hundred_unfinished_commands(api: Client, world: World) -> None:
    device = world.tenant.sites[0].device_id
    database(
        world,
        "insert into device_commands (organization_id, device_id, created_by, type, deadline)"
        " select %s, %s, %s, 'ping', now() + interval '1 hour' from generate_series(1, %s)",
        *(world.tenant.id, device, world.admin.id, QUEUE_COMMANDS_MAX),
    )
    refused = await api.post(path_of(world), headers=world.admin.headers, json=OPEN)
    problem_of(refused, 409, "commands.queue-full")
    left = await sent(api, world.chief, GROUPS, target={"organization_id": str(world.tenant.id)})
    assert (left["num_commands"], left["num_left_out"]) == (1, 1)
    database(world, "update device_commands set state = 'expired', dispatch = 'over', finished_at = now()")
    await sent(api, world.admin, path_of(world))


async def test_what_waits_is_taken_back_and_what_is_on_its_way_is_not(api: Client, world: World) -> None:
    made = await sent(api, world.admin, path_of(world))
    path = f"{COMMANDS}/{made['id']}/cancel"
    for _ in range(2):
        response = await api.post(path, headers=world.admin.headers)
        assert (response.status_code, response.json()["state"]) == (200, "cancelled")
        assert response.json()["finished_at"] is not None
    under_way = await sent(api, world.admin, path_of(world))
    database(world, "update device_commands set dispatch = 'under_way', attempts = 1 where id = %s", under_way["id"])
    path = f"{COMMANDS}/{under_way['id']}/cancel"
    refused = await api.post(path, headers=world.admin.headers)
    assert problem_of(refused, 409, "commands.not-waiting")["command_state"] == "queued"
    succeed(world, under_way["id"])
    refused = await api.post(path, headers=world.admin.headers)
    assert problem_of(refused, 409, "commands.not-waiting")["command_state"] == "succeeded"


async def test_the_audit_log_names_every_command_and_not_what_it_said(api: Client, world: World) -> None:
    made = await sent(api, world.admin, path_of(world))
    await api.post(f"{COMMANDS}/{made['id']}/cancel", headers=world.admin.headers)
    target = {"establishment_id": str(world.tenant.sites[0].id)}
    group = await sent(api, world.admin, GROUPS, target=target)
    await api.post(f"{GROUPS}/{group['id']}/cancel", headers=world.admin.headers)
    entries = database(
        world,
        "select action, entity_id, actor_id, after ->> 'type', audit_entries::text from audit_entries"
        " where entity_type like 'device_command%%' order by id",
    )
    assert [(entry[0], entry[1]) for entry in entries] == [
        ("device_command.create", made["id"]),
        ("device_command.cancel", made["id"]),
        ("device_command_group.create", group["id"]),
        ("device_command_group.cancel", group["id"]),
    ]
    for entry in entries:
        assert (entry[2], entry[3]) == (world.admin.id, "open_door")
        assert "482913" not in entry[4]


async def test_lists_are_filtered_newest_first_and_page_by_page(api: Client, world: World) -> None:
    made = [await sent(api, world.chief, path_of(world, number), type=f"t{number}") for number in (0, 1, 0)]
    await api.post(f"{COMMANDS}/{made[2]['id']}/cancel", headers=world.chief.headers)

    async def listed(path: str, **params: str | int) -> list[str]:
        response = await api.get(path, headers=world.chief.headers, params=params)
        assert response.status_code == 200, response.text
        return [item["id"] for item in response.json()["items"]]

    first, second, third = (one["id"] for one in made)
    assert await listed(COMMANDS) == [third, second, first]
    assert await listed(path_of(world)) == [third, first]
    assert await listed(path_of(world), state="queued") == [first]
    assert await listed(COMMANDS, establishment_id=str(world.tenant.sites[1].id)) == [second]
    assert await listed(COMMANDS, q="t1") == [second]
    page = (await api.get(COMMANDS, headers=world.chief.headers, params={"limit": 2})).json()
    assert await listed(COMMANDS, limit=2, cursor=page["next_cursor"]) == [first]
    response = await api.get(COMMANDS, headers=world.chief.headers, params={"state": "lost"})
    problem_of(response, 422, "request.invalid")


async def test_deleting_a_device_leaves_what_it_was_commanded(api: Client, world: World) -> None:
    made = await sent(api, world.admin, path_of(world))
    device = f"{DEVICES}/{world.tenant.sites[0].device_id}"
    assert (await api.delete(device, headers=world.admin.headers)).status_code == 204
    assert (await api.get(f"{COMMANDS}/{made['id']}", headers=world.admin.headers)).status_code == 200


def test_commands_of_the_api_are_the_database_s_matter_too(world: World, api_database_url: str) -> None:
    """What the api's login could do to commands if the code above it forgot everything."""
    foreign = world.other_tenant.sites[0]
    insert = (
        "insert into device_commands (organization_id, establishment_id, device_id, created_by, type, deadline)"
        " values (%s, %s, %s, %s, 'x', now() + interval '1 hour')"
    )
    own = world.tenant.sites[0]
    with psycopg.connect(api_database_url, autocommit=True) as connection:
        connection.execute("set role hse_api")

        def as_admin(statement: str, *values: object) -> None:
            with connection.transaction():
                connection.execute("select hse_enter_session(%s)", [world.admin.session_id])
                connection.execute(statement.encode(), values)

        for values in (
            (world.other_tenant.id, foreign.id, foreign.device_id, world.admin.id),
            (world.tenant.id, own.id, foreign.device_id, world.admin.id),
            (world.tenant.id, own.id, own.device_id, world.chief.id),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                as_admin(insert, *values)
        as_admin(insert, world.tenant.id, own.id, own.device_id, world.admin.id)
        for change in (
            "update device_commands set state = 'succeeded', dispatch = 'over', finished_at = now()",
            "update device_commands set params = '{}'",
            "delete from device_commands",
            "select * from device_command_queues",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                as_admin(change)
    assert database(world, "select state from device_commands") == [("queued",)]
