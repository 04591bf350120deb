"""Devices that are added, disabled and given new tokens while the core runs: it follows within two seconds."""

import hashlib
import time

import pytest

from tests.faults.conditions import POLL_SECONDS
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.wire import Credentials, Peer

FRESH_SECONDS = 2.0


@pytest.fixture
async def core(new_core: NewCore, device: Credentials) -> Core:
    assert device.token  # registered before the core starts
    made = new_core()
    await made.started()
    return made


async def greeted(core: Core, device: Credentials) -> str:
    """Return WELCOME or the code of the ERROR."""
    peer = await Peer.dial(core.port)
    answer = await peer.ask("hello", **device.hello())
    await peer.close()
    return "welcome" if answer.name == "welcome" else str(answer["code"])


async def becomes(core: Core, device: Credentials, wanted: str) -> None:
    """Wait until a device is greeted so, no longer than the registry may be stale."""
    deadline = time.monotonic() + FRESH_SECONDS
    while (heard := await greeted(core, device)) != wanted:
        assert time.monotonic() < deadline, f"still {heard} after {FRESH_SECONDS} s"
        time.sleep(POLL_SECONDS)  # noqa: ASYNC251 - nothing else runs here


async def test_a_device_that_is_added_is_welcome_within_two_seconds(core: Core, database: Database) -> None:
    await becomes(core, database.add_devices(1)[0], "welcome")


async def test_many_devices_added_at_once_are_welcome_within_two_seconds(core: Core, database: Database) -> None:
    for device in database.add_devices(300)[::100]:
        await becomes(core, device, "welcome")


async def test_a_new_token_replaces_the_old_one_within_two_seconds(
    core: Core, database: Database, device: Credentials
) -> None:
    await becomes(core, device, "welcome")
    renewed = Credentials(device.device_id, "another token")
    digest = hashlib.sha256(renewed.token.encode()).digest()
    database.execute("update devices set token_hash = %s where id = %s", [digest, device.device_id])
    await becomes(core, renewed, "welcome")
    assert await greeted(core, device) == "auth_failed"


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("update devices set is_enabled = false where id = %s", id="disabled"),
        pytest.param("update devices set token_hash = null where id = %s", id="without a token"),
        pytest.param("delete from devices where id = %s", id="deleted"),
    ],
)
async def test_a_device_that_may_no_longer_connect_is_cut_off_within_two_seconds(
    statement: str, core: Core, database: Database, device: Credentials
) -> None:
    peer = await Peer.join(core.port, device)
    await peer.acked(1, {"type": "before"})
    database.execute(statement, [device.device_id])
    changed = time.monotonic()
    heard = await peer.everything(seconds=FRESH_SECONDS + 1)
    assert time.monotonic() - changed < FRESH_SECONDS
    assert [message["code"] for message in heard] in ([], ["auth_failed"])
    assert await greeted(core, device) == "auth_failed"


async def test_a_device_that_is_enabled_again_goes_on_where_it_was(
    core: Core, database: Database, device: Credentials
) -> None:
    peer = await Peer.join(core.port, device)
    await peer.acked(1, {"type": "before"})
    database.execute("update devices set is_enabled = false where id = %s", [device.device_id])
    await becomes(core, device, "auth_failed")
    database.execute("update devices set is_enabled = true where id = %s", [device.device_id])
    await becomes(core, device, "welcome")
    assert (await Peer.join(core.port, device)).last_seq == 1


async def test_a_registry_change_made_while_the_database_was_away_is_seen_after_its_return(
    core: Core, database: Database, device: Credentials
) -> None:
    await becomes(core, device, "welcome")
    await database.kill()
    await database.start()
    database.execute("update devices set is_enabled = false where id = %s", [device.device_id])
    deadline = time.monotonic() + 30
    while await greeted(core, device) != "auth_failed":
        assert time.monotonic() < deadline, "the core never heard of the change"
        time.sleep(POLL_SECONDS)  # noqa: ASYNC251 - nothing else runs here
