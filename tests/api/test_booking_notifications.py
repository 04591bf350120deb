"""Notifications and their templates as people see them: masked, sent again, written, looked at; over both skins."""

from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.notification_tables import booking_notifications, notification_templates
from tests.api.booked import new_booking, new_guest, new_notification, new_template
from tests.api.bookings import done, refused
from tests.api.conftest import Client
from tests.api.graphql import data
from tests.api.test_booking_isolation import database
from tests.api.test_door_codes import audited, clerk
from tests.api.test_isolation import as_person
from tests.api.world import World

__all__ = ["database"]

DRAFT = {"type": "booking_confirmed", "channel": "email", "language": "en"}


@pytest.fixture
def booking_id(world: World) -> UUID:
    """A booking."""
    site = world.tenant.sites[0]
    return new_booking(world, world.tenant, site, new_guest(world, world.tenant, site))


def a_notification(world: World, booking_id: UUID, **more: Any) -> UUID:
    """One that could not be sent."""
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute("select guest_id from bookings where id = %s", [booking_id]).fetchone()
    assert row is not None
    return new_notification(world, world.tenant, world.tenant.sites[0], booking_id, row[0], **more)


async def test_whom_it_went_to_and_what_it_said_is_shown_to_who_may_read_personal_data(
    api: Client, world: World, booking_id: UUID
) -> None:
    notification_id = a_notification(world, booking_id)
    seer, reader = clerk(world, "read_booking"), clerk(world, "read_booking", "read_guest_personal_data")
    said = ("carmen@example.com", "Tu reserva", "Hola, Carmen: ••")
    for person, shown in ((world.admin, said), (reader, said), (seer, (None, None, None))):
        (listed,) = (await done(api, "GET", f"bookings/{booking_id}/notifications", person))["items"]
        assert (listed["recipient"], listed["subject"], listed["message"]) == shown
        assert (listed["type"], listed["status"], listed["reason"]) == ("booking_created", "failed", "away")
        assert await done(api, "GET", f"booking-notifications/{notification_id}", person) == listed
        assert (await done(api, "GET", "booking-notifications", person, status="failed"))["items"] == [listed]
        assert (await done(api, "GET", "booking-notifications", person, channel="sms"))["items"] == []
        nested = "query($id: UUID!) { booking(id: $id) { notifications { edges { node { recipient message } } } } }"
        (edge,) = (await data(api, person, nested, id=str(booking_id)))["booking"]["notifications"]["edges"]
        assert (edge["node"]["recipient"], edge["node"]["message"]) == (shown[0], shown[2])
    for person in (world.other_site_admin, world.other_partner):
        assert (await refused(api, "GET", f"booking-notifications/{notification_id}", person))[0] == 404
        assert (await refused(api, "GET", f"bookings/{booking_id}/notifications", person))[0] == 404
        assert (await done(api, "GET", "booking-notifications", person))["items"] == []


async def test_a_failed_one_is_sent_again_by_who_may_and_no_other(api: Client, world: World, booking_id: UUID) -> None:
    notification_id = a_notification(world, booking_id)
    with psycopg.connect(world.database_url) as connection:
        connection.execute("delete from booking_queue")
    path = f"booking-notifications/{notification_id}/resend"
    assert (await refused(api, "POST", path, clerk(world, "read_booking", "read_guest_personal_data")))[0] == 403
    again = await done(api, "POST", path, world.admin)
    assert (again["status"], again["reason"]) == ("pending", None)
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select booking_id from booking_queue").fetchall() == [(booking_id,)]
        kept = connection.execute("select num_tries, num_attempts from booking_notifications").fetchall()
    assert kept == [(0, 8)]
    assert (await refused(api, "POST", path, world.admin))[:2] == (409, "booking-notifications.not-failed")
    withdrawn = a_notification(world, booking_id, type="booking_confirmed", is_withdrawn=True)
    path = f"booking-notifications/{withdrawn}/resend"
    assert (await refused(api, "POST", path, world.admin))[:2] == (409, "booking-notifications.not-failed")
    ((before, after),) = audited(world, "booking_notification.resend")
    assert (before["status"], after["status"]) == ("failed", "pending")
    for side in (before, after):
        assert (side["recipient"], side["subject"], side["message"]) == (None, None, None)


async def test_templates_are_written_changed_while_they_are_as_read_and_deleted(api: Client, world: World) -> None:
    body = {**DRAFT, "organization_id": str(world.tenant.id), "subject": "See you", "message": "Hi {{area_name}}"}
    made = await done(api, "POST", "notification-templates", world.chief, body=body)
    assert {name: made[name] for name in body} == body
    path = f"notification-templates/{made['id']}"
    assert (await refused(api, "POST", "notification-templates", world.chief, body=body))[:2] == (409, "resource.taken")
    headers = {**world.chief.headers, "If-Match": '"7"'}
    assert (await api.patch(f"/api/v1/{path}", headers=headers, json={"subject": "Bye"})).status_code == 412
    headers["If-Match"] = '"1"'
    changed = await api.patch(f"/api/v1/{path}", headers=headers, json={"subject": "Bye"})
    assert (changed.json()["subject"], changed.headers["etag"]) == ("Bye", '"2"')
    assert (await done(api, "GET", "notification-templates", world.chief, language="en"))["items"] == [changed.json()]
    assert (await done(api, "GET", "notification-templates", world.chief, language="es"))["items"] == []
    for person in (world.admin, world.other_partner):
        assert (await refused(api, "GET", path, person))[0] == 404, "who does not reach the organisation as a whole"
    await done(api, "DELETE", path, world.chief)
    assert (await refused(api, "GET", path, world.chief))[0] == 404
    with psycopg.connect(world.database_url) as connection:
        actions = connection.execute(
            "select action from audit_entries where entity_type = 'notification_template' order by id"
        ).fetchall()
    assert [action for (action,) in actions] == [
        f"notification_template.{one}" for one in ("create", "update", "delete")
    ]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"message": "Hi {{guest_shoe_size}}"}, "message"),
        ({"message": "Hi {{door_codes}}"}, "message"),
        ({"message": "Hi {{ guest_first_name | upper }}"}, "message"),
        ({"message": "Hi {{guest_first_name.__class__}}"}, "message"),
        ({"message": "{% for x in y %}{{area_name"}, "message"),
        ({"subject": "{{door_codes}}", "type": "check_in_instructions"}, "subject"),
        ({"subject": "two\nlines"}, "subject"),
        ({"message": "x" * 641, "channel": "sms"}, "message"),
    ],
)
async def test_a_template_that_says_what_cannot_be_is_refused(
    api: Client, world: World, wrong: dict[str, str], field: str
) -> None:
    body = {**DRAFT, "subject": "See you", "message": "Hi", **wrong}
    created = {**body, "organization_id": str(world.tenant.id)}
    for path, sent in (("notification-templates", created), ("notification-templates/preview", body)):
        answer = await api.post(f"/api/v1/{path}", headers=world.chief.headers, json=sent)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
    known = new_template(world, world.tenant, type=body["type"], channel=body["channel"])
    path = f"notification-templates/{known}"
    assert (await refused(api, "PATCH", path, world.chief, body={field: body[field]}))[0] == 422


async def test_a_preview_is_what_a_guest_would_read_with_sample_data(api: Client, world: World) -> None:
    asked = {
        **DRAFT,
        "type": "check_in_instructions",
        "message": "{{guest_first_name}}: {{door_codes}} ({{time_zone}})",
    }
    seen = await done(api, "POST", "notification-templates/preview", world.chief, body=asked)
    assert seen == {
        "subject": "Your access to Hotel Costanera",
        "message": "Carmen: Front door: 000000\nRoom 204: 000000 (Chile Time)",
    }
    query = "query($of: NotificationDraft!) { notificationPreview(input: $of) { subject message } }"
    for language in ("es", "en"):
        usual = {**DRAFT, "language": language}
        over_rest = await done(api, "POST", "notification-templates/preview", world.chief, body=usual)
        assert "{{" not in over_rest["message"]
        assert (await data(api, world.chief, query, of=usual))["notificationPreview"] == over_rest


async def test_the_database_itself_hides_what_is_out_of_reach(
    database: Database, world: World, booking_id: UUID
) -> None:
    a_notification(world, booking_id)
    new_template(world, world.tenant)
    counts = [sa.select(sa.func.count()).select_from(one) for one in (booking_notifications, notification_templates)]
    for person, expected in ((world.chief, [1, 1]), (world.admin, [1, 0]), (world.other_partner, [0, 0])):
        async with as_person(database, person) as asking:
            found = [(await asking.execute(count)).scalar_one() for count in counts]
        assert found == expected
    for statement in (
        "update booking_notifications set recipient = 'me@example.com'",
        "update booking_notifications set is_withdrawn = false",
        "delete from booking_notifications",
        "update notification_templates set organization_id = gen_random_uuid()",
    ):
        async with as_person(database, world.root) as asking:
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                await asking.execute(sa.text(statement))
