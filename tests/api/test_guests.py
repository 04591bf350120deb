"""Guests over REST: registered, accompanied, searched, masked, exported and erased."""

import io
import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.api.booked import new_booking, new_guest, new_notification
from tests.api.bookings import DAY, SOON, a_booking, a_guest, done, refused, stay
from tests.api.conftest import Client
from tests.api.test_secrets import everything_kept
from tests.api.world import Person, World

CARMEN: dict[str, Any] = {
    "first_name": "Carmencita",
    "last_name": "Rojasmendoza",
    "email": "carmencita@mail.example",
    "phone": "+56 9 8765 4321",
    "document_type": "passport",
    "document_number": "XK7654321",
    "country": "CL",
    "metadata": {"allergy": "hazelnutty"},
}
# What only she is called; her country and the word passport are nothing by themselves.
TRACES = ("Carmencita", "Rojasmendoza", "mail.example", "8765 4321", "XK7654321", "hazelnutty", "a rooftop view")


def clerk(world: World, name: str, actions: list[str]) -> Person:
    """Somebody at the first site who may do just this."""
    role = world.add_role_now(name, actions, organization_id=world.tenant.id)
    return world.add_person_now(
        f"{name}@example.com", role, organization_id=world.tenant.id, sites=[world.tenant.sites[0]]
    )


async def test_a_guest_is_registered_read_and_changed(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site, **CARMEN)
    read = await done(api, "GET", f"guests/{guest}", who)
    assert {name: read[name] for name in CARMEN} == CARMEN
    assert (read["language"], read["is_masked"], read["establishment_id"]) == ("es", False, str(site.id))
    changed = await done(api, "PATCH", f"guests/{guest}", who, body={"language": "en", "phone": None})
    assert (changed["language"], changed["phone"], changed["version"]) == ("en", None, 2)
    status, _, problem = await refused(api, "PATCH", f"guests/{guest}", who, body={"document_type": None})
    assert (status, problem["field"]) == (422, "document_number")
    for wrong in ({"country": "cl"}, {"language": "fr"}, {"email": "nobody"}, {"first_name": ""}):
        assert (await refused(api, "PATCH", f"guests/{guest}", who, body=wrong))[0] == 422


async def test_a_guest_without_a_place_is_the_whole_organisation_s(api: Client, world: World) -> None:
    body = {"first_name": "Eva", "last_name": "Paz", "organization_id": str(world.tenant.id)}
    made = await done(api, "POST", "guests", world.chief, body=body)
    assert made["establishment_id"] is None
    assert (await refused(api, "POST", "guests", world.admin, body=body))[0] == 403
    assert (await refused(api, "GET", f"guests/{made['id']}", world.admin))[0] == 404
    nowhere = {"first_name": "Eva", "last_name": "Paz"}
    assert (await refused(api, "POST", "guests", world.chief, body=nowhere))[2]["field"] == "establishment_id"


async def test_a_guest_is_seen_where_he_was_registered_and_where_he_is_booked(api: Client, world: World) -> None:
    first, second = world.tenant.sites
    guest = await a_guest(api, world.admin, first, **CARMEN)
    assert (await refused(api, "GET", f"guests/{guest}", world.other_site_admin))[0] == 404
    booking = new_booking(world, world.tenant, second, guest)
    seen = await done(api, "GET", f"guests/{guest}", world.other_site_admin)
    assert seen["email"] == CARMEN["email"]
    await done(api, "PATCH", f"guests/{guest}", world.other_site_admin, body={"phone": "+56 2 1"})
    # To erase him is for those where he was registered.
    assert (await refused(api, "POST", f"guests/{guest}/erase", world.other_site_admin))[0] == 403
    await done(api, "DELETE", f"bookings/{booking}", world.other_site_admin)
    assert (await refused(api, "GET", f"guests/{guest}", world.other_site_admin))[0] == 404
    for stranger in (world.other_chief, world.other_partner):
        assert (await refused(api, "GET", f"guests/{guest}", stranger))[0] == 404


async def test_companions_are_reciprocal_and_say_what_they_are_to_each_other(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    mother, child = await a_guest(api, who, site), await a_guest(api, who, site, first_name="Leo")
    body = {"relationship": "child"}
    joined = await done(api, "PUT", f"guests/{mother}/companions/{child}", who, body=body)
    assert (joined["companion_id"], joined["relationship"]) == (str(child), "child")

    async def listed(guest: UUID) -> list[tuple[str, str]]:
        items = (await done(api, "GET", f"guests/{guest}/companions", who))["items"]
        return [(one["companion_id"], one["relationship"]) for one in items]

    assert await listed(mother) == [(str(child), "child")]
    assert await listed(child) == [(str(mother), "parent")]
    await done(api, "PUT", f"guests/{child}/companions/{mother}", who, body={"relationship": "ward"})
    assert await listed(mother) == [(str(child), "guardian")]
    assert await listed(child) == [(str(mother), "ward")]
    for other, wrong in (
        (mother, "child"),
        (uuid4(), "child"),
        (child, "boss"),
        (new_guest(world, world.other_tenant), "child"),
    ):
        path = f"guests/{mother}/companions/{other}"
        assert (await refused(api, "PUT", path, who, body={"relationship": wrong}))[0] == 422
    await done(api, "DELETE", f"guests/{child}/companions/{mother}", who)
    assert await listed(mother) == []
    assert (await refused(api, "DELETE", f"guests/{child}/companions/{mother}", who))[0] == 404


async def test_a_companion_whom_one_may_not_see_is_not_listed(api: Client, world: World) -> None:
    first, second = world.tenant.sites
    here, there = await a_guest(api, world.chief, first), await a_guest(api, world.chief, second)
    await done(api, "PUT", f"guests/{here}/companions/{there}", world.chief, body={"relationship": "friend"})
    assert len((await done(api, "GET", f"guests/{here}/companions", world.chief))["items"]) == 1
    assert (await done(api, "GET", f"guests/{here}/companions", world.admin))["items"] == []


async def test_who_may_not_read_personal_data_is_shown_initials_and_cannot_search_by_it(
    api: Client, world: World
) -> None:
    site = world.tenant.sites[0]
    guest = await a_guest(api, world.admin, site, **CARMEN)
    person = clerk(world, "porter", ["read_guest", "create_guest", "update_guest", "read_establishment"])
    masked = await done(api, "GET", f"guests/{guest}", person)
    assert (masked["first_name"], masked["last_name"], masked["is_masked"]) == ("C.", "R.", True)
    assert [masked[name] for name in ("email", "phone", "document_type", "document_number", "country")] == [None] * 5
    assert masked["metadata"] == {}
    assert [one["id"] for one in (await done(api, "GET", "guests", person))["items"]] == [str(guest)]
    queries = ({"q": "Rojas"}, {"email": CARMEN["email"]}, {"document_number": "XK7654321"}, {"sort": "-last_name"})
    for query in queries:
        assert (await done(api, "GET", "guests", person, with_total=True, **query))["items"] == [], query
        assert (await done(api, "GET", "guests", person, with_total=True, **query))["total"] == 0, query
        assert len((await done(api, "GET", "guests", world.admin, **query))["items"]) == 1, query
        # A statement that is kept for one must not show the other more.
        assert (await done(api, "GET", "guests", person, **query))["items"] == [], query
    changed = await done(api, "PATCH", f"guests/{guest}", person, body={"phone": "+56 2 2222 2222"})
    assert changed["is_masked"]
    assert not any(trace in json.dumps(changed) for trace in TRACES)
    own = await done(
        api, "POST", "guests", person, body={"establishment_id": str(site.id), "first_name": "Leo", "last_name": "Paz"}
    )
    assert (own["first_name"], own["is_masked"]) == ("L.", True)
    assert (await refused(api, "POST", f"guests/{guest}/export", person))[0] == 403


async def test_personal_data_is_read_where_one_may_read_it_and_not_elsewhere(api: Client, world: World) -> None:
    """Sees guests of both sites, and personal data at the second only."""
    first, second = world.tenant.sites
    porter = world.add_role_now("porter", ["read_guest"], organization_id=world.tenant.id)
    desk = world.add_role_now("desk", ["read_guest", "read_guest_personal_data"], organization_id=world.tenant.id)
    person = world.add_person_now("both@example.com", porter, organization_id=world.tenant.id, sites=[first, second])
    world.give_role_at(person, second, desk)
    here, there = [await a_guest(api, world.chief, site, **CARMEN) for site in (first, second)]
    listed = {one["id"]: one["is_masked"] for one in (await done(api, "GET", "guests", person))["items"]}
    assert listed == {str(here): True, str(there): False}
    found = (await done(api, "GET", "guests", person, q="rojasm"))["items"]
    assert [one["id"] for one in found] == [str(there)]
    assert (await done(api, "GET", f"guests/{there}", person))["email"] == CARMEN["email"]
    assert (await done(api, "GET", f"guests/{here}", person))["email"] is None


async def test_neither_the_audit_log_nor_the_log_tells_who_a_guest_is(
    logged: io.StringIO, api: Client, world: World
) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site, **CARMEN)
    await done(
        api, "PATCH", f"guests/{guest}", who, body={"first_name": "Carmencita Luz", "phone": "+56 9 8765 4321 0"}
    )
    await done(api, "GET", "guests", who, q="Rojasmendoza", email=CARMEN["email"])
    await refused(api, "POST", "guests", who, body={**CARMEN, "establishment_id": str(site.id), "country": "chile"})
    await done(api, "POST", f"guests/{guest}/export", who)
    kept = everything_kept(world.database_url)["audit_entries"].replace('""', '"')
    assert "guest.export" in kept
    assert '"changed": ["first_name", "phone"]' in kept
    for text in (kept, logged.getvalue()):
        assert len(text) > 100
        assert [trace for trace in TRACES if trace in text] == []


async def test_an_export_holds_all_that_is_kept(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest, friend = await a_guest(api, who, site, **CARMEN), await a_guest(api, who, site)
    await done(api, "PUT", f"guests/{guest}/companions/{friend}", who, body={"relationship": "friend"})
    booked = [
        await a_booking(api, who, site, guest, special_requests="a rooftop view", **stay(SOON + 2 * number * DAY))
        for number in range(3)
    ]
    told = new_notification(world, world.tenant, site, UUID(booked[0]["id"]), guest)
    export = await done(api, "POST", f"guests/{guest}/export", who)
    assert [(one["id"], one["recipient"]) for one in export["notifications"]] == [(str(told), "carmen@example.com")]
    assert export["guest"]["email"] == CARMEN["email"]
    assert [one["id"] for one in export["bookings"]] == [one["id"] for one in booked]
    assert [one["companion_id"] for one in export["companions"]] == [str(friend)]
    text = json.dumps(export)
    assert [trace for trace in TRACES if trace not in text] == []


async def test_an_erased_guest_leaves_nothing_of_himself_in_any_table(api: Client, world: World) -> None:
    first, second = world.tenant.sites
    guest, friend = await a_guest(api, world.chief, first, **CARMEN), await a_guest(api, world.chief, first)
    await done(api, "PUT", f"guests/{guest}/companions/{friend}", world.chief, body={"relationship": "friend"})
    with psycopg.connect(world.database_url) as connection:
        past = new_booking(world, world.tenant, second, guest, days_ahead=-9)
        connection.execute(
            "update bookings set special_requests = 'a rooftop view', metadata = '{\"for\": \"Carmencita\"}' where id = %s",
            [past],
        )
        connection.execute("update bookings set status = 'confirmed' where id = %s", [past])
    made = await a_booking(api, world.chief, first, guest, special_requests="a rooftop view")
    await done(api, "PATCH", f"guests/{guest}", world.chief, body={"phone": "+56 9 8765 4321 1"})
    status, code, _ = await refused(api, "POST", f"guests/{guest}/erase", world.admin)
    assert (status, code) == (409, "guests.still-expected")
    await done(api, "POST", f"bookings/{made['id']}/cancel", world.chief, body={"reason": "Carmencita called"})
    assert (await refused(api, "POST", f"guests/{guest}/erase", world.admin))[1] == "guests.still-expected"
    with psycopg.connect(world.database_url) as connection:
        for status in ("in-progress", "completed"):
            connection.execute("update bookings set status = %s where id = %s", [status, past])
    before = everything_kept(world.database_url)
    assert {table for table, text in before.items() if any(trace in text for trace in TRACES)} == {"guests", "bookings"}
    # The admin of the first site does not even see the stay at the second.
    erased = await done(api, "POST", f"guests/{guest}/erase", world.admin)
    assert (erased["first_name"], erased["metadata"], erased["is_masked"]) == ("", {}, False)
    assert await done(api, "POST", f"guests/{guest}/erase", world.admin) == erased
    kept = everything_kept(world.database_url)
    found = {table: [trace for trace in TRACES if trace in text] for table, text in kept.items()}
    assert {table: traces for table, traces in found.items() if traces} == {}
    assert kept["guest_companions"] == ""
    assert (await done(api, "GET", f"guests/{friend}/companions", world.admin))["items"] == []
    assert str(guest) in kept["bookings"]
    for act in ({"first_name": "Back"},):
        assert (await refused(api, "PATCH", f"guests/{guest}", world.admin, body=act))[0] == 422
    body = {"area_id": str(first.area_id), "guest_id": str(guest), **stay(SOON + 9 * DAY)}
    assert (await refused(api, "POST", "bookings", world.chief, body=body))[2]["field"] == "guest_id"


async def test_who_books_for_a_guest_and_who_erases_him_do_not_miss_each_other(api: Client, world: World) -> None:
    """The booking is not committed yet when he is erased: then whoever comes second is refused."""
    site = world.tenant.sites[0]
    guest = new_guest(world, world.tenant, site)
    with psycopg.connect(world.database_url) as erasing, psycopg.connect(world.database_url) as booking:
        erasing.execute("update guests set first_name = '', last_name = '', erased_at = now() where id = %s", [guest])
        booking.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            booking.execute(
                "insert into bookings (organization_id, establishment_id, area_id, guest_id, check_in, check_out, free_from,"
                " confirmation_code) values (%s, %s, %s, %s, now(), now() + interval '1 d', now() + interval '1 d', 'CODE')",
                [world.tenant.id, site.id, site.area_id, guest],
            )
        booking.rollback()
        erasing.rollback()
    made = await a_booking(api, world.admin, site, guest)
    assert made["guest_id"] == str(guest)


async def test_nobody_books_on_for_a_guest_who_was_erased(api: Client, world: World) -> None:
    """With a booking that nobody had confirmed, and whose stay has passed."""
    site, who = world.tenant.sites[0], world.admin
    guest = new_guest(world, world.tenant, site)
    booking = new_booking(world, world.tenant, site, guest, days_ahead=-3)
    body = {**stay(), "special_requests": "a crib for Carmen Rojas"}
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update bookings set special_requests = 'a crib', metadata = '{\"for\": 1}'")
    await done(api, "POST", f"guests/{guest}/erase", who)
    assert (await refused(api, "PATCH", f"bookings/{booking}", who, body=body))[2]["field"] == "guest_id"
    for change in (
        "check_in = now(), check_out = now() + interval '1 d', free_from = now() + interval '1 d'",
        "special_requests = 'a crib'",
        "metadata = '{\"for\": 1}'",
    ):
        with psycopg.connect(world.database_url) as connection, pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(f"update bookings set {change}".encode())
    other = await a_guest(api, who, site)
    await done(api, "PATCH", f"bookings/{booking}", who, body={**stay(), "guest_id": str(other)})


async def test_who_does_not_see_guests_changes_their_bookings(api: Client, world: World) -> None:
    site = world.tenant.sites[0]
    booking = new_booking(world, world.tenant, site, new_guest(world, world.tenant, site))
    clerk = world.add_person_now(
        "clerk@example.org",
        world.add_role_now("clerk", ["read_booking", "update_booking"], organization_id=world.tenant.id),
        organization_id=world.tenant.id,
        sites=[site],
    )
    await done(api, "PATCH", f"bookings/{booking}", clerk, body=stay())
