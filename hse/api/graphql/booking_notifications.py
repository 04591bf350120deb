"""What guests are told of their bookings, and in which words."""

from typing import Any

import strawberry

from hse.api.bodies import given
from hse.api.graphql.connections import connection, node_of, reference, single
from hse.api.graphql.context import Asked, context_of
from hse.api.graphql.entities import (
    BOOKING_NOTIFICATIONS,
    BOOKINGS,
    ESTABLISHMENTS,
    GUESTS,
    NOTIFICATION_TEMPLATES,
    ORGANIZATIONS,
)
from hse.api.graphql.mutations import acts, changes, creates
from hse.api.graphql.types import body_of, input_of, mirrors
from hse.api.rest import booking_notifications as bodies
from hse.domain.booking import booking_notifications as desk
from hse.domain.booking import notification_views as views


@mirrors(views.BookingNotification)
class BookingNotification:
    """Something that a guest was told."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    booking = reference(BOOKINGS, "booking_id")
    guest = reference(GUESTS, "guest_id")


@mirrors(views.NotificationTemplate)
class NotificationTemplate:
    """The words of an organisation."""

    organization = reference(ORGANIZATIONS, "organization_id")


@mirrors(views.NotificationPreview)
class NotificationPreview:
    """What a guest would read."""


async def resolve_preview_notification(info: Asked, input: Any) -> Any:  # noqa: A002 (the argument's name)
    """Show what a guest would read, with sample data."""
    context = context_of(info)
    command = desk.PreviewNotification(**given(body_of(bodies.NotificationDraft, input)))
    async with context.connections:
        return await context.acting.read(lambda work: desk.preview_notification(work, command))


resolve_preview_notification.__annotations__["input"] = input_of(bodies.NotificationDraft)


@strawberry.type
class NotificationsQuery:
    """What may be read of notifications."""

    booking_notification = single(BOOKING_NOTIFICATIONS, desk.booking_notification)
    booking_notifications = connection(BOOKING_NOTIFICATIONS)
    notification_template = single(NOTIFICATION_TEMPLATES, desk.notification_template)
    notification_templates = connection(NOTIFICATION_TEMPLATES)
    notification_preview = strawberry.field(
        resolver=resolve_preview_notification,
        graphql_type=NotificationPreview | None,
        description="What a guest would read, with sample data.",
    )


@strawberry.type
class NotificationsMutation:
    """What may be done with notifications."""

    resend_booking_notification = acts(desk.resend_booking_notification, node_of(BOOKING_NOTIFICATIONS))
    create_notification_template = creates(
        NOTIFICATION_TEMPLATES,
        bodies.NewNotificationTemplate,
        desk.CreateNotificationTemplate,
        desk.create_notification_template,
    )
    change_notification_template = changes(
        NOTIFICATION_TEMPLATES,
        bodies.NotificationTemplateChange,
        desk.ChangeNotificationTemplate,
        desk.change_notification_template,
    )
    delete_notification_template = acts(desk.delete_notification_template)
