"""What guests are told of their bookings, and in which words."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import Body, given
from hse.api.paging import Paged, filtered
from hse.domain.booking import booking_notifications as desk
from hse.domain.booking.notification_texts import EMAIL_CHARS_MAX, SUBJECT_CHARS_MAX, Language
from hse.domain.booking.notification_views import BookingNotification, NotificationPreview, NotificationTemplate
from hse.domain.booking.notifications import NotificationChannel, NotificationStatus, NotificationType
from hse.domain.paging import Page

Subject = Annotated[
    str, msgspec.Meta(min_length=1, max_length=SUBJECT_CHARS_MAX, examples=["See you in {{establishment_name}}"])
]
Message = Annotated[
    str, msgspec.Meta(min_length=1, max_length=EMAIL_CHARS_MAX, examples=["Hello {{guest_first_name}}!"])
]
OfType = Annotated[NotificationType | None, QueryParameter(name="type", description="Only those of it.")]


class NewNotificationTemplate(Body):
    """An organisation's own words for what guests are told on a channel, in a language."""

    organization_id: UUID
    type: NotificationType
    channel: NotificationChannel
    language: Language
    subject: Subject
    message: Message


class NotificationTemplateChange(Body):
    """What changes of them."""

    subject: Subject | UnsetType = UNSET
    message: Message | UnsetType = UNSET


class NotificationDraft(Body):
    """What is to be looked at; what is left out is taken from the built-in words."""

    type: NotificationType
    channel: NotificationChannel
    language: Language
    subject: Subject | None = None
    message: Message | None = None


@get("/bookings/{booking_id:uuid}/notifications")
async def list_notifications_of_booking(
    acting: Acts, booking_id: FromPath[UUID], page: Paged
) -> Page[BookingNotification]:
    """List what a booking's guest was told, is to be told, or could not be, the newest first.

    To whom it went and what it said is shown to who may read personal data there; door codes are shown to nobody here.
    """
    return await acting.read(lambda work: desk.notifications_of_booking(work, booking_id, page))


@get("/booking-notifications")
async def list_booking_notifications(
    acting: Acts,
    page: Paged,
    organization_id: FromQuery[UUID | None] = None,
    establishment_id: FromQuery[UUID | None] = None,
    booking_id: FromQuery[UUID | None] = None,
    status: FromQuery[NotificationStatus | None] = None,
    channel: FromQuery[NotificationChannel | None] = None,
) -> Page[BookingNotification]:
    """List the notifications that you may see, the newest first; also those of bookings that are gone."""
    filters = {
        "organization_id": organization_id,
        "establishment_id": establishment_id,
        "booking_id": booking_id,
        "status": status,
        "channel": channel,
    }
    return await acting.read(lambda work: desk.booking_notifications(work, filtered(page, **filters)))


@get("/booking-notifications/{notification_id:uuid}")
async def get_booking_notification(acting: Acts, notification_id: FromPath[UUID]) -> BookingNotification:
    """Read a notification."""
    return await acting.read(lambda work: desk.booking_notification(work, notification_id))


@post("/booking-notifications/{notification_id:uuid}/resend", status_code=200, opt={"refusals": (412,)})
async def resend_booking_notification(acting: Acts, notification_id: FromPath[UUID]) -> BookingNotification:
    """Have a notification that failed sent again. It is withdrawn instead when there is nothing more to say by now."""
    return await acting.run(lambda work: desk.resend_booking_notification(work, notification_id))


@get("/notification-templates")
async def list_notification_templates(
    acting: Acts,
    page: Paged,
    organization_id: FromQuery[UUID | None] = None,
    of_type: OfType = None,
    channel: FromQuery[NotificationChannel | None] = None,
    language: FromQuery[Language | None] = None,
) -> Page[NotificationTemplate]:
    """List the words of the organisations that you reach as a whole. What is not there is told in the built-in words."""
    filters = {"organization_id": organization_id, "type": of_type, "channel": channel, "language": language}
    return await acting.read(lambda work: desk.notification_templates(work, filtered(page, **filters)))


@post("/notification-templates")
async def create_notification_template(once: Acts, data: JSONBody[NewNotificationTemplate]) -> NotificationTemplate:
    """Have an organisation's guests told something in its own words.

    A placeholder looks like `{{guest_first_name}}`; a refusal of one that is unknown names those that there are. `{{door_codes}}`
    may stand in the message of `check_in_instructions`. There are no conditions and no HTML.
    """
    command = desk.CreateNotificationTemplate(**given(data))
    return await once.run(lambda work: desk.create_notification_template(work, command), status=201)


@post("/notification-templates/preview", status_code=200)
async def preview_notification(acting: Acts, data: JSONBody[NotificationDraft]) -> NotificationPreview:
    """Show what a guest would read, with sample data; nothing is kept."""
    command = desk.PreviewNotification(**given(data))
    return await acting.read(lambda work: desk.preview_notification(work, command))


@get("/notification-templates/{template_id:uuid}")
async def get_notification_template(acting: Acts, template_id: FromPath[UUID]) -> NotificationTemplate:
    """Read a template."""
    return await acting.read(lambda work: desk.notification_template(work, template_id))


@patch("/notification-templates/{template_id:uuid}")
async def change_notification_template(
    acting: Acts, template_id: FromPath[UUID], data: JSONBody[NotificationTemplateChange], version: Version
) -> NotificationTemplate:
    """Change the words of a template."""
    command = desk.ChangeNotificationTemplate(**given(data))
    return await acting.run(lambda work: desk.change_notification_template(work, template_id, command, version=version))


@delete("/notification-templates/{template_id:uuid}")
async def delete_notification_template(acting: Acts, template_id: FromPath[UUID]) -> None:
    """Have guests told it in the built-in words again."""
    await acting.run(lambda work: desk.delete_notification_template(work, template_id))


router = Router(
    path="/",
    tags=["notifications"],
    route_handlers=[
        list_notifications_of_booking,
        list_booking_notifications,
        get_booking_notification,
        resend_booking_notification,
        list_notification_templates,
        create_notification_template,
        preview_notification,
        get_notification_template,
        change_notification_template,
        delete_notification_template,
    ],
)
