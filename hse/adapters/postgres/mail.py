"""Letters that wait to be sent: written with what causes them, and claimed by whichever worker comes first.

A claim counts the attempt and puts the next one off before the letter is sent, so neither a worker that dies nor one that hangs
holds it for good, and none sends it at the same time. Between sending and marking it a death has it sent again: at least once.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.mail import SEND_SECONDS_MAX, Letter
from hse.adapters.postgres.identity_tables import outgoing_mail
from hse.adapters.sealing import Sealer

ATTEMPTS_MAX = 8
# Doubled at each attempt: 1 min, 2 min, ... 64 min; two hours in all.
FIRST_WAIT = timedelta(seconds=2 * SEND_SECONDS_MAX)

logger = logging.getLogger(__name__)


class Content(msgspec.Struct, kw_only=True):
    """What is sealed of a letter."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """Where the letters of transactions go, the address that their links lead to, and how long an invitation's holds."""

    sealer: Sealer
    public_url: str
    invitation_lifetime: timedelta = timedelta(days=7)

    def link(self, path: str) -> str:
        """The address of a page of the platform."""
        return f"{self.public_url.rstrip('/')}/{path}"


class OutgoingMail:
    """The letters that one transaction sends."""

    def __init__(self, connection: AsyncConnection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self.invitation_lifetime = outbox.invitation_lifetime

    def link(self, path: str) -> str:
        """The address of a page of the platform."""
        return self._outbox.link(path)

    async def queue(self, kind: str, recipient: str, subject: str, text: str) -> None:
        """Have a letter sent once the transaction is committed."""
        await queue_mail(self._connection, self._outbox.sealer, kind, recipient, subject, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A letter that this worker is to send; `sealed` is None when it cannot be any more."""

    letter_id: int
    attempts: int
    sealed: bytes | None
    row: sa.Row[tuple[object, ...]]


async def queue_mail(
    connection: AsyncConnection, sealer: Sealer, kind: str, recipient: str, subject: str, text: str
) -> None:
    """Have a letter sent once this transaction is committed; `kind` says in logs what it is for."""
    sealed = sealer.seal(msgspec.json.encode(Content(subject=subject, text=text)))
    # Without RETURNING: who may add letters may not read them.
    statement = sa.insert(outgoing_mail).inline().values(kind=kind, recipient=recipient, sealed=sealed)
    await connection.execute(statement)


def claim_letter(connection: sa.Connection) -> Claimed | None:
    """The letter that is due longest, with this attempt counted; None when none is due. To be committed before it is sent."""
    mail = outgoing_mail.c
    due = (
        sa.select(mail.id)
        .where(mail.status == "pending", mail.next_attempt_at <= sa.func.now())
        .order_by(mail.next_attempt_at, mail.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    wait_seconds = FIRST_WAIT.total_seconds() * sa.func.power(2, mail.attempts)
    claim = (
        sa.update(outgoing_mail)
        .where(mail.id == due.scalar_subquery())
        .values(
            attempts=mail.attempts + 1,
            next_attempt_at=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, wait_seconds),
        )
        .returning(mail.id, mail.attempts, mail.sealed, mail.recipient, mail.created_at, mail.kind)
    )
    row = connection.execute(claim).one_or_none()
    return None if row is None else Claimed(letter_id=row.id, attempts=row.attempts, sealed=row.sealed, row=row)


def letter_of(claimed: Claimed, sealer: Sealer) -> Letter:
    """The letter in the clear. Raises `WrongKey`."""
    content = msgspec.json.decode(sealer.unseal(claimed.sealed or b""), type=Content)
    return Letter(
        id=claimed.letter_id,
        created_at=claimed.row.created_at,
        recipient=claimed.row.recipient,
        subject=content.subject,
        text=content.text,
    )


def mark_sent(connection: sa.Connection, claimed: Claimed) -> None:
    """The letter left; its content is forgotten."""
    connection.execute(
        sa.update(outgoing_mail)
        .where(outgoing_mail.c.id == claimed.letter_id)
        .values(status="sent", sealed=None, last_error=None, sent_at=sa.func.now())
    )


def mark_not_sent(connection: sa.Connection, claimed: Claimed, reason: str, *, is_final: bool) -> None:
    """The letter did not leave. After the last attempt it never will: a person is needed, and its content is forgotten."""
    is_given_up = is_final or claimed.attempts >= ATTEMPTS_MAX
    changes = {"status": "failed", "sealed": None} if is_given_up else {}
    connection.execute(
        sa.update(outgoing_mail).where(outgoing_mail.c.id == claimed.letter_id).values(last_error=reason, **changes)
    )
    told = (claimed.row.kind, claimed.letter_id, claimed.attempts, reason)
    if is_given_up:
        logger.error("letter not sent, and given up: kind=%s id=%s attempts=%s reason=%s", *told)
    else:
        logger.warning("letter not sent, tried again later: kind=%s id=%s attempts=%s reason=%s", *told)
