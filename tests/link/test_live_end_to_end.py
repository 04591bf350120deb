"""A device's event, a real core, the api, and a screen that shows it, also when the core was killed in between."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from litestar import Litestar

from hse.api.app import Parts, create_app
from tests.api.conftest import api_database_url, client_of, living, parts, world
from tests.api.live import Screen, link_to, streams_of
from tests.api.test_alarms import handle
from tests.api.world import World
from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import knows
from tests.faults.core import Core
from tests.faults.wire import Credentials, Peer
from tests.link.node import TOKEN

__all__ = ["api_database_url", "parts", "world"]

# grpc.aio wants one event loop a process.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def core(tmp_path: Path, world: World, redis_url: str) -> AsyncIterator[Core]:
    """A node on the test's database and Valkey."""
    made = Core(tmp_path / "core", world.database_url, redis_url=redis_url, service_token=TOKEN, node_name="n1")
    await made.started()
    yield made
    for peer in list(Peer.still_open):
        peer.abort()
    made.clean_up()
    print(f"--- the end of the core's log\n{made.tail()}")


@pytest_asyncio.fixture(loop_scope="session")
async def live_app(parts: Parts, world: World, core: Core, redis_url: str) -> AsyncIterator[Litestar]:  # noqa: ARG001
    """The api, when it hears what the database notifies."""
    app = create_app(replace(parts, open_link=partial(link_to, redis_url)))
    async with living(app):
        await until(lambda: streams_of(app)._is_told(), "notifications are heard")
        yield app


async def identity(app: Litestar, world: World, core: Core) -> Credentials:
    """A device's token, when the core knows it."""
    device_id = world.tenant.sites[0].device_id
    async with client_of(app) as api:
        response = await api.post(f"/api/v1/devices/{device_id}/token", headers=world.admin.headers)
    credentials = Credentials(device_id, response.json()["token"])
    await knows(core, credentials)
    return credentials


async def test_what_a_device_sends_is_shown_at_once_and_an_alarm_becomes_one(
    live_app: Litestar, world: World, core: Core
) -> None:
    device = await identity(live_app, world, core)
    screen = await Screen(live_app, world.user).opened()
    peer = await Peer.join(core.port, device)
    assert (await screen.next("state"))["is_connected"] is True
    await peer.acked(1, {"type": "temperature", "value": 21.5, "unit": "C", "metadata": {"floor": 3}})
    event = await screen.next("event")
    assert (event["device_id"], event["type"], event["value"]) == (str(device.device_id), "temperature", 21.5)
    assert event["metadata"] == {"floor": 3}
    await peer.acked(2, {"type": "alarm", "metadata": {"alarm": "smoke", "severity": "critical"}})
    assert (await screen.next("event"))["type"] == "alarm"

    def has_alarm() -> bool:
        handle(world)
        return any(name == "alarm" for name, _ in screen.told)

    await until_in_thread(has_alarm, "the alarm is told", seconds=30)
    assert (await screen.next("alarm"))["severity"] == "critical"
    await peer.close()
    disconnected = await screen.next("state", lambda one: one["is_connected"] is not None)
    assert disconnected["is_connected"] is False
    await screen.close()


async def test_a_core_that_is_killed_is_shown_as_away_and_heard_again(
    live_app: Litestar, world: World, core: Core
) -> None:
    device = await identity(live_app, world, core)
    screen = await Screen(live_app, world.user, kind="event").opened()
    await core.kill()
    await screen.next("sources", lambda one: one["num_away"] == 1)
    await core.started()
    # What it hears before it is heard itself, it does not keep.
    await screen.next("sources", lambda one: one["num_away"] == 0)
    await knows(core, device)
    peer = await Peer.join(core.port, device)
    await peer.acked(1, {"type": "temperature", "value": 7.0})
    await screen.value(7.0)
    await screen.close()
