"""A person's request, the api, a real worker, a real core that polls, a slave, and back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest_asyncio

from tests.api.conftest import Client, api, api_database_url, app, built, parts, world
from tests.api.world import World
from tests.faults.core import Core
from tests.faults.slaves import LOCAL, Slaves, definition, give_profile, register
from tests.faults.wire import Credentials
from tests.link.conftest import NewProcess
from tests.link.node import TOKEN

__all__ = ["api", "api_database_url", "app", "built", "parts", "world"]


class TestsDatabase:
    """The world's database, as the slaves' helpers want it."""

    __test__ = False

    def __init__(self, url: str) -> None:
        self.url = url

    def execute(self, statement: str, parameters: list[object] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own and return its rows."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []


@pytest_asyncio.fixture
async def core(tmp_path: Path, world: World, redis_url: str) -> AsyncIterator[Core]:
    """A node on the test's database and Valkey, which may poll on this machine."""
    settings = {"redis_url": redis_url, "service_token": TOKEN, "node_name": "n1", **LOCAL}
    made = Core(tmp_path / "core", world.database_url, **settings)
    await made.started()
    yield made
    made.clean_up()
    print(f"--- the end of the core's log\n{made.tail()}")


async def test_a_person_sets_a_point_of_a_polled_device_and_hears_what_was_read_back(
    api: Client, world: World, core: Core, new_process: NewProcess
) -> None:
    assert core.is_running
    database, device = TestsDatabase(world.database_url), Credentials(world.tenant.sites[0].device_id, "")
    registers = [register("setpoint", 0, "i16", scale=0.1, writable=True), register("power", 5)]
    async with Slaves() as slaves:
        give_profile(database, device, definition(registers), slaves.address())
        new_process()
        for value, state, status in ((21.5, "succeeded", 0), (4000, "failed", 258)):
            response = await api.post(
                f"/api/v1/devices/{device.device_id}/commands",
                headers=world.admin.headers,
                params={"wait": 30},
                json={"type": "write", "params": {"point": "setpoint", "value": value}, "timeout_seconds": 60},
            )
            assert response.is_success, response.text
            found = response.json()
            assert (found["state"], found["status"]) == (state, status), found
            if state == "succeeded":
                assert found["result"] == {"point": "setpoint", "value": 21.5, "raw": 215}
            else:
                assert "does not fit" in found["message"]
        assert slaves[1].words[0] == 215
        database.execute("update devices set modbus = null where modbus is not null")
