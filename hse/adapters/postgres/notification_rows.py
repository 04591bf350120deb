"""Rows of bookings, door codes and notifications, and what they say in the domain's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.booking_tables import booking_settings, bookings
from hse.adapters.postgres.door_code_tables import door_lock_codes
from hse.adapters.postgres.notification_tables import booking_notifications
from hse.domain.booking.model import Stay
from hse.domain.booking.notifications import BookingNow, NotificationChannel, Queued, Terms, fingerprint_of

ON_LOCK = ("set", "active")
GOING = ("revoking", "revoked")

code = door_lock_codes.c
notification = booking_notifications.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A booking with what notifications of it go by. `codes` are the rows of those door codes that its guest may be told."""

    row: sa.Row[Any]
    now: BookingNow
    codes: Sequence[sa.Row[Any]]
    codes_late_at: datetime | None

    @property
    def channels(self) -> list[NotificationChannel]:
        """On which the establishment tells its guests things."""
        return [*self.row.notification_channels]


def booking_told_of(
    connection: sa.Connection, booking_id: UUID, now: datetime, *, is_locked: bool = False
) -> Told | None:
    """A booking as it is; None when it is deleted. With `is_locked` it stays so until the transaction ends."""
    settings = booking_settings.c
    statement = (
        sa.select(
            *bookings.c,
            settings.code_deadline_minutes,
            settings.check_out_reminder_minutes,
            settings.notification_channels,
        )
        .join(booking_settings, settings.establishment_id == bookings.c.establishment_id)
        .where(bookings.c.id == booking_id)
    )
    if is_locked:
        statement = statement.with_for_update(of=bookings, read=True)
    row: Any = connection.execute(statement).one_or_none()
    if row is None:
        return None
    wanted = connection.execute(
        sa.select(*code)
        .where(
            code.booking_id == booking_id,
            code.guest_id == row.guest_id,
            code.ended_at.is_(None),
            code.state.not_in(GOING),
        )
        .order_by(code.device_id, code.id)
    ).all()
    late_at = row.check_in - timedelta(minutes=row.code_deadline_minutes)
    codes, is_whole = _codes_to_tell(row, wanted, now, is_late=now >= late_at)
    stay = Stay(check_in=row.check_in, check_out=row.check_out)
    terms = Terms(guest_id=row.guest_id, area_id=row.area_id, stay=stay, num_guests=row.num_guests)
    return Told(
        row=row,
        now=BookingNow(
            status=row.status,
            version=row.version,
            terms=terms,
            codes=fingerprint_of(row.guest_id, *sorted(one.code_mac.hex() for one in codes)) if codes else None,
            remind_at=max(row.check_in, row.check_out - timedelta(minutes=row.check_out_reminder_minutes)),
        ),
        codes=codes,
        codes_late_at=None if is_whole or now >= late_at else late_at,
    )


def queued_of(connection: sa.Connection, booking_id: UUID) -> list[Queued]:
    """The notifications of a booking, the oldest first."""
    statement = sa.select(*notification).where(notification.booking_id == booking_id).order_by(notification.number)
    return [queued_from(row) for row in connection.execute(statement)]


def queued_from(row: sa.Row[Any]) -> Queued:
    """A notification as the domain decides on it."""
    return Queued(**{name: getattr(row, name) for name in Queued.__dataclass_fields__})


def _codes_to_tell(
    booking: sa.Row[Any], wanted: Sequence[sa.Row[Any]], now: datetime, *, is_late: bool
) -> tuple[list[sa.Row[Any]], bool]:
    """Those codes that are truly on their locks for the whole stay, once each lock has one, or once it is late; and if all have."""
    on_lock = [one for one in wanted if one.state in ON_LOCK and _is_for_the_stay(one, booking, now)]
    is_whole = {one.device_id for one in on_lock} == {one.device_id for one in wanted}
    return on_lock if is_whole or is_late else [], is_whole


def _is_for_the_stay(one: sa.Row[Any], booking: sa.Row[Any], now: datetime) -> bool:
    """A backup code may come in the middle of a stay: it opens from now on."""
    begins_in_time = one.on_lock_from <= max(booking.check_in, now)
    return bool(begins_in_time and one.on_lock_until >= booking.check_out)
