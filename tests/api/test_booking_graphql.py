"""Bookings over GraphQL: the same as over REST, what leads where, and a calendar that is followed."""

import json
from typing import Any

import psycopg
import pytest
from litestar import Litestar

from hse.api.booking_watches import BOOKINGS_WAITING_MAX, BookingWatches
from tests.api.booked import new_booking, new_guest
from tests.api.bookings import DAY, SOON, a_booking, a_guest, done, stay
from tests.api.conftest import Client
from tests.api.graphql import Socket, data, nodes, refusal
from tests.api.test_guests import CARMEN, TRACES, clerk
from tests.api.world import Person, World
from tests.faults.conditions import until

FOLLOW = """subscription ($site: UUID!, $area: UUID) {
  calendar(establishmentId: $site, areaId: $area) {
    changed { id status area { name } guest { firstName lastName } } goneIds hasMissedSome ended
  }
}"""


FROM_ALL_SIDES = """query($id: UUID!, $area: UUID!, $site: UUID!, $since: DateTime!, $until: DateTime!) {
  booking(id: $id) { status }
  bookings(establishmentId: $site, since: $since, until: $until) { totalCount edges { node { id } } }
  bookingHistory(id: $id) { edges { node { action changed user { email } } } }
  area(id: $area) { bookings { edges { node { id } } } }
  guests(search: "rojas") { edges { node { bookings { edges { node { id } } } } } }
}"""


async def test_a_booking_is_made_and_looked_at_from_all_sides(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await data(
        api,
        who,
        "mutation($input: NewGuest!) { createGuest(input: $input) { id firstName isMasked } }",
        input={"firstName": "Carmen", "lastName": "Rojas", "establishmentId": str(site.id)},
    )
    made = await data(
        api,
        who,
        """mutation($input: NewBooking!) { createBooking(input: $input) {
          id status area { name } guest { firstName } establishment { name } organization { name } } }""",
        input={
            "areaId": str(site.area_id),
            "guestId": guest["createGuest"]["id"],
            "checkIn": stay()["check_in"],
            "checkOut": stay()["check_out"],
        },
    )
    booking = made["createBooking"]
    assert (booking["status"], booking["area"]["name"], booking["guest"]["firstName"]) == ("pending", "Hall", "Carmen")
    given = {"id": booking["id"]}
    acts = "mutation($id: UUID!) { confirmBooking(id: $id) { status } changeBooking(id: $id, input: {numGuests: 4}) { version } }"
    acted = await data(api, who, acts, **given)
    assert acted == {"confirmBooking": {"status": "confirmed"}, "changeBooking": {"version": 3}}
    cancel = 'mutation($id: UUID!) { cancelBooking(id: $id, input: {reason: "Ill"}) { status cancellationReason } }'
    assert (await data(api, who, cancel, **given))["cancelBooking"]["cancellationReason"] == "Ill"
    looked = await data(
        api,
        who,
        FROM_ALL_SIDES,
        **given,
        area=str(site.area_id),
        site=str(site.id),
        since=SOON.isoformat(),
        until=(SOON + DAY).isoformat(),
    )
    assert looked["bookings"] == {"totalCount": 1, "edges": [{"node": given}]}
    assert [one["action"] for one in nodes(looked["bookingHistory"])] == [
        "created",
        "confirmed",
        "changed",
        "cancelled",
    ]
    assert nodes(looked["area"]["bookings"]) == [given]
    assert nodes(nodes(looked["guests"])[0]["bookings"]) == [given]


async def test_a_slot_that_is_taken_is_refused_with_the_stay_that_is_in_the_way(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    guest = await a_guest(api, who, site)
    made = await a_booking(api, who, site, guest)
    mutation = "mutation($input: NewBooking!) { createBooking(input: $input) { id } }"
    wanted = {"areaId": str(site.area_id), "guestId": str(guest)}
    period = {"checkIn": stay()["check_in"], "checkOut": stay()["check_out"]}
    told = await refusal(api, who, mutation, "booking.slot-taken", input={**wanted, **period})
    assert told["checkIn"].replace("+00:00", "Z") == made["check_in"]


async def test_guests_whom_a_booking_leads_to_are_masked_as_everywhere(api: Client, world: World) -> None:
    site = world.tenant.sites[0]
    guest = await a_guest(api, world.admin, site, **CARMEN)
    booked = await a_booking(api, world.admin, site, guest)
    person = clerk(world, "porter", ["read_guest", "read_booking"])
    query = """{
      bookings { edges { node { id guest { firstName lastName email documentNumber metadata isMasked } } } }
      guests { edges { node { firstName email phone } } }
      found: guests(search: "Rojas") { totalCount edges { node { id } } }
      ordered: guests(sort: "last_name") { edges { cursor node { id } } }
    }"""
    shown = await data(api, person, query)
    assert [one["id"] for one in nodes(shown["bookings"])] == [booked["id"]]
    assert nodes(shown["bookings"])[0]["guest"] == {
        "firstName": "C.",
        "lastName": "R.",
        "email": None,
        "documentNumber": None,
        "metadata": {},
        "isMasked": True,
    }
    assert shown["found"] == {"totalCount": 0, "edges": []}
    assert shown["ordered"] == {"edges": []}
    assert [trace for trace in TRACES if trace in json.dumps(shown)] == []


async def test_companions_settings_calendars_and_what_is_free_are_there_too(api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    one, other = await a_guest(api, who, site), await a_guest(api, who, site)
    ids = {"one": str(one), "other": str(other), "site": str(site.id), "area": str(site.area_id)}
    done_ = await data(
        api,
        who,
        """mutation($one: UUID!, $other: UUID!, $site: UUID!, $area: UUID!) {
          addCompanion(id: $one, companionId: $other, relationship: "child") { relationship companion { firstName } }
          changeBookingSettings(id: $site, input: {noShowGraceMinutes: 30}, version: 1) { noShowGraceMinutes }
          issueBookingCalendar(id: $area) { path token }
          exportGuest(id: $one) { guest { lastName } companions { companionId } bookings { id } }
          eraseGuest(id: $other) { firstName erasedAt }
        }""",
        **ids,
    )
    assert done_["addCompanion"] == {"relationship": "child", "companion": {"firstName": "Carmen"}}
    assert done_["changeBookingSettings"] == {"noShowGraceMinutes": 30}
    assert (await api.get(done_["issueBookingCalendar"]["path"])).status_code == 200
    assert done_["exportGuest"]["companions"] == [{"companionId": str(other)}]
    assert done_["eraseGuest"]["firstName"] == ""
    read = await data(
        api,
        who,
        """query($one: UUID!, $site: UUID!, $area: UUID!, $since: DateTime!, $until: DateTime!) {
          guestCompanions(id: $one) { companionId }
          bookingSettings(id: $site) { noShowGraceMinutes checkInMarginMinutes }
          bookingCalendar(id: $area) { createdBy }
          areaAvailability(id: $area, since: $since, until: $until) { timezone free { since until } }
          establishmentAvailability(id: $site, since: $since, until: $until, first: 2) {
            edges { node { areaName free { since } } } }
          areaNights(id: $area, first: "2028-02-28", nights: 2) { nights { date checkIn isFree } }
        }""",
        **{name: value for name, value in ids.items() if name != "other"},
        since=SOON.isoformat(),
        until=(SOON + DAY).isoformat(),
    )
    assert read["guestCompanions"] == []
    assert read["bookingSettings"] == {"noShowGraceMinutes": 30, "checkInMarginMinutes": 60}
    assert len(read["areaAvailability"]["free"]) == 1
    assert [one["areaName"] for one in nodes(read["establishmentAvailability"])] == ["Hall"]
    assert [night["date"] for night in read["areaNights"]["nights"]] == ["2028-02-28", "2028-02-29"]


# --- a calendar that is followed ---


async def followed(app: Litestar, person: Person, **variables: Any) -> Socket:
    """A socket of somebody who follows a calendar, and was told to read it."""
    socket = Socket(app, person.headers)
    assert (await socket.open())["type"] == "websocket.accept"
    assert (await socket.say(type="connection_init"))["type"] == "connection_ack"
    await socket.send(id="calendar", type="subscribe", payload={"query": FOLLOW, "variables": variables})
    assert (await told(socket))["hasMissedSome"]
    return socket


async def told(socket: Socket) -> dict[str, Any]:
    """What comes next."""
    message = await socket.hear()
    assert message["type"] == "next", message
    assert "errors" not in message["payload"], message
    found: dict[str, Any] = message["payload"]["data"]["calendar"]
    return found


async def changed(socket: Socket) -> dict[str, Any]:
    """What comes next and says something, beside that the listener has just connected."""
    while (batch := await told(socket))["hasMissedSome"] and not batch["changed"] and not batch["goneIds"]:
        pass
    return batch


def watches_of(app: Litestar) -> BookingWatches:
    watches: BookingWatches = app.state.booking_watches
    return watches


async def test_a_follower_is_told_what_changes_where_he_looks_and_nothing_of_elsewhere(
    app: Litestar, api: Client, world: World
) -> None:
    (site, second), who = world.tenant.sites, world.chief
    guest = await a_guest(api, who, site)
    socket = await followed(app, who, site=str(site.id))
    await a_booking(api, who, second, guest)
    new_booking(world, world.other_tenant, world.other_tenant.sites[0], new_guest(world, world.other_tenant))
    made = await a_booking(api, who, site, guest)
    batch = await changed(socket)
    assert [(one["id"], one["status"], one["area"]["name"]) for one in batch["changed"]] == [
        (made["id"], "pending", "Hall")
    ]
    await done(api, "POST", f"bookings/{made['id']}/confirm", who)
    assert [one["status"] for one in (await changed(socket))["changed"]] == ["confirmed"]
    # As the worker does at check-in.
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update bookings set status = 'in-progress' where id = %s", [made["id"]])
    assert [one["status"] for one in (await changed(socket))["changed"]] == ["in-progress"]
    other = await a_booking(api, who, site, guest, **stay(SOON + 5 * DAY))
    await changed(socket)
    await done(api, "DELETE", f"bookings/{other['id']}", who)
    batch = await changed(socket)
    assert (batch["changed"], batch["goneIds"]) == ([], [other["id"]])
    await socket.close()
    await until(lambda: len(watches_of(app)) == 0, "the follower is forgotten")


async def test_a_booking_that_is_moved_away_is_gone_there(app: Litestar, api: Client, world: World) -> None:
    site, who = world.tenant.sites[0], world.admin
    body = {"establishment_id": str(site.id), "name": "Attic", "type": "room"}
    attic = await done(api, "POST", "areas", who, body=body)
    made = await a_booking(api, who, site, await a_guest(api, who, site))
    socket = await followed(app, who, site=str(site.id), area=str(site.area_id))
    await done(api, "PATCH", f"bookings/{made['id']}", who, body={"area_id": attic["id"]})
    batch = await changed(socket)
    assert (batch["changed"], batch["goneIds"]) == ([], [made["id"]])
    await socket.close()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("update sessions set revoked_at = now() where user_id = %s", "session-ended"),
        ("delete from user_establishments where user_id = %s", "forbidden"),
    ],
)
async def test_a_follower_who_may_not_any_more_is_told_so_and_nothing_else(
    statement: str, reason: str, app: Litestar, api: Client, world: World
) -> None:
    site = world.tenant.sites[0]
    guest = await a_guest(api, world.chief, site)
    socket = await followed(app, world.admin, site=str(site.id))
    with psycopg.connect(world.database_url) as connection:
        connection.execute(statement.encode(), [world.admin.id])
    await a_booking(api, world.chief, site, guest)
    while (batch := await told(socket))["ended"] is None:
        assert batch["changed"] == []
    assert (batch["ended"], batch["changed"]) == (reason, [])
    assert (await socket.hear())["type"] == "complete"
    await socket.close()


async def test_who_loses_the_permission_for_guests_is_not_shown_them(app: Litestar, api: Client, world: World) -> None:
    site = world.tenant.sites[0]
    guest = await a_guest(api, world.chief, site, **CARMEN)
    person = clerk(
        world, "desk", ["read_booking", "read_establishment", "read_area", "read_guest", "read_guest_personal_data"]
    )
    socket = await followed(app, person, site=str(site.id))
    made = await a_booking(api, world.chief, site, guest)
    assert (await changed(socket))["changed"][0]["guest"] == {"firstName": "Carmencita", "lastName": "Rojasmendoza"}
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "delete from permissions where action_name = 'read_guest_personal_data' and role_id in"
            " (select id from roles where name = 'desk')"
        )
    await done(api, "POST", f"bookings/{made['id']}/confirm", world.chief)
    assert (await changed(socket))["changed"][0]["guest"] == {"firstName": "C.", "lastName": "R."}
    await socket.close()


async def test_what_one_may_not_see_is_not_followed(app: Litestar, world: World) -> None:
    first, second = world.tenant.sites
    for person, site, area, code in (
        (world.admin, second.id, None, "resource.not-found"),
        (world.other_chief, first.id, None, "resource.not-found"),
        (world.admin, first.id, second.area_id, "resource.not-found"),
        (world.user, first.id, None, "permission.missing"),
    ):
        socket = Socket(app, person.headers)
        await socket.open()
        await socket.say(type="connection_init")
        variables = {"site": str(site), "area": None if area is None else str(area)}
        message = await socket.say(id="x", type="subscribe", payload={"query": FOLLOW, "variables": variables})
        errors = message["payload"]["errors"] if message["type"] == "next" else message["payload"]
        assert errors[0]["extensions"]["code"] == code
        await socket.close()
    assert len(watches_of(app)) == 0


async def test_a_follower_who_does_not_read_holds_no_more_than_so_much(
    app: Litestar, api: Client, world: World
) -> None:
    site = world.tenant.sites[0]
    socket = await followed(app, world.admin, site=str(site.id))
    watches = watches_of(app)
    payload = f"{world.tenant.id} {site.id} {site.area_id}"
    for number in range(BOOKINGS_WAITING_MAX + 10):
        watches.hear(f"{payload} 00000000-0000-0000-0000-{number:012}")
    (watch,) = watches._watches
    assert len(watch.waiting) <= BOOKINGS_WAITING_MAX
    while not (await told(socket))["hasMissedSome"]:
        pass
    watches.hear("what a newer database says")
    assert (await api.get("/health/liveness")).status_code in (200, 404)
    await socket.close()
