"""Door codes on the real way: a booking, the worker, the core, a lock on its socket, and back; and with the way cut in between."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest_asyncio
import redis
from psycopg.rows import dict_row

from hse.adapters.sealing import Sealer
from hse.simulation.devices import Address, Totals
from hse.simulation.identities import Identity
from hse.simulation.lock_fleet import Days, SimulatedLock
from hse.simulation.locks import Lock
from tests.api.conftest import Client, api, api_database_url, app, built, parts, world
from tests.api.test_secrets import everything_kept, stands_in
from tests.api.world import SECRET_KEY, World
from tests.conftest import wait_until
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import knows, no_connection_is_left_open
from tests.faults.core import Core
from tests.faults.wire import Credentials
from tests.link.conftest import SECONDS_MAX, NewProcess
from tests.link.node import FakeNode
from tests.link.test_end_to_end import core

__all__ = ["api", "api_database_url", "app", "built", "core", "no_connection_is_left_open", "parts", "world"]

QUIET = Days(visits_per_hour=0.0)


class Desk:
    """Who books at a site, whose one device is the lock of the booked area."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.site = world.tenant.sites[0]
        self.lock_id = self.site.device_id
        self.execute(
            "update devices set device_type = 'doorlock', area_id = %s where id = %s", self.site.area_id, self.lock_id
        )

    def execute(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Run a statement in a transaction of its own."""
        with psycopg.connect(self.world.database_url, row_factory=dict_row) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def book(self, check_in: datetime, check_out: datetime) -> UUID:
        """A confirmed booking."""
        (guest,) = self.execute(
            "insert into guests (organization_id, first_name, last_name) values (%s, 'Ana', 'Soto') returning id",
            self.world.tenant.id,
        )
        (row,) = self.execute(
            "insert into bookings (organization_id, establishment_id, area_id, guest_id, check_in, check_out, free_from,"
            " status, confirmation_code) values (%s, %s, %s, %s, %s, %s, %s, 'confirmed', %s) returning id",
            *(self.world.tenant.id, self.site.id, self.site.area_id, guest["id"]),
            *(check_in, check_out, check_out, uuid4().hex[:10]),
        )
        return UUID(str(row["id"]))

    def code(self, booking_id: UUID) -> dict[str, Any]:
        """The booking's code."""
        rows = self.execute("select * from door_lock_codes where booking_id = %s", booking_id)
        assert len(rows) <= 1
        return rows[0] if rows else {"state": "none"}

    def is_in(self, booking_id: UUID, state: str) -> Callable[[], bool]:
        """Whether the booking's code is in a state."""
        return lambda: self.code(booking_id)["state"] == state


@pytest_asyncio.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    """Who books."""
    yield Desk(world)


async def a_lock(api: Client, desk: Desk, core: Core, directory: Path) -> SimulatedLock:
    """The lock of the desk's area, which the core knows."""
    path = f"/api/v1/devices/{desk.lock_id}/token"
    token = (await api.post(path, headers=desk.world.admin.headers)).json()["token"]
    await knows(core, Credentials(desk.lock_id, token))
    return SimulatedLock(
        identity=Identity(device_id=desk.lock_id, token=token, name="door"),
        epoch=1,
        address=Address(host="127.0.0.1", port=core.port),
        totals=Totals(),
        path=directory / "lock.json",
        days=QUIET,
    )


async def test_a_booking_s_code_is_on_the_lock_is_used_and_is_taken_off_and_stands_nowhere(
    api: Client, desk: Desk, core: Core, new_process: NewProcess, redis_url: str, tmp_path: Path
) -> None:
    new_process()
    lock = await a_lock(api, desk, core, tmp_path)
    being = asyncio.create_task(lock.run())
    now = datetime.now(UTC)
    booking = desk.book(now + timedelta(seconds=6), now + timedelta(seconds=20))
    await until_in_thread(lambda: desk.code(booking)["state"] in ("set", "active"), "it is set", seconds=SECONDS_MAX)
    digits = Sealer(SECRET_KEY).unseal(desk.code(booking)["sealed_code"]).decode()
    code_id = str(desk.code(booking)["id"])
    assert lock.lock.codes[code_id].digits == digits
    await until_in_thread(desk.is_in(booking, "active"), "the stay begins", seconds=SECONDS_MAX)
    assert lock.enter(digits, datetime.now(UTC)).event_type == "code_used"
    lock.enter("000000", datetime.now(UTC))
    await until_in_thread(lambda: desk.code(booking)["usage_count"] == 1, "its use is counted", seconds=SECONDS_MAX)
    kept = everything_kept(desk.world.database_url)
    await until_in_thread(desk.is_in(booking, "revoked"), "the stay ends", seconds=SECONDS_MAX)
    assert lock.lock.codes == {}
    (stay,) = desk.execute("select status from bookings where id = %s", booking)
    assert stay["status"] == "completed"
    being.cancel()
    await asyncio.gather(being, return_exceptions=True)
    kept = {f"{table} after": rows for table, rows in everything_kept(desk.world.database_url).items()} | kept
    assert "code_used" in kept["device_events"]
    assert [table for table, rows in kept.items() if stands_in(rows, digits)] == []
    logs = (tmp_path / "worker.log").read_text(encoding="utf-8") + "\n".join(core.log_lines())
    assert not stands_in(logs, digits)
    assert not stands_in(everything_in_redis(redis_url), digits)


def everything_in_redis(url: str) -> str:
    """Every key and value, as text."""
    found = []
    with redis.Redis.from_url(urlsplit(url).geturl(), decode_responses=True) as client:
        for key in client.scan_iter():
            kind = client.type(key)
            read = {"string": client.get, "set": client.smembers, "hash": client.hgetall}
            found.append(f"{key} {read[str(kind)](key) if str(kind) in read else client.dump(key)}")
    return "\n".join(found)


def replayed(node: FakeNode) -> Lock:
    """A lock that has heard all that the node has delivered, each thing twice."""
    lock = Lock()
    for received in node.received:
        for _ in range(2):
            assert lock.do(received.type, received.params, datetime.now(UTC)).status == 0
    return lock


def test_a_call_that_is_cut_while_the_code_is_sent_ends_with_one_code_on_the_lock(
    desk: Desk, node: FakeNode, new_process: NewProcess
) -> None:
    node.connect(desk.lock_id)
    node.is_mute.set()
    new_process()
    booking = desk.book(datetime.now(UTC) + timedelta(hours=2), datetime.now(UTC) + timedelta(hours=9))
    wait_until(lambda: len(node.received) == 1, "the lock has it, and nobody knows", seconds=SECONDS_MAX)
    assert desk.code(booking)["state"] == "pushing"
    node.stop()
    node.is_mute.clear()
    node.start()
    let_claims_run_out(desk)
    wait_until(desk.is_in(booking, "set"), "the code is set", seconds=SECONDS_MAX)
    (code,) = replayed(node).codes.items()
    assert code[0] == str(desk.code(booking)["id"])


def test_a_worker_that_is_killed_while_a_code_is_sent_and_one_while_it_is_taken_off_leave_no_code_behind(
    desk: Desk, node: FakeNode, new_process: NewProcess
) -> None:
    node.connect(desk.lock_id)
    node.is_held.set()
    doomed = new_process()
    booking = desk.book(datetime.now(UTC) + timedelta(hours=2), datetime.now(UTC) + timedelta(hours=9))
    wait_until(lambda: node.num_calls > 0, "the worker is about to send", seconds=SECONDS_MAX)
    kill(doomed)
    desk.execute("update bookings set status = 'cancelled', cancelled_at = now() where id = %s", booking)
    node.is_held.clear()
    node.is_mute.set()
    doomed = new_process()
    let_claims_run_out(desk)
    wait_until(lambda: "clear_code" in node.types(desk.lock_id), "the lock is told", seconds=SECONDS_MAX)
    kill(doomed)
    assert desk.code(booking)["state"] == "revoking"
    node.is_mute.clear()
    new_process()
    let_claims_run_out(desk)
    wait_until(desk.is_in(booking, "revoked"), "the code is off the lock", seconds=SECONDS_MAX)
    assert replayed(node).codes == {}


def kill(process: Any) -> None:
    """kill -9, to the end."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def let_claims_run_out(desk: Desk) -> None:
    """As if half a minute had passed since the last word of every worker."""
    desk.execute(
        "update device_command_queues set claimed_until = now() - interval '1 s', due_at = now() - interval '1 s'"
    )
