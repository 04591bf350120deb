"""The calendar of an area: a link that is told once, renewed, taken away, and shows when and nothing of whom."""

import threading
from typing import Any
from uuid import UUID, uuid4

import icalendar
import psycopg
import pytest

from hse.adapters import icalendar as icalendar_adapter
from hse.adapters.postgres import booking_calendars
from tests.api.booked import new_booking, new_guest
from tests.api.bookings import DAY, SOON, a_booking, a_guest, done, refused, stay
from tests.api.conftest import Client
from tests.api.test_guests import CARMEN, TRACES
from tests.api.test_secrets import everything_kept
from tests.api.world import World


async def issued(api: Client, world: World, area_id: UUID) -> Any:
    return await done(api, "POST", f"areas/{area_id}/booking-calendar", world.admin)


async def test_the_link_shows_when_an_area_is_taken_and_nothing_of_whom(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site, **CARMEN)
    pending = await a_booking(api, who, site, guest, special_requests="a rooftop view")
    confirmed = await a_booking(api, who, site, guest, **stay(SOON + 3 * DAY))
    await done(api, "POST", f"bookings/{confirmed['id']}/confirm", who)
    cancelled = await a_booking(api, who, site, guest, **stay(SOON + 6 * DAY))
    await done(api, "POST", f"bookings/{cancelled['id']}/cancel", who, body={})
    link = await issued(api, world, site.area_id)
    answer = await api.get(link["path"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    calendar: Any = icalendar.Calendar.from_ical(answer.text)
    assert calendar["x-wr-calname"] == "Acme 1 · Hall"
    assert calendar["x-wr-timezone"] == "America/Santiago"
    events = [(one["uid"], one["dtstart"].dt, one["dtend"].dt, one["status"]) for one in calendar.walk("vevent")]
    assert events == [
        (f"{pending['id']}@hse", SOON, SOON + DAY, "TENTATIVE"),
        (f"{confirmed['id']}@hse", SOON + 3 * DAY, SOON + 4 * DAY, "CONFIRMED"),
    ]
    codes = (pending["confirmation_code"], confirmed["confirmation_code"], str(guest))
    assert [trace for trace in (*TRACES, *codes) if trace in answer.text] == []


async def test_a_link_holds_until_it_is_renewed_or_taken_away(api: Client, world: World) -> None:
    area = world.tenant.sites[0].area_id
    path = f"areas/{area}/booking-calendar"
    assert (await refused(api, "GET", path, world.admin))[0] == 404
    first = await issued(api, world, area)
    second = await issued(api, world, area)
    assert (await api.get(first["path"])).status_code == 404
    assert (await api.get(second["path"])).status_code == 200
    known = await done(api, "GET", path, world.admin)
    assert (known["area_id"], known["created_by"]) == (str(area), str(world.admin.id))
    await done(api, "DELETE", path, world.admin)
    assert (await api.get(second["path"])).status_code == 404
    assert (await refused(api, "DELETE", path, world.admin))[0] == 404


async def test_a_link_that_does_not_hold_has_one_answer(api: Client, world: World) -> None:
    area, other = (site.area_id for site in world.tenant.sites)
    link = await issued(api, world, area)
    answers = [
        await api.get(path)
        for path in (
            f"/api/v1/booking-calendars/{area}/{link['token'][:-1]}",
            f"/api/v1/booking-calendars/{other}/{link['token']}",
            f"/api/v1/booking-calendars/{uuid4()}/{link['token']}",
        )
    ]
    assert {one.status_code for one in answers} == {404}
    assert {one.json()["code"] for one in answers} == {"resource.not-found"}
    # A link is for nothing else.
    as_key = {"Authorization": f"Bearer {link['token']}"}
    assert (await api.get("/api/v1/bookings", headers=as_key)).status_code == 401


async def test_the_secret_of_a_link_is_kept_as_a_hash_only_and_the_area_s_end_is_its_end(
    api: Client, world: World
) -> None:
    area = world.tenant.sites[0].area_id
    link = await issued(api, world, area)
    assert [table for table, text in everything_kept(world.database_url).items() if link["token"] in text] == []
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update organizations set is_active = false where id = %s", [world.tenant.id])
    assert (await api.get(link["path"])).status_code == 404


async def test_links_are_given_out_by_who_may_at_that_place(api: Client, world: World) -> None:
    first, second = (f"areas/{site.area_id}/booking-calendar" for site in world.tenant.sites)
    assert (await refused(api, "POST", second, world.admin))[0] == 404
    assert (await refused(api, "POST", first, world.user))[0] == 403
    assert (await refused(api, "POST", first, world.other_chief))[0] == 404
    await done(api, "POST", second, world.chief)


async def test_of_too_many_stays_a_calendar_leaves_out_the_oldest(
    api: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(booking_calendars, "STAYS_MAX", 4)
    site = world.tenant.sites[0]
    guest = new_guest(world, world.tenant, site)
    kept = [new_booking(world, world.tenant, site, guest, days_ahead=days) for days in (-9, -6, -3, 30, 60, 90)]
    link = await issued(api, world, site.area_id)

    async def shown() -> list[str]:
        calendar: Any = icalendar.Calendar.from_ical((await api.get(link["path"])).text)
        return [one["uid"].removesuffix("@hse") for one in calendar.walk("vevent")]

    assert await shown() == [str(one) for one in kept[2:]]
    more = [new_booking(world, world.tenant, site, guest, days_ahead=days) for days in (120, 150)]
    assert await shown() == [str(one) for one in [*kept[3:], more[0]]]


async def test_a_calendar_is_written_beside_the_event_loop_and_anew_when_it_changed(api: Client, world: World) -> None:
    site = world.tenant.sites[0]
    guest = new_guest(world, world.tenant, site)
    link = await issued(api, world, site.area_id)
    icalendar_adapter.calendar_of.cache_clear()
    empty = (await api.get(link["path"])).text
    assert (await api.get(link["path"])).text == empty
    new_booking(world, world.tenant, site, guest)
    assert (await api.get(link["path"])).text != empty
    assert icalendar_adapter.calendar_of.cache_info().misses == 2
    assert [one.name for one in threading.enumerate() if one.name.startswith("calendars")] == ["calendars_0"]
