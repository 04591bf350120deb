"""When areas are free: what is told to be free can be booked, and what is not, cannot; on the clocks of the site."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tests.api.bookings import DAY, HOUR, MINUTE, SOON, a_booking, a_guest, done, refused, stay
from tests.api.conftest import Client
from tests.api.world import World


def moments(free: list[dict[str, str]]) -> list[tuple[datetime, datetime]]:
    return [(datetime.fromisoformat(one["since"]), datetime.fromisoformat(one["until"])) for one in free]


async def test_what_is_free_lies_between_the_stays_and_their_margins(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    await a_booking(api, who, site, guest)
    await a_booking(api, who, site, guest, **stay(SOON + DAY + HOUR))
    last = await a_booking(api, who, site, guest, **stay(SOON + 4 * DAY))
    begin, end = SOON - DAY, SOON + 5 * DAY + 30 * MINUTE
    path = f"areas/{site.area_id}/availability"
    found = await done(api, "GET", path, who, **{"from": begin.isoformat(), "to": end.isoformat()})
    assert (found["timezone"], found["gap_minutes"], found["area_name"]) == ("America/Santiago", 60, "Hall")
    free = moments(found["free"])
    assert free == [(begin, SOON - HOUR), (SOON + 2 * DAY + 2 * HOUR, SOON + 4 * DAY - HOUR)]
    # As it says: that fits, and a minute more does not.
    body = {"area_id": str(site.area_id), "guest_id": str(guest)}
    since, until = free[1]
    for one, other in ((since - MINUTE, until), (since, until + MINUTE)):
        assert (await refused(api, "POST", "bookings", who, body={**body, **stay(one, other - one)}))[0] == 409
    await done(api, "POST", "bookings", who, body={**body, **stay(since, until - since)})
    await done(api, "POST", f"bookings/{last['id']}/cancel", who, body={})
    long = await done(api, "GET", path, who, minutes=60 * 23, **{"from": begin.isoformat(), "to": end.isoformat()})
    assert moments(long["free"]) == [(begin, SOON - HOUR), (SOON + 4 * DAY, end)]


async def test_a_stay_just_behind_the_range_is_seen_too(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    await a_booking(api, who, site, await a_guest(api, who, site))
    asked = {"from": (SOON - DAY).isoformat(), "to": (SOON - 30 * MINUTE).isoformat()}
    found = await done(api, "GET", f"areas/{site.area_id}/availability", who, **asked)
    assert moments(found["free"]) == [(SOON - DAY, SOON - HOUR)]


async def test_the_areas_of_an_establishment_are_listed_with_what_is_free_of_each(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    made = [
        await done(api, "POST", "areas", who, body={"establishment_id": str(site.id), "name": name, "type": "room"})
        for name in ("Room 1", "Room 2", "Room 3")
    ]
    guest = await a_guest(api, who, site)
    await a_booking(api, who, site, guest, area_id=made[1]["id"], **stay(SOON - DAY, 3 * DAY))
    asked: dict[str, Any] = {"from": SOON.isoformat(), "to": (SOON + DAY).isoformat(), "type": "room", "sort": "name"}
    path = f"establishments/{site.id}/availability"
    first = await done(api, "GET", path, who, limit=2, **asked)
    rest = await done(api, "GET", path, who, limit=2, cursor=first["next_cursor"], **asked)
    told = [(one["area_name"], moments(one["free"])) for one in first["items"] + rest["items"]]
    whole = [(SOON, SOON + DAY)]
    assert told == [("Room 1", whole), ("Room 2", []), ("Room 3", whole)]
    everywhere = await done(api, "GET", path, who, **{"from": asked["from"], "to": asked["to"]})
    assert len(everywhere["items"]) == 4


async def test_a_range_has_an_end_behind_its_beginning_and_a_limit(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    for path, days in ((f"areas/{site.area_id}", 401), (f"establishments/{site.id}", 94)):
        for begin, end in ((SOON, SOON), (SOON, SOON + days * DAY)):
            asked = {"from": begin.isoformat(), "to": end.isoformat()}
            status, _, problem = await refused(api, "GET", f"{path}/availability", who, **asked)
            assert (status, problem["field"]) == (422, "to")
        for begin_text, end_text, field in (
            ("9999-12-01T00:00:00Z", "9999-12-31T23:59:59Z", "from"),
            ("2199-12-30T00:00:00Z", "9999-12-31T23:59:59-14:00", "to"),
            ("0001-01-01T00:00:00+14:00", "0001-01-02T00:00:00Z", "from"),
        ):
            asked = {"from": begin_text, "to": end_text}
            status, _, problem = await refused(api, "GET", f"{path}/availability", who, **asked)
            assert (status, problem["field"]) == (422, field)
    naive = {"from": "2030-01-01T00:00:00", "to": "2030-01-02T00:00:00Z"}
    assert (await refused(api, "GET", f"areas/{site.area_id}/availability", who, **naive))[2]["field"] == "from"
    for wrong in ({"first": "2030-02-29"}, {"first": "2030-02-01", "check_in_time": "25:00"}, {"first": "1950-01-01"}):
        assert (await refused(api, "GET", f"areas/{site.area_id}/nights", who, **wrong))[0] == 422


async def test_what_is_free_is_told_to_who_may_see_bookings_there(api: Client, world: World) -> None:
    first, second = world.tenant.sites
    asked = {"from": SOON.isoformat(), "to": (SOON + DAY).isoformat()}
    for path in (f"areas/{first.area_id}/availability", f"establishments/{first.id}/availability"):
        await done(api, "GET", path, world.admin, **asked)
        assert (await refused(api, "GET", path, world.user, **asked))[0] == 403
        assert (await refused(api, "GET", path, world.other_chief, **asked))[0] == 404
    assert (await refused(api, "GET", f"areas/{second.area_id}/availability", world.admin, **asked))[0] == 404
    assert (await refused(api, "GET", f"areas/{first.area_id}/nights", world.user, first="2030-01-01"))[0] == 403


# Each night is asked for as it stands on a calendar, and is booked as what the answer says it is.
NIGHTS = [
    # (zone, date of the night, its check-in and check-out in UTC, hours)
    ("America/Santiago", "2028-02-28", "2028-02-28T18:00Z", "2028-02-29T14:00Z", 20),
    ("America/Santiago", "2028-02-29", "2028-02-29T18:00Z", "2028-03-01T14:00Z", 20),
    # Clocks go back from 24:00 to 23:00 on the 1st of April 2028: the night has an hour more.
    ("America/Santiago", "2028-04-01", "2028-04-01T18:00Z", "2028-04-02T15:00Z", 21),
    # And forward from 24:00 to 01:00 on the 2nd of September: one less.
    ("America/Santiago", "2028-09-02", "2028-09-02T19:00Z", "2028-09-03T14:00Z", 19),
    ("Europe/Madrid", "2028-02-29", "2028-02-29T14:00Z", "2028-03-01T10:00Z", 20),
    ("Europe/Madrid", "2028-03-25", "2028-03-25T14:00Z", "2028-03-26T09:00Z", 19),
    ("Europe/Madrid", "2028-10-28", "2028-10-28T13:00Z", "2028-10-29T10:00Z", 21),
    ("UTC", "2028-02-29", "2028-02-29T15:00Z", "2028-03-01T11:00Z", 20),
    ("UTC", "2028-10-28", "2028-10-28T15:00Z", "2028-10-29T11:00Z", 20),
]


@pytest.mark.parametrize(("zone", "night", "check_in", "check_out", "hours"), NIGHTS)
async def test_nights_are_those_of_the_site_s_calendar(
    zone: str, night: str, check_in: str, check_out: str, hours: int, api: Client, world: World
) -> None:
    site, who = world.tenant.sites[0], world.admin
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update establishments set timezone = %s where id = %s", [zone, site.id])
    day = datetime.fromisoformat(night).date()
    first = (day - DAY).isoformat()
    path = f"areas/{site.area_id}/nights"
    found = await done(api, "GET", path, who, first=first, nights=3)
    told = found["nights"][1]
    begin, end = datetime.fromisoformat(told["check_in"]), datetime.fromisoformat(told["check_out"])
    assert (told["date"], begin, end) == (night, datetime.fromisoformat(check_in), datetime.fromisoformat(check_out))
    assert end - begin == timedelta(hours=hours)
    local = [one.astimezone(ZoneInfo(zone)).strftime("%H:%M") for one in (begin, end)]
    assert local == ["15:00", "11:00"]
    guest = await a_guest(api, who, site)
    await a_booking(api, who, site, guest, **stay(begin, end - begin))
    after = (await done(api, "GET", path, who, first=first, nights=3))["nights"]
    assert [one["is_free"] for one in after] == [True, False, True]
