"""The ways by which a guest is told something: letters, and what others send for us (SMS, push) when a signed webhook asks them to.

A webhook follows the Standard Webhooks specification (https://www.standardwebhooks.com); `docs/notifications.md` tells who writes
a receiver. Its address comes from the operator's settings and from nobody else: HTTPS with a certificate that is checked, plain
HTTP to this machine alone (`hse/settings.py`). No redirect is followed and no proxy is read from the environment, so that nothing
that answers there can send us somewhere else.

Whoever sends is given a way to hold the booking still (`Hold`). A letter needs that for a moment only; a webhook is held until its
answer, so this comes within `SEND_SECONDS_MAX` or is not waited for.
"""

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import httpx
from standardwebhooks import Webhook

from hse.adapters.mail import REASON_CHARS_MAX, AnswerOverdue, Hold, Letter, LetterNotSent, Mailer

# Less than for how long a request of the api waits for a row (`hse/adapters/postgres/database.py`).
SEND_SECONDS_MAX = 4.0
# Of these nothing would change at another try: the receiver does not take this message, or takes none any more.
FINAL_STATUSES = frozenset({400, 410, 413, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notification as it leaves. It may hold a door code, so what it says and to whom is not shown."""

    id: UUID
    booking_id: UUID
    type: str
    channel: str
    language: str
    created_at: datetime
    recipient: str = field(repr=False)
    subject: str = field(repr=False)
    message: str = field(repr=False)


class NoticeNotSent(Exception):
    """The notification was not taken.

    `is_final`: another try would not help. `may_have_left`: it may have been taken all the same, as the answer did not come.
    """

    def __init__(self, reason: str, *, is_final: bool = False, may_have_left: bool = False) -> None:
        super().__init__(reason[:REASON_CHARS_MAX])
        self.is_final = is_final
        self.may_have_left = may_have_left


class Channel(Protocol):
    """One way to tell a guest something."""

    async def send(self, notice: Notice, held: Hold) -> None:
        """Send one notification, `held` while it leaves. Raises `NoticeNotSent`, and what `held` raises."""


class MailChannel:
    """As a letter. Its Message-ID is the notification's, also when it is sent again: most mailboxes then show it once."""

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    async def send(self, notice: Notice, held: Hold) -> None:
        """Send one letter. Raises `NoticeNotSent`, and what `held` raises."""
        letter = Letter(
            id=notice.id,
            created_at=notice.created_at,
            recipient=notice.recipient,
            subject=notice.subject,
            text=notice.message,
            is_private=True,
        )
        try:
            await self._mailer.send(letter, held)
        except LetterNotSent as refusal:
            # One more try would mostly be one more letter.
            is_final = refusal.is_final or isinstance(refusal, AnswerOverdue)
            raise NoticeNotSent(str(refusal), is_final=is_final, may_have_left=refusal.may_have_left) from refusal


class WebhookChannel:
    """By a signed POST to whoever sends it on."""

    def __init__(self, url: str, secret: str, *, tls_context: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._webhook = Webhook(secret)
        self._tls_context = tls_context or ssl.create_default_context()

    async def send(self, notice: Notice, held: Hold) -> None:
        """Have it sent on. Raises `NoticeNotSent`, and what `held` raises."""
        body = json.dumps(payload_of(notice), ensure_ascii=False, separators=(",", ":"))
        headers = self._headers(str(notice.id), datetime.now(UTC), body)
        try:
            with held():
                async with asyncio.timeout(SEND_SECONDS_MAX):
                    status = await self._post(headers, body.encode())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoticeNotSent(f"{type(error).__name__}: {error}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise NoticeNotSent(f"{type(error).__name__}: {error}", may_have_left=True) from error
        if not 200 <= status < 300:
            told = "redirects are not followed" if 300 <= status < 400 else "the receiver did not take it"
            raise NoticeNotSent(
                f"HTTP {status}: {told}", is_final=status in FINAL_STATUSES, may_have_left=status >= 500
            )

    def _headers(self, message_id: str, now: datetime, body: str) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "user-agent": "hse",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body),
        }

    async def _post(self, headers: dict[str, str], body: bytes) -> int:
        client = httpx.AsyncClient(
            verify=self._tls_context, trust_env=False, follow_redirects=False, timeout=SEND_SECONDS_MAX
        )
        # What the receiver answers beside the status is not read, however long it is.
        async with client, client.stream("POST", self._url, headers=headers, content=body) as response:
            return response.status_code


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingChannel:
    """One that is not set up: says so with every notification."""

    reason: str

    async def send(self, notice: Notice, held: Hold) -> None:
        """Raises `NoticeNotSent`."""
        raise NoticeNotSent(self.reason, is_final=True)


def payload_of(notice: Notice) -> dict[str, object]:
    """What a receiver gets: type, time and data, as the specification has it."""
    return {
        "type": f"notification.{notice.channel}",
        "timestamp": notice.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "data": {
            "id": str(notice.id),
            "booking_id": str(notice.booking_id),
            "notification_type": notice.type,
            "recipient": notice.recipient,
            "language": notice.language,
            "subject": notice.subject,
            "message": notice.message,
        },
    }
