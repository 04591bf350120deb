"""The api is killed again and again while people book and while their stays begin: nobody's booking is lost, doubled or late."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg.rows import class_row

from tests.api.world import Person, World
from tests.faults.asking import CALL_SECONDS_MAX, COME_AGAIN, answer_of
from tests.faults.conditions import until_in_thread
from tests.faults.control_plane import ControlPlane
from tests.faults.database import Database

NUM_ROOMS = 24
NUM_KILLS = 4
# The api starts five times meanwhile.
TRY_SECONDS = 240.0
# Stays begin while the api dies and starts, one after the other.
FIRST_BEGINS_AFTER, EACH_BEGINS_AFTER = timedelta(seconds=12), timedelta(seconds=0.5)
# The worker looks every second, and a machine may be busy.
LATE_MAX = timedelta(seconds=20)
WHAT_HAPPENED = """
select b.id, b.status, b.check_in,
       array(select h.action::text from booking_history h where h.booking_id = b.id order by h.id) as actions,
       (select max(h.at) from booking_history h where h.booking_id = b.id and h.action = 'confirmed') as confirmed,
       (select h.at from booking_history h where h.booking_id = b.id and h.action = 'checked_in') as begun
  from bookings b
"""


@dataclass
class Kept:
    """A booking as the database has it."""

    id: UUID
    status: str
    check_in: datetime
    actions: list[str]
    confirmed: datetime | None
    begun: datetime | None


def kept(database: Database) -> list[Kept]:
    """All bookings."""
    with psycopg.connect(database.url, row_factory=class_row(Kept)) as connection:
        return connection.execute(WHAT_HAPPENED).fetchall()


class Desk:
    """Somebody who books, and comes again with the same key until he is answered."""

    def __init__(self, url: str, person: Person) -> None:
        self._client = httpx.AsyncClient(base_url=f"{url}/api/v1", headers=person.headers, timeout=CALL_SECONDS_MAX)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def asks(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer, whoever died over it."""
        headers = {"Idempotency-Key": str(uuid4())}
        async with asyncio.timeout(TRY_SECONDS):
            taken: dict[str, Any] = await answer_of(
                self._client, path, body, headers=lambda: headers, failed=_check_free
            )
        return taken

    async def books(self, area_id: UUID, guest_id: str, check_in: datetime) -> UUID:
        """Book and confirm; the booking's id."""
        check_out = check_in + timedelta(hours=3)
        stay = {"check_in": check_in.isoformat(), "check_out": check_out.isoformat()}
        booking = await self.asks("/bookings", {"area_id": str(area_id), "guest_id": guest_id, **stay})
        confirmed = await self.asks(f"/bookings/{booking['id']}/confirm")
        assert confirmed["status"] in ("confirmed", "in-progress")
        return UUID(booking["id"])


def _check_free(problem: httpx.Response | httpx.TransportError) -> None:
    """Nobody else books: a slot that is taken would be taken by a booking that was made and not answered."""
    if isinstance(problem, httpx.Response) and problem.status_code in COME_AGAIN:
        assert problem.json()["code"] != "booking.slot-taken", problem.text


def rooms(database: Database, people: World) -> list[UUID]:
    """New areas, one at each of new establishments."""
    people.add_sites(NUM_ROOMS, areas_each=1)
    statement = (
        "select a.id from areas a join establishments e on e.id = a.establishment_id"
        " where e.organization_id = %s and e.name like 'Site %%'"
    )
    return [UUID(str(area)) for (area,) in database.execute(statement, [people.tenant.id])]


@pytest.mark.timeout(600)
async def test_people_who_book_while_the_api_dies_at_check_in_time_get_one_booking_each_that_begins_in_time(
    database: Database, people: World, tmp_path: Path
) -> None:
    areas = rooms(database, people)
    control_plane = ControlPlane(tmp_path, database, rate_limit_user_per_minute=100_000)
    await control_plane.start()
    desk = Desk(control_plane.url, people.chief)
    try:
        guest = await desk.asks(
            "/guests", {"first_name": "Ana", "last_name": "Soto", "organization_id": str(people.tenant.id)}
        )
        first = datetime.now(UTC) + FIRST_BEGINS_AFTER
        bookings = [
            asyncio.create_task(desk.books(area, guest["id"], first + number * EACH_BEGINS_AFTER))
            for number, area in enumerate(areas)
        ]
        for _ in range(NUM_KILLS):
            control_plane.api.kill()
            control_plane.api.start()
            await control_plane.ready()
        booked = await asyncio.gather(*bookings)
        sure = set(booked)

        def have_begun() -> bool:
            return {one.id for one in kept(database) if one.status == "in-progress"} == sure

        await until_in_thread(have_begun, "every stay has begun", seconds=60)
    finally:
        await desk.close()
        control_plane.clean_up()
    found = kept(database)
    assert sorted(one.id for one in found) == sorted(booked), "each is there once, and nothing else"
    for one in found:
        assert one.actions == ["created", "confirmed", "checked_in"]
        assert one.confirmed is not None
        assert one.begun is not None
        # Where the machine is slow, some are confirmed when their stay has begun.
        assert one.check_in <= one.begun < max(one.check_in, one.confirmed) + LATE_MAX
