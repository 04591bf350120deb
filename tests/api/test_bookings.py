"""Bookings over REST: who gets a slot, what may be done to a booking when, and what is told of it."""

import asyncio
import re
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.api.booked import new_booking, new_guest
from tests.api.bookings import DAY, HOUR, MINUTE, SOON, a_booking, a_guest, done, refused, stay
from tests.api.conftest import Client
from tests.api.world import World


async def test_a_booking_is_made_confirmed_changed_and_cancelled_and_all_of_it_is_told(
    api: Client, world: World
) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    made = await a_booking(api, who, site, guest, num_guests=2, special_requests="A cot", metadata={"source": "web"})
    assert (made["status"], made["num_guests"], made["special_requests"]) == ("pending", 2, "A cot")
    assert made["created_by"] == str(who.id)
    assert re.fullmatch("[2-9CDFGHJKMNPQRTVWXY]{10}", made["confirmation_code"])
    path = f"bookings/{made['id']}"
    confirmed = await done(api, "POST", f"{path}/confirm", who)
    assert confirmed["status"] == "confirmed"
    assert await done(api, "POST", f"{path}/confirm", who) == confirmed
    moved = await done(api, "PATCH", path, who, body={**stay(SOON + DAY), "num_guests": 3})
    assert (moved["num_guests"], moved["version"]) == (3, 3)
    cancelled = await done(api, "POST", f"{path}/cancel", who, body={"reason": "Ill"})
    assert (cancelled["status"], cancelled["cancelled_by"], cancelled["cancellation_reason"]) == (
        "cancelled",
        str(who.id),
        "Ill",
    )
    assert await done(api, "POST", f"{path}/cancel", who, body={}) == cancelled
    history = (await done(api, "GET", f"{path}/history", who))["items"]
    assert [one["action"] for one in history] == ["created", "confirmed", "changed", "cancelled"]
    assert {one["user_id"] for one in history} == {str(who.id)}
    assert history[2]["changed"] == ["check_in", "check_out", "num_guests"]
    with psycopg.connect(world.database_url) as connection:
        entries = connection.execute(
            "select action, before::text || after::text from audit_entries where entity_id = %s order by id",
            [made["id"]],
        ).fetchall()
    assert [action for action, _ in entries] == ["booking.create", *["booking.update"] * 3]
    assert not any("A cot" in str(told) or "Ill" in str(told) for _, told in entries)


@pytest.mark.parametrize(
    ("check_in", "lasting", "is_taken"),
    [
        (SOON - DAY, DAY - HOUR, False),
        (SOON - DAY, DAY - HOUR + MINUTE, True),
        (SOON - DAY, DAY, True),
        (SOON + HOUR, HOUR, True),
        (SOON - HOUR, 3 * DAY, True),
        (SOON + DAY, DAY, True),
        (SOON + DAY + HOUR - MINUTE, DAY, True),
        (SOON + DAY + HOUR, DAY, False),
    ],
)
async def test_an_area_is_not_booked_twice_nor_within_the_margins_and_the_refusal_says_what_is_in_the_way(
    check_in: object, lasting: object, is_taken: bool, api: Client, world: World
) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    first = await a_booking(api, who, site, guest)
    body = {"area_id": str(site.area_id), "guest_id": str(guest), **stay(check_in, lasting)}  # type: ignore[arg-type]
    answer = await api.post("/api/v1/bookings", headers=who.headers, json=body)
    if not is_taken:
        assert answer.status_code == 201, answer.text
        return
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "booking.slot-taken")
    told = {name: problem[name] for name in ("area_id", "check_in", "check_out", "free_from")}
    assert told == {name: first[name] for name in told}
    # A booking of it can be changed to neither.
    other = await a_booking(api, who, site, guest, **stay(SOON + 9 * DAY))
    status, code, changed = await refused(
        api,
        "PATCH",
        f"bookings/{other['id']}",
        who,
        body=stay(check_in, lasting),  # type: ignore[arg-type]
    )
    assert (status, code, changed["check_in"]) == (409, "booking.slot-taken", first["check_in"])
    # And once the one is cancelled, nothing is in the way.
    await done(api, "POST", f"bookings/{first['id']}/cancel", who, body={})
    await done(api, "POST", "bookings", who, body=body)


async def test_a_booking_may_be_moved_into_its_own_time(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    made = await a_booking(api, who, site, await a_guest(api, who, site))
    moved = await done(api, "PATCH", f"bookings/{made['id']}", who, body=stay(SOON + HOUR))
    assert moved["check_in"] == stay(SOON + HOUR)["check_in"].replace("+00:00", "Z")


async def test_a_deleted_booking_is_gone_and_its_history_is_not(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    made = await a_booking(api, who, site, guest)
    await done(api, "DELETE", f"bookings/{made['id']}", who)
    assert (await refused(api, "GET", f"bookings/{made['id']}", who))[0] == 404
    history = await done(api, "GET", f"bookings/{made['id']}/history", who)
    assert [one["action"] for one in history["items"]] == ["created", "deleted"]
    assert (await refused(api, "GET", f"bookings/{uuid4()}/history", who))[0] == 404
    await a_booking(api, who, site, guest)


def bring_to(world: World, booking_id: str, *ways: str) -> None:
    """As the worker does."""
    with psycopg.connect(world.database_url) as connection:
        for status in ways:
            cancelled_at = "now()" if status == "cancelled" else "null"
            connection.execute(
                f"update bookings set status = %s, cancelled_at = {cancelled_at} where id = %s".encode(),
                [status, booking_id],
            )


WAYS: dict[str, tuple[str, ...]] = {
    "pending": (),
    "confirmed": ("confirmed",),
    "in-progress": ("confirmed", "in-progress"),
    "completed": ("confirmed", "in-progress", "completed"),
    "cancelled": ("cancelled",),
}
ACTS = {
    "confirm": ("POST", "/confirm", None),
    "change": ("PATCH", "", {"num_guests": 3}),
    "cancel": ("POST", "/cancel", {}),
    "delete": ("DELETE", "", None),
}


@pytest.mark.parametrize("status", WAYS)
@pytest.mark.parametrize("act", ACTS)
async def test_what_may_be_done_to_a_booking_depends_on_its_state(
    status: str, act: str, api: Client, world: World
) -> None:
    site, who = world.tenant.sites[0], world.admin
    made = await a_booking(api, who, site, await a_guest(api, who, site))
    bring_to(world, made["id"], *WAYS[status])
    method, path, body = ACTS[act]
    answer = await api.request(method, f"/api/v1/bookings/{made['id']}{path}", headers=who.headers, json=body)
    may = status in ("pending", "confirmed") or (status, act) == ("cancelled", "cancel")
    if may:
        assert answer.status_code < 300, answer.text
        return
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["booking_status"]) == (409, "booking.not-open", status)


async def test_a_stay_has_begun_at_its_minute_also_while_no_worker_says_so(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    made = await a_booking(api, who, site, await a_guest(api, who, site))
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update bookings set status = 'confirmed', check_in = now() - interval '1 second' where id = %s",
            [made["id"]],
        )
    for act in ("change", "cancel", "delete"):
        method, path, body = ACTS[act]
        _, code, problem = await refused(api, method, f"bookings/{made['id']}{path}", who, body=body)
        assert (code, problem["booking_status"]) == ("booking.not-open", "in-progress")


async def test_what_is_over_is_neither_booked_nor_confirmed_and_a_guest_who_is_late_may_still_come(
    api: Client, world: World
) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    body = {"area_id": str(site.area_id), "guest_id": str(guest)}
    status, code, _ = await refused(api, "POST", "bookings", who, body={**body, **stay(SOON - 60 * DAY)})
    assert (status, code) == (409, "booking.stay-is-over")
    late, over = await a_booking(api, who, site, guest), await a_booking(api, who, site, guest, **stay(SOON + 3 * DAY))
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update bookings set check_in = now() - interval '2 h' where id = %s", [late["id"]])
        connection.execute(
            "update bookings set check_in = now() - interval '9 h', check_out = now() - interval '8 h',"
            " free_from = now() - interval '7 h' where id = %s",
            [over["id"]],
        )
    assert (await done(api, "POST", f"bookings/{late['id']}/confirm", who))["status"] == "confirmed"
    assert (await refused(api, "POST", f"bookings/{over['id']}/confirm", who))[1] == "booking.stay-is-over"


async def test_what_does_not_fit_is_refused_by_its_field(api: Client, world: World) -> None:
    (site, second), who = world.tenant.sites, world.chief
    foreign = new_guest(world, world.other_tenant)
    guest = await a_guest(api, who, site)
    good = {"area_id": str(site.area_id), "guest_id": str(guest), **stay()}
    for field, wrong in (
        ("check_out", stay(SOON, -HOUR)),
        ("check_out", stay(SOON, 800 * DAY)),
        ("check_in", stay(SOON + 4000 * DAY)),
        ("guest_id", {"guest_id": str(foreign)}),
        ("guest_id", {"guest_id": str(uuid4())}),
    ):
        status, code, problem = await refused(api, "POST", "bookings", who, body={**good, **wrong})
        assert (status, code, problem["field"]) == (422, "request.invalid", field)
    naive = {**good, "check_in": "2030-01-01T00:00:00"}
    assert (await refused(api, "POST", "bookings", who, body=naive))[0] == 422
    made = await done(api, "POST", "bookings", who, body=good)
    _, _, problem = await refused(api, "PATCH", f"bookings/{made['id']}", who, body={"area_id": str(second.area_id)})
    assert problem["field"] == "area_id"


async def test_a_change_of_what_meanwhile_changed_is_refused(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    made = await a_booking(api, who, site, await a_guest(api, who, site))
    path = f"/api/v1/bookings/{made['id']}"
    read = await api.get(path, headers=who.headers)
    assert read.headers["ETag"] == '"1"'
    headers = {**who.headers, "If-Match": read.headers["ETag"]}
    assert (await api.patch(path, headers=headers, json={"num_guests": 4})).status_code == 200
    assert (await api.patch(path, headers=headers, json={"num_guests": 5})).status_code == 412


async def test_a_booking_sent_twice_under_one_key_is_made_once(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    body = {"area_id": str(site.area_id), "guest_id": str(guest), **stay()}
    headers = {**who.headers, "Idempotency-Key": "once"}
    first, second = [await api.post("/api/v1/bookings", headers=headers, json=body) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()


async def test_lists_are_filtered_sorted_searched_and_paged(api: Client, world: World) -> None:
    (site, _), who = world.tenant.sites, world.chief
    guest, other = await a_guest(api, who, site), await a_guest(api, who, site)
    made = [
        await a_booking(api, who, site, guest if number % 2 else other, **stay(SOON + 2 * number * DAY))
        for number in (2, 0, 1, 3)
    ]
    ordered = [made[1]["id"], made[2]["id"], made[0]["id"], made[3]["id"]]

    async def listed(**params: object) -> list[str]:
        return [one["id"] for one in (await done(api, "GET", "bookings", who, **params))["items"]]

    assert await listed() == ordered
    assert await listed(sort="-check_in") == ordered[::-1]
    assert await listed(guest_id=str(guest)) == [ordered[1], ordered[3]]
    assert await listed(q=made[0]["confirmation_code"][2:8].lower()) == [made[0]["id"]]
    begin, end = (SOON + DAY).isoformat(), (SOON + 4 * DAY + HOUR).isoformat()
    assert await listed(**{"from": begin, "to": end}) == ordered[1:3]
    bring_to(world, ordered[2], "confirmed")
    assert await listed(status="confirmed") == [ordered[2]]
    first = await done(api, "GET", "bookings", who, limit=3, with_total=True)
    rest = await done(api, "GET", "bookings", who, limit=3, cursor=first["next_cursor"])
    assert [one["id"] for one in first["items"] + rest["items"]] == ordered
    assert (first["total"], rest["next_cursor"]) == (4, None)
    assert (await refused(api, "GET", "bookings", who, status="gone"))[0] == 422
    assert (await refused(api, "GET", "bookings", who, **{"from": "2030-01-01T00:00:00"}))[0] == 422


async def test_nobody_sees_or_books_beyond_his_reach(api: Client, world: World) -> None:
    first, second = world.tenant.sites
    guest = new_guest(world, world.tenant)
    here = new_booking(world, world.tenant, first, guest)
    there = new_booking(world, world.tenant, second, guest)
    foreign = new_booking(world, world.other_tenant, world.other_tenant.sites[0], new_guest(world, world.other_tenant))
    seen = {
        "admin": {here},
        "other_site_admin": {there},
        "chief": {here, there},
        "partner": {here, there},
        "other_chief": {foreign},
    }
    for name, expected in seen.items():
        person = getattr(world, name)
        found = {UUID(one["id"]) for one in (await done(api, "GET", "bookings", person))["items"]}
        assert found == expected, name
    assert (await refused(api, "GET", "bookings", world.user))[0] == 403
    for booking in (there, foreign):
        assert (await refused(api, "GET", f"bookings/{booking}", world.admin))[0] == 404
        assert (await refused(api, "GET", f"bookings/{booking}/history", world.admin))[0] == 404
        assert (await refused(api, "POST", f"bookings/{booking}/cancel", world.admin, body={}))[0] == 404
        assert (await refused(api, "DELETE", f"bookings/{booking}", world.admin))[0] == 404
    body = {"area_id": str(second.area_id), "guest_id": str(guest), **stay()}
    assert (await refused(api, "POST", "bookings", world.admin, body=body))[0] == 404


async def test_of_many_who_want_a_slot_at_once_one_gets_it(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    body = {"area_id": str(site.area_id), "guest_id": str(guest), **stay()}
    answers = await asyncio.gather(*(api.post("/api/v1/bookings", headers=who.headers, json=body) for _ in range(30)))
    assert sorted(one.status_code for one in answers) == [201] + [409] * 29
    (won,) = [one.json() for one in answers if one.status_code == 201]
    for lost in (one.json() for one in answers if one.status_code == 409):
        assert (lost["code"], lost["check_in"], lost["check_out"]) == (
            "booking.slot-taken",
            won["check_in"],
            won["check_out"],
        )
