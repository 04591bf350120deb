"""Notifications and their templates as people see them. What becomes of them is the worker's (`notification_sending`)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

import msgspec
import sqlalchemy as sa

from hse.adapters.postgres.notification_sending import Content
from hse.adapters.postgres.notification_tables import booking_notifications, notification_templates
from hse.adapters.postgres.reach import SiteScope, WholeScope
from hse.adapters.postgres.stores import ActorTransaction, TableStore
from hse.domain.booking.notification_views import BookingNotification, NotificationTemplate
from hse.domain.booking.views import SEE_PERSONAL_DATA
from hse.domain.errors import Stale

notification = booking_notifications.c


class BookingNotifications(TableStore[BookingNotification]):
    """The notifications. Whom they went to and what they said is shown to who may read personal data there."""

    entity = "booking_notification"
    table = booking_notifications
    view = BookingNotification
    scope = SiteScope(notification.organization_id, notification.establishment_id)
    sorts = ("created_at", "updated_at")
    default_sort = "-created_at"
    searched = ("type", "status")
    computed: ClassVar[Mapping[str, sa.ColumnElement[Any]]] = {
        "subject": sa.null(),
        "message": notification.sealed_content,
    }

    def __init__(self, transaction: ActorTransaction) -> None:
        super().__init__(transaction)
        self._personal = transaction.actor.reach(SEE_PERSONAL_DATA)
        self._sealer = cast("Any", transaction).sealer

    async def resend(self, before: BookingNotification) -> BookingNotification:
        """Have it sent again at once. Raises `Stale`."""
        again = {"status": "pending", "reason": None, "num_tries": 0, "next_attempt_at": sa.func.now()}
        where = (notification.id == before.id, notification.version == before.version)
        statement = sa.update(booking_notifications).where(*where).values(again).returning(*self.columns())
        row = (await self._execute(statement)).one_or_none()
        if row is None:
            raise Stale(self.entity)
        after = self._view(row)
        await self._record("resend", before, after)
        return after

    def _view(self, row: sa.Row[Any]) -> BookingNotification:
        kept = super()._view(row)
        sealed = cast("bytes | None", kept.message)
        if not kept.is_within(self._personal):
            return replace(kept, recipient=None, subject=None, message=None)
        if sealed is None:
            return kept
        content = msgspec.json.decode(self._sealer.unseal(sealed), type=Content)
        return replace(kept, subject=content.subject, message=content.message)

    async def _record(self, verb: str, before: BookingNotification | None, after: BookingNotification | None) -> None:
        shown = [
            None if view is None else replace(view, recipient=None, subject=None, message=None)
            for view in (before, after)
        ]
        await super()._record(verb, *shown)


class NotificationTemplates(TableStore[NotificationTemplate]):
    """The words of organisations."""

    entity = "notification_template"
    table = notification_templates
    view = NotificationTemplate
    scope = WholeScope(notification_templates.c.organization_id)
    sorts = ("type", "created_at", "updated_at")
    searched = ("type", "subject", "message")
    constraints: ClassVar[Mapping[str, str]] = {"notification_templates_type": "type, channel and language"}
