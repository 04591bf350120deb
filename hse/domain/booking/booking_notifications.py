"""What may be done with notifications and their templates. What guests are told, and when, is in `notifications`."""

from dataclasses import dataclass, replace
from typing import ClassVar, Final, Protocol
from uuid import UUID

from hse.domain.booking.model import Booking
from hse.domain.booking.notification_texts import SAMPLE_VALUES, Language, Text, built_in, check_text, rendered
from hse.domain.booking.notification_views import BookingNotification, NotificationPreview, NotificationTemplate
from hse.domain.booking.notifications import NotificationChannel, NotificationStatus, NotificationType
from hse.domain.booking.ports import Owner
from hse.domain.errors import DomainError, ErrorKind, Forbidden
from hse.domain.paging import Page, PageQuery
from hse.domain.work import UNCHANGED, Finds, Lists, Store, Unchanged, Work, changes_of, seen, values_of, within_act

SEE_NOTIFICATIONS: Final = "read_booking"
RESEND_NOTIFICATIONS: Final = "resend_booking_notification"
SEE_TEMPLATES: Final = "read_notification_template"
MANAGE_TEMPLATES: Final = "manage_notification_template"


class BookingNotificationStore(Finds[BookingNotification], Lists[BookingNotification], Protocol):
    """The notifications; whom they went to and what they said only where the actor may read personal data."""

    async def resend(self, before: BookingNotification) -> BookingNotification:
        """Have it sent again at once. Raises `Stale`."""


class NotificationsWork(Work, Protocol):
    """A transaction with what is needed here."""

    @property
    def bookings(self) -> Finds[Booking]:
        """The bookings."""

    @property
    def organizations(self) -> Finds[Owner]:
        """The organisations."""

    @property
    def booking_notifications(self) -> BookingNotificationStore:
        """The notifications."""

    @property
    def notification_templates(self) -> Store[NotificationTemplate]:
        """The templates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateNotificationTemplate:
    """An organisation's own words."""

    organization_id: UUID
    type: NotificationType
    channel: NotificationChannel
    language: Language
    subject: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeNotificationTemplate:
    """What changes of them."""

    subject: str | Unchanged = UNCHANGED
    message: str | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewNotification:
    """What is to be looked at; what is None is taken from the built-in words."""

    type: NotificationType
    channel: NotificationChannel
    language: Language
    subject: str | None = None
    message: str | None = None


class NotificationNotFailed(DomainError):
    """Only a notification that could not be sent is sent again, and not one that was withdrawn."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "booking-notifications.not-failed"

    def __init__(self, status: NotificationStatus, *, is_withdrawn: bool) -> None:
        told = "was withdrawn, as there was nothing more to say" if is_withdrawn else f"is {status}"
        super().__init__(f"this notification {told}: only one that could not be sent is sent again")
        self.notification_status = status
        self.is_withdrawn = is_withdrawn


async def notifications_of_booking(
    work: NotificationsWork, booking_id: UUID, query: PageQuery
) -> Page[BookingNotification]:
    """A page of what a booking's guest was told. Raises `NotFound`, `Forbidden`, `Invalid`."""
    booking = await within_act(work, work.bookings, booking_id, see=SEE_NOTIFICATIONS, act=SEE_NOTIFICATIONS)
    return await booking_notifications(work, replace(query, filters={**query.filters, "booking_id": booking.id}))


async def booking_notifications(work: NotificationsWork, query: PageQuery) -> Page[BookingNotification]:
    """A page of the notifications. Raises `Forbidden`, `Invalid`."""
    return await work.booking_notifications.page(work.actor.require(SEE_NOTIFICATIONS), query)


async def booking_notification(work: NotificationsWork, notification_id: UUID) -> BookingNotification:
    """One notification. Raises `Forbidden`, `NotFound`."""
    return await seen(work.booking_notifications, work.actor.require(SEE_NOTIFICATIONS), notification_id)


async def resend_booking_notification(work: NotificationsWork, notification_id: UUID) -> BookingNotification:
    """Have a notification that failed sent again, if there is still something to say. Raises `NotFound`, `Forbidden`, `Stale`,
    `NotificationNotFailed`.
    """
    before = await within_act(
        work, work.booking_notifications, notification_id, see=SEE_NOTIFICATIONS, act=RESEND_NOTIFICATIONS
    )
    if before.status != "failed" or before.is_withdrawn:
        raise NotificationNotFailed(before.status, is_withdrawn=before.is_withdrawn)
    return await work.booking_notifications.resend(before)


async def notification_templates(work: NotificationsWork, query: PageQuery) -> Page[NotificationTemplate]:
    """A page of the templates. Raises `Forbidden`, `Invalid`."""
    return await work.notification_templates.page(work.actor.require(SEE_TEMPLATES), query)


async def notification_template(work: NotificationsWork, template_id: UUID) -> NotificationTemplate:
    """One template. Raises `Forbidden`, `NotFound`."""
    return await seen(work.notification_templates, work.actor.require(SEE_TEMPLATES), template_id)


async def create_notification_template(
    work: NotificationsWork, command: CreateNotificationTemplate
) -> NotificationTemplate:
    """Have an organisation's guests told something in its own words. Raises `NotFound`, `Forbidden`, `Invalid`, `Taken`."""
    owner = await seen(work.organizations, work.actor.reach("read_organization"), command.organization_id)
    if not work.actor.reach(MANAGE_TEMPLATES).has_site(owner.id, None):
        raise Forbidden(MANAGE_TEMPLATES)
    check_text(Text(subject=command.subject, message=command.message), command.type, command.channel)
    return await work.notification_templates.add(values_of(command))


async def change_notification_template(
    work: NotificationsWork, template_id: UUID, command: ChangeNotificationTemplate, *, version: int | None = None
) -> NotificationTemplate:
    """Change the words of a template. Raises `NotFound`, `Forbidden`, `Invalid`, `Stale`."""
    before = await _managed(work, template_id)
    changes = changes_of(command)
    text = Text(**{"subject": before.subject, "message": before.message, **changes})
    check_text(text, before.type, before.channel)
    return await work.notification_templates.change(before, changes, version=version)


async def delete_notification_template(work: NotificationsWork, template_id: UUID) -> None:
    """Have guests told it in the built-in words again. Raises `NotFound`, `Forbidden`."""
    await work.notification_templates.remove(await _managed(work, template_id))


async def preview_notification(work: NotificationsWork, command: PreviewNotification) -> NotificationPreview:
    """Show what a guest would read, with sample data. Raises `Forbidden`, `Invalid`."""
    work.actor.require(SEE_TEMPLATES)
    usual = built_in(command.type, command.channel, command.language)
    text = Text(
        subject=usual.subject if command.subject is None else command.subject,
        message=usual.message if command.message is None else command.message,
    )
    check_text(text, command.type, command.channel)
    shown = rendered(text, SAMPLE_VALUES[command.language])
    return NotificationPreview(subject=shown.subject, message=shown.message)


async def _managed(work: NotificationsWork, template_id: UUID) -> NotificationTemplate:
    return await within_act(work, work.notification_templates, template_id, see=SEE_TEMPLATES, act=MANAGE_TEMPLATES)
