"""How establishments take bookings: from the beginning, changed, and what that does to what is booked."""

import asyncio

import psycopg

from tests.api.bookings import DAY, HOUR, MINUTE, SOON, a_booking, a_guest, done, refused, stay
from tests.api.conftest import Client
from tests.api.world import World
from tests.conftest import wait_until

FROM_THE_BEGINNING = {
    "check_in_margin_minutes": 60,
    "check_out_margin_minutes": 30,
    "no_show_grace_minutes": None,
    "code_deadline_minutes": 60,
    "code_lead_hours": 24,
    "check_out_reminder_minutes": 120,
    "max_code_usages": None,
    "notification_channels": ["email"],
}


async def test_every_establishment_has_settings_from_the_beginning(api: Client, world: World) -> None:
    body = {"organization_id": str(world.tenant.id), "name": "New", "timezone": "UTC"}
    made = await done(api, "POST", "establishments", world.chief, body=body)
    for establishment, who in ((made["id"], world.chief), (str(world.tenant.sites[0].id), world.admin)):
        found = await done(api, "GET", f"establishments/{establishment}/booking-settings", who)
        assert {name: found[name] for name in FROM_THE_BEGINNING} == FROM_THE_BEGINNING
        assert (found["establishment_id"], found["version"]) == (establishment, 1)
    await done(api, "DELETE", f"establishments/{made['id']}", world.chief)


async def test_settings_are_changed_by_who_may_and_only_while_they_are_as_read(api: Client, world: World) -> None:
    path = f"establishments/{world.tenant.sites[0].id}/booking-settings"
    changed = await done(api, "PATCH", path, world.admin, body={"no_show_grace_minutes": 90, "max_code_usages": 5})
    assert (changed["no_show_grace_minutes"], changed["max_code_usages"], changed["version"]) == (90, 5, 2)
    headers = {**world.admin.headers, "If-Match": '"1"'}
    stale = await api.patch(f"/api/v1/{path}", headers=headers, json={"code_lead_hours": 2})
    assert stale.status_code == 412
    assert (await refused(api, "PATCH", path, world.admin, body={"check_in_margin_minutes": -1}))[0] == 422
    changed = await done(api, "PATCH", path, world.admin, body={"notification_channels": ["sms", "email"]})
    assert changed["notification_channels"] == ["sms", "email"]
    for wrong in (["email", "email"], ["pigeon"], None):
        assert (await refused(api, "PATCH", path, world.admin, body={"notification_channels": wrong}))[0] == 422
    assert (await refused(api, "PATCH", path, world.user, body={"code_lead_hours": 2}))[0] == 403
    assert (await refused(api, "PATCH", path, world.other_site_admin, body={"code_lead_hours": 2}))[0] == 404
    assert (await refused(api, "GET", path, world.other_site_admin))[0] == 404
    with psycopg.connect(world.database_url) as connection:
        (told,) = connection.execute(
            "select before->>'max_code_usages', after->>'max_code_usages' from audit_entries"
            " where action = 'booking_settings.update' and before->>'version' = '1'"
        ).fetchall()
    assert told == (None, "5")


async def test_longer_margins_hold_for_what_is_booked_as_far_as_the_next_stay_leaves_room(
    api: Client, world: World
) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    first = await a_booking(api, who, site, guest)
    near = await a_booking(api, who, site, guest, **stay(SOON + DAY + 90 * MINUTE))
    path = f"establishments/{site.id}/booking-settings"
    await done(api, "PATCH", path, who, body={"check_out_margin_minutes": 180})

    async def free_from(booking: dict[str, str]) -> str:
        return str((await done(api, "GET", f"bookings/{booking['id']}", who))["free_from"])

    assert await free_from(first) == near["check_in"]
    after = SOON + 2 * DAY + 90 * MINUTE
    assert await free_from(near) == (after + 3 * HOUR).isoformat().replace("+00:00", "Z")
    body = {"area_id": str(site.area_id), "guest_id": str(guest)}
    status, code, _ = await refused(api, "POST", "bookings", who, body={**body, **stay(after + 2 * HOUR)})
    assert (status, code) == (409, "booking.slot-taken")
    # Also before a stay: the margin is the new booking's own then.
    status, code, _ = await refused(api, "POST", "bookings", who, body={**body, **stay(SOON - DAY - 2 * HOUR)})
    assert (status, code) == (409, "booking.slot-taken")
    await done(api, "PATCH", path, who, body={"check_out_margin_minutes": 0, "check_in_margin_minutes": 0})
    assert await free_from(first) == first["check_out"]
    await done(api, "POST", "bookings", who, body={**body, **stay(after)})


async def test_who_books_in_the_same_moment_is_not_overrun_by_longer_margins(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    await a_booking(api, who, site, guest)
    path, body = f"establishments/{site.id}/booking-settings", {"check_in_margin_minutes": 120}
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    with psycopg.connect(world.database_url) as booking, psycopg.connect(world.database_url, autocommit=True) as seer:
        near = SOON + DAY + HOUR
        booking.execute(
            "insert into bookings (organization_id, establishment_id, area_id, guest_id, check_in, check_out, free_from,"
            " confirmation_code) values (%s, %s, %s, %s, %s, %s, %s, 'CODE')",
            [world.tenant.id, site.id, site.area_id, guest, near, near + DAY, near + DAY + HOUR],
        )
        changing = asyncio.create_task(refused(api, "PATCH", path, who, body=body))
        await asyncio.to_thread(wait_until, lambda: bool(seer.execute(waits).fetchall()), "the change waits")
        booking.commit()
        assert (await changing)[:2] == (409, "resource.contended")
    assert (await done(api, "PATCH", path, who, body=body))["check_in_margin_minutes"] == 120
