"""Notifications that wait to be sent, claimed by whichever worker comes first, and sent while their booking is held still.

1. A claim counts the attempt, puts the next one off and writes down that the notification may have left; committed before sending.
2. The channel gets ready to send: connects, and says to whom. The moment that the notification itself leaves, the booking is locked
   against changes, and looked at again: when it is not what the notification would say, this one is put back. So nothing leaves
   after a cancellation has been committed, and a cancellation waits for what is just leaving, `SEND_SECONDS_MAX` of
   `hse/adapters/channels.py` at most.
3. What came of it is written down. A mail server that takes its time before it says so holds up nobody but the next letter.

A worker that dies between sending and writing so down leaves a notification that may have left. It is sent again, about the same
stay and under the same id: at least once for the receiver, once for who drops repeats (`docs/notifications.md`).
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa

from hse.adapters.channels import Notice, NoticeNotSent
from hse.adapters.guest_times import stay_values
from hse.adapters.postgres.booking_queue import wake
from hse.adapters.postgres.booking_tables import guests
from hse.adapters.postgres.notification_rows import Told, booking_told_of, queued_from, queued_of
from hse.adapters.postgres.notification_tables import booking_notifications, notification_templates
from hse.adapters.postgres.tables import areas, devices, establishments, organizations
from hse.adapters.sealing import Sealer
from hse.domain.booking.notification_texts import DOOR_CODES, Language, Text, built_in, rendered
from hse.domain.booking.notifications import NotificationChannel, may_be_sent

ATTEMPTS_MAX = 8
# Doubled at each attempt: 30 s, 1 min, ... 32 min; an hour in all.
FIRST_WAIT = timedelta(seconds=30)
# Longer than a worker that lives has a notification in hand.
IN_HAND_MAX = timedelta(minutes=1)
# For one whose booking is about to be looked at, or whose codes are not on their locks.
NOT_NOW_WAIT = timedelta(seconds=5)
TRANSACTION_SETTINGS = (
    "set local lock_timeout = '3s'",
    "set local statement_timeout = '10s'",
    "set local idle_in_transaction_session_timeout = '20s'",
)
NO_RECIPIENT = {"email": "the guest has no e-mail address", "sms": "the guest has no phone number"}
HIDDEN_CODE = "••••••"

notification = booking_notifications.c


class NotNow(Exception):
    """The notification is not to be sent at this moment."""


class Overtaken(NotNow):
    """What it would say is not so any more: a look at its booking says it anew, or takes it back."""


class Content(msgspec.Struct, kw_only=True):
    """What is sealed of what was said, without codes."""

    subject: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedNotification:
    """A notification that this worker is to send, and what it was before the claim."""

    row: sa.Row[Any]
    at: datetime

    @property
    def num_tries(self) -> int:
        """How often it was tried, with this time."""
        return int(self.row.num_tries) + 1

    @property
    def retry_at(self) -> datetime:
        """When it is to be tried again if this time it does not leave."""
        return self.at + FIRST_WAIT * (1 << min(self.num_tries - 1, ATTEMPTS_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A notification to be sent now, and what is to be kept of it."""

    notice: Notice
    kept: dict[str, Any]


def claim_notification(
    connection: sa.Connection, channel: NotificationChannel, now: datetime
) -> ClaimedNotification | None:
    """That of the channel which is due longest; None when none is due. To be committed before it is sent."""
    due = (
        sa.select(*notification)
        .where(notification.channel == channel, notification.status == "pending", notification.next_attempt_at <= now)
        .order_by(notification.next_attempt_at, notification.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(due).one_or_none()
    if row is None:
        return None
    claimed = ClaimedNotification(row=row, at=now)
    values = {
        "num_attempts": row.num_attempts + 1,
        "num_tries": row.num_tries + 1,
        "may_have_left": True,
        "next_attempt_at": max(claimed.retry_at, now + IN_HAND_MAX),
    }
    connection.execute(sa.update(booking_notifications).where(notification.id == row.id).values(values))
    return claimed


def hold_and_prepare(connection: sa.Connection, claimed: ClaimedNotification, sealer: Sealer, now: datetime) -> Ready:
    """Hold the booking still until this transaction ends, and say what is to be sent.

    Raises `NotNow`, `NoticeNotSent` when it cannot be sent at all, `WrongKey`.
    """
    for setting in TRANSACTION_SETTINGS:
        connection.execute(sa.text(setting))
    told = booking_told_of(connection, claimed.row.booking_id, now, is_locked=True)
    mine = sa.select(notification.status, notification.num_attempts).where(notification.id == claimed.row.id)
    row = connection.execute(mine.with_for_update()).one_or_none()
    if row is None or (row.status, row.num_attempts) != ("pending", claimed.row.num_attempts + 1):
        # Its guest was erased, or this worker was away for so long that another one has it.
        raise NotNow
    one = queued_from(claimed.row)
    others = [
        replace(each, may_have_left=one.may_have_left) if each.number == one.number else each
        for each in queued_of(connection, claimed.row.booking_id)
    ]
    if told is None or not may_be_sent(told.now, one, others, now):
        waits_for_codes = one.type == "check_in_instructions" and told is not None and told.now.codes is None
        raise NotNow if waits_for_codes else Overtaken
    if claimed.num_tries > ATTEMPTS_MAX:
        raise NoticeNotSent("the worker died at every attempt", is_final=True, may_have_left=True)
    return _prepared(connection, claimed.row, told, sealer)


def put_back(connection: sa.Connection, claimed: ClaimedNotification, now: datetime, reason: NotNow) -> None:
    """It was not tried."""
    before = {name: getattr(claimed.row, name) for name in ("num_attempts", "num_tries", "may_have_left")}
    _change(connection, claimed, **before, next_attempt_at=now + NOT_NOW_WAIT)
    if isinstance(reason, Overtaken):
        wake(connection, claimed.row.booking_id, now)


def mark_notification_sent(
    connection: sa.Connection, claimed: ClaimedNotification, ready: Ready, now: datetime
) -> None:
    """It left."""
    sent = {"status": "sent", "sent_at": now, "reason": None, "is_withdrawn": False}
    if not _change(connection, claimed, **ready.kept, **sent):
        # It was taken back while the answer was waited for. What it said is not kept: its guest may have been erased.
        is_this = (notification.id == claimed.row.id, notification.num_attempts == claimed.row.num_attempts + 1)
        connection.execute(sa.update(booking_notifications).where(*is_this, notification.is_withdrawn).values(sent))


def mark_notification_not_sent(connection: sa.Connection, claimed: ClaimedNotification, refusal: NoticeNotSent) -> bool:
    """It did not leave, as far as is known. Returns whether it was given up: then a person is needed."""
    is_given_up = refusal.is_final or claimed.num_tries >= ATTEMPTS_MAX
    values = {
        "reason": str(refusal),
        "may_have_left": claimed.row.may_have_left or refusal.may_have_left,
        "status": "failed" if is_given_up else "pending",
        "next_attempt_at": claimed.retry_at,
    }
    _change(connection, claimed, **values)
    return is_given_up


def _change(connection: sa.Connection, claimed: ClaimedNotification, **values: Any) -> bool:
    where = (
        notification.id == claimed.row.id,
        notification.status == "pending",
        notification.num_attempts == claimed.row.num_attempts + 1,
    )
    return connection.execute(sa.update(booking_notifications).where(*where).values(values)).rowcount > 0


def _prepared(connection: sa.Connection, row: sa.Row[Any], told: Told, sealer: Sealer) -> Ready:
    booking = told.row
    guest = connection.execute(sa.select(*guests.c).where(guests.c.id == booking.guest_id)).one()
    recipient = {"email": guest.email, "sms": guest.phone, "push": str(guest.id)}[row.channel]
    if not recipient:
        raise NoticeNotSent(NO_RECIPIENT[row.channel], is_final=True)
    values = _values(connection, booking, guest)
    text, template = _template(connection, row, guest.language)
    digits = _digits(connection, told, sealer) if row.type == "check_in_instructions" else []
    said = rendered(text, {**values, DOOR_CODES: _lines(digits)})
    hidden = rendered(text, {**values, DOOR_CODES: _lines([(name, HIDDEN_CODE) for name, _ in digits])})
    kept = Content(subject=hidden.subject, message=hidden.message)
    return Ready(
        notice=Notice(
            id=row.id,
            booking_id=row.booking_id,
            type=row.type,
            channel=row.channel,
            language=guest.language,
            created_at=row.created_at,
            recipient=recipient,
            subject=said.subject,
            message=said.message,
        ),
        kept={
            "recipient": recipient,
            "language": guest.language,
            "sealed_content": sealer.seal(msgspec.json.encode(kept)),
            **template,
        },
    )


def _values(connection: sa.Connection, booking: sa.Row[Any], guest: sa.Row[Any]) -> dict[str, str]:
    """What templates may name, but for the codes."""
    place = connection.execute(
        sa.select(
            establishments.c.name.label("establishment_name"),
            establishments.c.timezone,
            organizations.c.name.label("organization_name"),
            areas.c.name.label("area_name"),
        )
        .select_from(areas)
        .join(establishments, establishments.c.id == areas.c.establishment_id)
        .join(organizations, organizations.c.id == areas.c.organization_id)
        .where(areas.c.id == booking.area_id)
    ).one()
    return {
        "guest_first_name": guest.first_name,
        "guest_last_name": guest.last_name,
        "organization_name": place.organization_name,
        "establishment_name": place.establishment_name,
        "area_name": place.area_name,
        "confirmation_code": booking.confirmation_code,
        "num_guests": str(booking.num_guests),
        **stay_values(booking.check_in, booking.check_out, place.timezone, guest.language),
    }


def _template(connection: sa.Connection, row: sa.Row[Any], language: Language) -> tuple[Text, dict[str, Any]]:
    """The organisation's own text, else the one that is built in; and which it was."""
    template = notification_templates.c
    where = (
        template.organization_id == row.organization_id,
        template.type == row.type,
        template.channel == row.channel,
        template.language == language,
    )
    own = connection.execute(sa.select(*template).where(*where)).one_or_none()
    if own is None:
        return built_in(row.type, row.channel, language), {"template_id": None, "template_version": None}
    return Text(subject=own.subject, message=own.message), {"template_id": own.id, "template_version": own.version}


def _digits(connection: sa.Connection, told: Told, sealer: Sealer) -> list[tuple[str, str]]:
    """The codes with the names of their locks. Raises `WrongKey`."""
    names = sa.select(devices.c.id, devices.c.name).where(devices.c.id.in_([one.device_id for one in told.codes]))
    name_of = {row.id: row.name for row in connection.execute(names)}
    found = [(name_of.get(one.device_id, ""), sealer.unseal(one.sealed_code).decode()) for one in told.codes]
    return sorted(found)


def _lines(codes: list[tuple[str, str]]) -> str:
    return "\n".join(f"{name}: {digits}" if name else digits for name, digits in codes)
