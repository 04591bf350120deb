"""What follows from a booking for what its guest is told: notifications are queued, said anew or taken back.

A consequence of bookings (`hse/wiring/bookings.py`), after that of the door codes. What is to be done is decided by the domain; it
is written here, in the transaction of the look. They are sent by `notification_sending`.
"""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hse.adapters.postgres.notification_rows import Told, booking_told_of, queued_of
from hse.adapters.postgres.notification_tables import booking_notifications
from hse.domain.booking.notifications import Addition, plan

OVERTAKEN = "overtaken by what became of the booking"

notification = booking_notifications.c


def keep_notifications(connection: sa.Connection, booking_id: UUID, now: datetime) -> datetime | None:
    """One look at what the guest of a booking was told; when to look again."""
    told = booking_told_of(connection, booking_id, now)
    queued = queued_of(connection, booking_id)
    decided = plan(None if told is None else told.now, queued, [] if told is None else told.channels, now)
    its = notification.booking_id == booking_id
    if decided.withdraw:
        _update(connection, its, decided.withdraw, status="failed", reason=OVERTAKEN, is_withdrawn=True)
    if told is None:
        return None
    if decided.renew:
        # At once: what made it wait may be over.
        values = {"guest_id": told.row.guest_id, "terms": told.now.terms.fingerprint, "next_attempt_at": now}
        _update(connection, its, decided.renew, **values)
    for addition in decided.add:
        _add(connection, told, addition, now)
    return min((at for at in (decided.look_again_at, told.codes_late_at) if at is not None), default=None)


def _update(
    connection: sa.Connection, where: sa.ColumnElement[bool], numbers: tuple[int, ...], **values: object
) -> None:
    """Only what is still to be sent: what is being sent at this moment holds the booking, so none is."""
    chosen = (where, notification.number.in_(numbers), notification.status == "pending")
    connection.execute(sa.update(booking_notifications).where(*chosen).values(values))


def _add(connection: sa.Connection, told: Told, addition: Addition, now: datetime) -> None:
    values = {
        "organization_id": told.row.organization_id,
        "establishment_id": told.row.establishment_id,
        "booking_id": told.row.id,
        "guest_id": told.row.guest_id,
        "type": addition.type,
        "channel": addition.channel,
        "about": addition.about,
        "terms": told.now.terms.fingerprint,
        "next_attempt_at": now,
        "created_at": now,
    }
    # One that was taken back before it could leave, and is so again.
    revived = {
        **{name: values[name] for name in ("guest_id", "terms", "next_attempt_at")},
        "status": "pending",
        "reason": None,
        "is_withdrawn": False,
        "num_tries": 0,
    }
    statement = insert(booking_notifications).values(values)
    connection.execute(
        statement.on_conflict_do_update(
            constraint="booking_notifications_once",
            set_=revived,
            where=sa.and_(notification.is_withdrawn, sa.not_(notification.may_have_left)),
        )
    )
