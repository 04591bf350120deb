"""The loops that send guests what they are to be told, one for each channel: a channel that is slow or away holds up no other."""

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import psycopg
import sqlalchemy as sa

from hse.adapters.channels import Channel, MailChannel, MissingChannel, NoticeNotSent, WebhookChannel
from hse.adapters.postgres.notification_sending import (
    ClaimedNotification,
    NotNow,
    Ready,
    claim_notification,
    hold_and_prepare,
    mark_notification_not_sent,
    mark_notification_sent,
    put_back,
)
from hse.adapters.sealing import Sealer, WrongKey
from hse.domain.booking.notifications import CHANNELS, NotificationChannel
from hse.settings import Settings
from hse.wiring.worker import compose_mailer

POLL_SECONDS = 0.5
AWAY_SECONDS = 2.0
LOCK_WAITS = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationSender:
    """Sends the notifications of a channel that are due. Any number may work at once."""

    engine: sa.Engine
    sealer: Sealer
    name: NotificationChannel
    channel: Channel

    def send_until(self, stopping: threading.Event) -> None:
        """Look for notifications twice a second, until told to stop; a database that is away is waited for."""
        wait = POLL_SECONDS
        while not stopping.wait(wait):
            wait = POLL_SECONDS
            try:
                while not stopping.is_set() and self.send_one(datetime.now(UTC)):
                    pass
            except sa.exc.DBAPIError as error:
                logger.warning("notifications wait for the database: %s", type(error).__name__)
                wait = AWAY_SECONDS
            except Exception:
                # A defect at one notification, which is put off already, must not keep the others.
                logger.exception("a notification could not be handled")

    def send_one(self, now: datetime) -> bool:
        """Try the notification that is due longest; False when none is due. Raises SQLAlchemy's errors."""
        with self.engine.begin() as connection:
            claimed = claim_notification(connection, self.name, now)
        if claimed is None:
            return False
        try:
            self._send(claimed, now)
        except NotNow as reason:
            with self.engine.begin() as connection:
                put_back(connection, claimed, now, reason)
        return True

    def _send(self, claimed: ClaimedNotification, now: datetime) -> None:
        told = (claimed.row.type, self.name, claimed.row.id, claimed.row.num_attempts + 1)
        ready = None
        try:
            with self.engine.begin() as connection:
                ready = self._hold_and_prepare(connection, claimed, now)
            asyncio.run(self.channel.send(ready.notice, partial(self._held, claimed, ready, now)))
        except (NoticeNotSent, WrongKey) as error:
            refusal = error if isinstance(error, NoticeNotSent) else NoticeNotSent(str(error))
            if ready is not None:
                refusal = without(ready.notice.recipient, refusal)
            with self.engine.begin() as connection:
                is_given_up = mark_notification_not_sent(connection, claimed, refusal)
            if is_given_up:
                logger.error("notification given up: type=%s channel=%s id=%s attempts=%s reason=%s", *told, refusal)
            else:
                logger.warning(
                    "notification tried again later: type=%s channel=%s id=%s attempts=%s reason=%s", *told, refusal
                )
            return
        with self.engine.begin() as connection:
            mark_notification_sent(connection, claimed, ready, now)
        logger.info("notification sent: type=%s channel=%s id=%s attempts=%s", *told)

    @contextmanager
    def _held(self, claimed: ClaimedNotification, ready: Ready, now: datetime) -> Iterator[None]:
        """The booking, held still while what was prepared is what there is to say. Raises `NotNow`."""
        with self.engine.begin() as connection:
            if self._hold_and_prepare(connection, claimed, now).notice != ready.notice:
                raise NotNow
            yield

    def _hold_and_prepare(self, connection: sa.Connection, claimed: ClaimedNotification, now: datetime) -> Ready:
        try:
            return hold_and_prepare(connection, claimed, self.sealer, now)
        except sa.exc.OperationalError as error:
            if isinstance(error.orig, LOCK_WAITS):
                # Somebody changes the booking at this moment.
                raise NotNow from error
            raise


def without(recipient: str, refusal: NoticeNotSent) -> NoticeNotSent:
    """A refusal that does not name the guest: servers say whom they do not know, and the reason is logged, and shown."""
    reason = re.sub(re.escape(recipient), "(the guest)", str(refusal), flags=re.IGNORECASE)
    return NoticeNotSent(reason, is_final=refusal.is_final, may_have_left=refusal.may_have_left)


def compose_notification_senders(
    settings: Settings, engine: sa.Engine
) -> list[tuple[str, Callable[[threading.Event], None]]]:
    """A loop for each channel; none without the key that codes are sealed with, of which `compose_booking_keeper` warns."""
    if settings.secret_key is None:
        return []
    sealer = Sealer(settings.secret_key)
    senders = [
        NotificationSender(engine=engine, sealer=sealer, name=name, channel=compose_channel(settings, name))
        for name in CHANNELS
    ]
    return [(f"{sender.name} notifications", sender.send_until) for sender in senders]


def compose_channel(settings: Settings, name: NotificationChannel) -> Channel:
    """The way to a guest as it is set up; one that is not says so with every notification."""
    if name == "email":
        return MailChannel(compose_mailer(settings))
    url, secret = {
        "sms": (settings.sms_webhook_url, settings.sms_webhook_secret),
        "push": (settings.push_webhook_url, settings.push_webhook_secret),
    }[name]
    if url is None or secret is None:
        return MissingChannel(reason=f"this channel is not set up: HSE_{name.upper()}_WEBHOOK_URL is not set")
    return WebhookChannel(url, secret)
