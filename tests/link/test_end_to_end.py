"""A person's request, the api, a real worker, a real core, a device on its socket, and back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest_asyncio

from tests.api.conftest import Client, api, api_database_url, app, built, parts, world
from tests.api.world import World
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import knows, no_connection_is_left_open
from tests.faults.core import Core
from tests.faults.mqtt import MqttPeer
from tests.faults.wire import Credentials, Message, Peer
from tests.link.conftest import SECONDS_MAX, NewProcess
from tests.link.node import TOKEN

PARAMS = {"code": "482913", "seconds": 5}

__all__ = ["api", "api_database_url", "app", "built", "no_connection_is_left_open", "parts", "world"]


@pytest_asyncio.fixture
async def core(tmp_path: Path, world: World, redis_url: str) -> AsyncIterator[Core]:
    """A node on the test's database and Valkey."""
    made = Core(tmp_path / "core", world.database_url, redis_url=redis_url, service_token=TOKEN, node_name="n1")
    await made.started()
    yield made
    for peer in list(Peer.still_open):
        peer.abort()
    made.clean_up()
    print(f"--- the end of the core's log\n{made.tail()}")


@pytest_asyncio.fixture
async def lock(api: Client, world: World, core: Core) -> Credentials:
    """A door's lock that the core knows."""
    device_id = world.tenant.sites[0].device_id
    response = await api.post(f"/api/v1/devices/{device_id}/token", headers=world.admin.headers)
    credentials = Credentials(device_id, response.json()["token"])
    await knows(core, credentials)
    return credentials


async def send(
    api: Client, world: World, kind: str, *, wait: int = 0, timeout_seconds: int = 120, params: object = PARAMS
) -> dict[str, Any]:
    device_id = world.tenant.sites[0].device_id
    response = await api.post(
        f"/api/v1/devices/{device_id}/commands",
        headers=world.admin.headers,
        params={"wait": wait},
        json={"type": kind, "params": params, "timeout_seconds": timeout_seconds},
    )
    assert response.is_success, response.text
    made: dict[str, Any] = response.json()
    return made


async def ended(api: Client, world: World, command_id: str) -> dict[str, Any]:
    """A command when it has ended."""
    path = f"/api/v1/device-commands/{command_id}"
    found: dict[str, Any] = {"finished_at": None}
    tries = 0
    while found["finished_at"] is None and tries < 3:
        found = (await api.get(path, headers=world.admin.headers, params={"wait": 30})).json()
        tries += 1
    return found


async def heard(peer: Peer) -> Message:
    """The next command that the device hears."""
    message = await peer.receive(seconds=SECONDS_MAX)
    assert message.name == "command", message
    return message


def stands(world: World, command_id: str) -> str:
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute("select state from device_commands where id = %s", [command_id]).fetchone()
    assert row is not None
    return str(row[0])


async def test_a_device_gets_a_command_and_who_waits_gets_its_answer(
    api: Client, world: World, core: Core, lock: Credentials, new_process: NewProcess
) -> None:
    new_process()
    for form in ("frames", "json"):
        peer = await Peer.join(core.port, lock, form=form)
        calling = asyncio.create_task(send(api, world, "open_door", wait=30))
        command = await heard(peer)
        assert (command["command_type"], command["params"]) == ("open_door", PARAMS)
        await peer.send("result", request_id=command["request_id"], status=0, data={"open": True})
        found = await calling
        assert (found["state"], found["status"], found["result"]) == ("succeeded", 0, {"open": True}), found
        assert (found["id"], found["node"]) == (command["request_id"], "n1")
        assert found["queued_at"] <= found["sent_at"] <= found["delivered_at"] <= found["finished_at"]
        await peer.close()


async def test_a_device_that_was_away_gets_its_queue_in_order_and_nothing_that_expired(
    api: Client, world: World, core: Core, lock: Credentials, new_process: NewProcess
) -> None:
    new_process()
    short = await send(api, world, "short", timeout_seconds=1)
    queued = [await send(api, world, f"t{number}") for number in range(3)]
    assert (await ended(api, world, short["id"]))["state"] == "expired"
    peer = await Peer.join(core.port, lock)
    for one in queued:
        command = await heard(peer)
        assert (command["request_id"], command["command_type"]) == (one["id"], one["type"])
        await peer.send("result", request_id=command["request_id"], status=0 if one is not queued[1] else 4)
    states = [(await ended(api, world, one["id"]))["state"] for one in queued]
    assert states == ["succeeded", "failed", "succeeded"]


async def test_what_is_too_large_for_a_device_fails_at_once_and_says_so(
    api: Client, world: World, core: Core, lock: Credentials, new_process: NewProcess
) -> None:
    new_process()
    peer = await Peer.join(core.port, lock)
    found = await send(api, world, "draw", wait=30, timeout_seconds=3600, params={"picture": "x" * 10_000})
    assert (found["state"], found["status"]) == ("failed", None), found
    assert found["message"].startswith("invalid_command: the parameters have more than 8192 bytes")
    await peer.close()
    async with MqttPeer(core.mqtt_port) as mqtt:
        await mqtt.joined(lock, packet_bytes_max=400)
        await mqtt.subscribed()
        found = await send(api, world, "draw", wait=30, timeout_seconds=3600, params={"picture": "x" * 500})
        assert (found["state"], found["status"]) == ("failed", None), found
        assert found["message"].startswith("too_large: the command is larger than the device takes")
        assert not mqtt.messages


async def test_an_answer_that_nobody_waited_for_comes_through_the_journal(
    api: Client, world: World, core: Core, lock: Credentials, new_process: NewProcess
) -> None:
    worker = new_process()
    peer = await Peer.join(core.port, lock)
    sent = await send(api, world, "open_door")
    command = await heard(peer)
    await until_in_thread(lambda: stands(world, sent["id"]) == "delivered", "it is written down", seconds=SECONDS_MAX)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    await peer.send("result", request_id=command["request_id"], status=0, data={"open": True})
    new_process()
    found = await ended(api, world, sent["id"])
    assert (found["state"], found["result"]) == ("succeeded", {"open": True})


async def test_a_core_that_was_killed_is_found_again_and_gets_what_waits(
    api: Client, world: World, core: Core, lock: Credentials, new_process: NewProcess
) -> None:
    new_process()
    await core.kill()
    sent = await send(api, world, "open_door")
    await core.started()
    await knows(core, lock)
    peer = await Peer.join(core.port, lock)
    command = await heard(peer)
    await peer.send("result", request_id=command["request_id"], status=0)
    assert (await ended(api, world, sent["id"]))["state"] == "succeeded"


async def test_another_device_s_answer_changes_nothing(
    api: Client, world: World, core: Core, lock: Credentials, new_process: NewProcess
) -> None:
    new_process()
    other_id = world.tenant.sites[1].device_id
    path = f"/api/v1/devices/{other_id}/token"
    other = Credentials(other_id, (await api.post(path, headers=world.chief.headers)).json()["token"])
    await knows(core, other)
    peer, foreign = await Peer.join(core.port, lock), await Peer.join(core.port, other)
    sent = await send(api, world, "open_door")
    command = await heard(peer)
    await foreign.send("result", request_id=command["request_id"], status=9)
    await foreign.acked(1, {"type": "after"})
    # What came after the foreign answer is stored, so the answer was handled or will never be.
    await until_in_thread(lambda: was_stored(world, other_id), "the foreign answer is behind us", seconds=SECONDS_MAX)
    assert stands(world, sent["id"]) in ("queued", "sent", "delivered")
    await peer.send("result", request_id=command["request_id"], status=0)
    found = await ended(api, world, sent["id"])
    assert (found["state"], found["status"]) == ("succeeded", 0)


def was_stored(world: World, device_id: UUID) -> bool:
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute(
            "select exists (select from device_events where device_id = %s and event_type = 'after')"
            " and not exists (select from event_outbox where device_id = %s)",
            [device_id, device_id],
        ).fetchone()
    return row is not None and bool(row[0])
