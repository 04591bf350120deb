"""Two hundred who want one slot at the same moment, over real sockets: one gets it, and the others are told what is in the way."""

import asyncio
from dataclasses import replace
from functools import partial

import httpx
import psycopg

from hse.adapters.postgres.database import Database
from hse.api.app import Parts, create_app
from hse.api.limits import RequestLimits
from tests.api.booked import new_guest
from tests.api.bookings import stay
from tests.api.conftest import OUTBOX
from tests.api.served import served
from tests.api.world import World

NUM_ATTEMPTS = 200
TRIES_MAX = 60


async def wanted(client: httpx.AsyncClient, headers: dict[str, str], body: dict[str, str]) -> httpx.Response:
    """One attempt; again where the answer says so: there was no connection to spare, or a lock took too long."""
    for _ in range(TRIES_MAX):
        answer = await client.post("/api/v1/bookings", headers=headers, json=body)
        if answer.status_code != 503 and answer.json().get("code") != "resource.contended":
            return answer
        await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
    raise AssertionError("the server never got to it")


async def test_of_two_hundred_who_want_a_slot_at_once_one_gets_it_and_the_others_are_told_why(
    parts: Parts, world: World, api_database_url: str
) -> None:
    site, who = world.tenant.sites[0], world.admin
    body = {"area_id": str(site.area_id), "guest_id": str(new_guest(world, world.tenant, site)), **stay()}
    unlimited = RequestLimits(address_per_minute=10**9, user_per_minute=10**9)
    open_database = partial(Database, api_database_url, pool_size=20, outbox=OUTBOX)
    app = create_app(replace(parts, limits=unlimited, open_database=open_database))
    # Let go sooner than the server does: one that is closed as it is used again is no answer.
    limits = httpx.Limits(max_connections=NUM_ATTEMPTS, keepalive_expiry=1)
    async with (
        served(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60) as client,
    ):
        attempts = [wanted(client, who.headers, body) for _ in range(NUM_ATTEMPTS)]
        answers = await asyncio.gather(*attempts)
    won = [one.json() for one in answers if one.status_code == 201]
    lost = [one.json() for one in answers if one.status_code == 409]
    assert (len(won), len(lost)) == (1, NUM_ATTEMPTS - 1)
    period = ("area_id", "check_in", "check_out", "free_from")
    assert {one["code"] for one in lost} == {"booking.slot-taken"}
    assert {tuple(one[name] for name in period) for one in lost} == {tuple(won[0][name] for name in period)}
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select count(*) from bookings").fetchone() == (1,)
