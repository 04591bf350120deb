"""Commands to devices over GraphQL: the same commands behind another skin."""

from uuid import uuid4

from tests.api.conftest import Client
from tests.api.graphql import data, nodes, refusal
from tests.api.test_device_commands import succeed
from tests.api.world import World

SEND = """mutation ($id: UUID!, $input: NewDeviceCommand!, $wait: Int! = 0, $key: String) {
  sendDeviceCommand(id: $id, input: $input, wait: $wait, idempotencyKey: $key) { id state params device { name } }
}"""


async def test_a_command_is_sent_once_and_found_at_its_device(api: Client, world: World) -> None:
    given = {
        "id": str(world.tenant.sites[0].device_id),
        "input": {"type": "set", "params": {"degrees": 21.5}},
        "key": str(uuid4()),
    }
    made = (await data(api, world.admin, SEND, **given))["sendDeviceCommand"]
    assert (made["state"], made["params"]) == ("queued", {"degrees": 21.5})
    assert made["device"]["name"] == "Acme 1 meter"
    assert (await data(api, world.admin, SEND, **given))["sendDeviceCommand"]["id"] == made["id"]
    succeed(world, made["id"])
    ended = (await data(api, world.admin, SEND, **given, wait=10))["sendDeviceCommand"]
    assert ended["state"] == "succeeded"
    query = "{ devices { edges { node { commands { totalCount edges { node { id state } } } } } } }"
    (device,) = nodes((await data(api, world.admin, query))["devices"])
    assert nodes(device["commands"]) == [{"id": made["id"], "state": "succeeded"}]
    assert device["commands"]["totalCount"] == 1
    await refusal(api, world.user, SEND, "permission.missing", **{**given, "key": None})
    await refusal(api, world.other_chief, SEND, "resource.not-found", **{**given, "key": None})
    refused = await refusal(api, world.admin, SEND, "request.invalid", **{**given, "wait": 31, "key": None})
    assert refused["field"] == "wait"


async def test_a_command_to_many_is_sent_counted_and_taken_back(api: Client, world: World) -> None:
    send = """mutation ($input: NewDeviceCommandGroup!) {
      sendDeviceCommandToMany(input: $input) {
        id numCommands states target commands { edges { node { state group { id } } } }
      }
    }"""
    target = {"establishmentId": str(world.tenant.sites[0].id)}
    made = await data(api, world.chief, send, input={"type": "ping", "target": target})
    group = made["sendDeviceCommandToMany"]
    assert (group["numCommands"], group["states"]) == (1, {"queued": 1})
    assert nodes(group["commands"]) == [{"state": "queued", "group": {"id": group["id"]}}]
    cancel = "mutation ($id: UUID!) { cancelDeviceCommandGroup(id: $id) { states } }"
    ended = (await data(api, world.chief, cancel, id=group["id"]))["cancelDeviceCommandGroup"]
    assert ended["states"] == {"cancelled": 1}
    listed = '{ deviceCommandGroups { edges { node { id } } } deviceCommands(state: "cancelled") { totalCount } }'
    found = await data(api, world.chief, listed)
    assert nodes(found["deviceCommandGroups"]) == [{"id": group["id"]}]
    assert found["deviceCommands"]["totalCount"] == 1
