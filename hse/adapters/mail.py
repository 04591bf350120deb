"""How a letter leaves: over SMTP, or into files where no server is set.

A letter may come twice: what was sent and could not be written down as sent is sent again. Its Message-ID stays the same, by which
most mailboxes show it once.

Servers take their time: before they greet, so that who does not wait is known as a sender of junk, and before they say that they
take a letter, while they look through it. Who has to hold something still for it holds that only while the letter leaves (`Hold`).
"""

import asyncio
import contextlib
import logging
import os
import re
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib
from aiosmtplib.protocol import PERIOD_REGEX, normalize_message_line_endings

SEND_SECONDS_MAX = 30
CLOSE_SECONDS_MAX = 1
SMTP_PORTS = {"smtp": 25, "smtps": 465}
REASON_CHARS_MAX = 300
# What Python's parser of addresses raises for those that it cannot make sense of: its own errors, and some by mistake.
UNWRITABLE = (MessageError, ValueError, IndexError, AttributeError)
LINK = re.compile(r"https?://\S+")

# Entered when the letter is about to leave, and left when it has: what must not change meanwhile is held still. It may raise, and
# nothing leaves.
Hold = Callable[[], AbstractContextManager[None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A letter to one person. It may hold a one-time link, so its text is not shown; with `is_private` nothing of it is logged."""

    id: int | UUID
    created_at: datetime
    recipient: str
    subject: str
    text: str = field(repr=False)
    is_private: bool = False

    @property
    def name(self) -> str:
        """What no other letter is called: as a number it keeps letters of a second in order."""
        return f"{self.id:06}" if isinstance(self.id, int) else str(self.id)


class LetterNotSent(Exception):
    """The letter did not leave, as far as anybody knows.

    `is_final`: another attempt would not help. `may_have_left`: the connection broke off before the server's answer.
    """

    def __init__(self, reason: str, *, is_final: bool = False, may_have_left: bool = False) -> None:
        super().__init__(reason[:REASON_CHARS_MAX])
        self.is_final = is_final
        self.may_have_left = may_have_left


class AnswerOverdue(LetterNotSent):
    """The server was given the whole letter, and did not say in time whether it takes it. Mostly it does."""


class Mailer(Protocol):
    """Sends letters."""

    async def send(self, letter: Letter, held: Hold = nullcontext) -> None:
        """Send one letter. Raises `LetterNotSent`, and what `held` raises."""


class Delivery(aiosmtplib.SMTP):
    """A connection that knows whether its letter has left, and on which this is `held`."""

    def __init__(self, held: Hold, **options: Any) -> None:
        super().__init__(**options)
        self._held = held
        self.has_left = False

    async def data(self, message: str | bytes, /, **_: Any) -> aiosmtplib.SMTPResponse:
        """Give the letter to the server when it asks for it. Raises aiosmtplib's errors."""
        content = message.encode() if isinstance(message, str) else message
        content = PERIOD_REGEX.sub(b"..", normalize_message_line_endings(content))
        _expect(aiosmtplib.SMTPStatus.start_input, await self.execute_command(b"DATA"))
        if (protocol := self.protocol) is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        try:
            with self._held():
                protocol.write(content + b".\r\n")
                self.has_left = True
        except BaseException:
            # No farewell: it would be taken for a part of the letter.
            self.close()
            raise
        answer = await protocol.read_response(self.timeout)
        _expect(aiosmtplib.SMTPStatus.completed, answer)
        return answer


class SmtpMailer:
    """Over SMTP: `smtps://` speaks TLS from the start, `smtp://` turns to it when the server offers it.

    With a password in the URL the server must offer it, for else the password would go out in the clear.
    """

    def __init__(self, smtp_url: str, sender: str, *, tls_context: ssl.SSLContext | None = None) -> None:
        url = urlsplit(smtp_url)
        self._sender = sender
        self._hostname = url.hostname or "localhost"
        self._port = url.port or SMTP_PORTS[url.scheme]
        self._username = None if url.username is None else unquote(url.username)
        self._password = None if url.password is None else unquote(url.password)
        self._use_tls = url.scheme == "smtps"
        self._tls_context = tls_context

    async def send(self, letter: Letter, held: Hold = nullcontext) -> None:
        """Send one letter. Raises `LetterNotSent`, and what `held` raises."""
        message = message_of(letter, self._sender)
        client = self._new_delivery(held)
        try:
            async with asyncio.timeout(SEND_SECONDS_MAX):
                await client.connect()
                await client.send_message(message)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise _refusal(error, has_left=client.has_left) from error
        finally:
            await _take_leave(client)

    def _new_delivery(self, held: Hold) -> Delivery:
        must_be_private = self._password is not None and not self._use_tls
        return Delivery(
            held,
            hostname=self._hostname,
            port=self._port,
            username=self._username,
            password=self._password,
            timeout=SEND_SECONDS_MAX,
            use_tls=self._use_tls,
            start_tls=False if self._use_tls else True if must_be_private else None,
            tls_context=self._tls_context,
        )


class FileMailer:
    """Into `.eml` files that their owner alone can read; the link that a letter holds is logged, as nobody gets it by mail."""

    def __init__(self, directory: Path, sender: str) -> None:
        self._directory = directory
        self._sender = sender

    async def send(self, letter: Letter, held: Hold = nullcontext) -> None:
        """Write one letter. Raises `LetterNotSent`, and what `held` raises."""
        content = message_of(letter, self._sender).as_bytes()
        try:
            with held():
                path = await asyncio.to_thread(self._write, letter, content)
        except OSError as error:
            raise LetterNotSent(f"{type(error).__name__}: {error}") from error
        if letter.is_private:
            logger.info("mail is in %s", path)
            return
        link = LINK.search(letter.text)
        logger.info("mail for %s is in %s: %s", letter.recipient, path, link.group() if link else letter.subject)

    def _write(self, letter: Letter, content: bytes) -> Path:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"{letter.created_at:%Y%m%dT%H%M%S}-{letter.name}.eml"
        # Written aside and renamed, so that who waits for the file never finds half of it.
        aside = path.with_suffix(".part")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        aside.replace(path)
        return path


def message_of(letter: Letter, sender: str) -> EmailMessage:
    """The letter as it is sent. Raises `LetterNotSent` when its address or subject cannot stand in a header."""
    message = EmailMessage()
    sender_name, sender_address = parseaddr(sender)
    domain = sender_address.rpartition("@")[2] or "localhost"
    try:
        message["From"] = Address(sender_name, addr_spec=sender_address)
        message["To"] = Address(addr_spec=letter.recipient)
        message["Subject"] = letter.subject
    except UNWRITABLE as error:
        raise LetterNotSent(f"{type(error).__name__}: {error}", is_final=True) from error
    message["Date"] = format_datetime(letter.created_at)
    message["Message-ID"] = f"<hse-{letter.id}-{letter.created_at:%Y%m%d%H%M%S%f}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    return message


def _expect(code: int, answer: aiosmtplib.SMTPResponse) -> None:
    if answer.code != code:
        raise aiosmtplib.SMTPDataError(answer.code, answer.message)


async def _take_leave(client: Delivery) -> None:
    protocol = client.protocol
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=CLOSE_SECONDS_MAX)
    client.close()
    # TLS takes leave of the other side first; a loop that ends before that leaves the socket open.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            while protocol is not None and protocol.transport is not None:  # noqa: ASYNC110 (the library has no event for it)
                await asyncio.sleep(0.01)


def _refusal(error: Exception, *, has_left: bool) -> LetterNotSent:
    if has_left and isinstance(error, TimeoutError):
        return AnswerOverdue(
            f"the mail server has the letter, and did not say within {SEND_SECONDS_MAX} s whether it takes it",
            may_have_left=True,
        )
    # What the server says when it has the letter is its word on it.
    may_have_left = has_left and not isinstance(error, aiosmtplib.SMTPDataError)
    return LetterNotSent(f"{type(error).__name__}: {error}", is_final=_is_final(error), may_have_left=may_have_left)


def _is_final(error: Exception) -> bool:
    """Whether the server refused this recipient for good; what may be mended at the server is tried again."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(refused.code >= 500 for refused in error.recipients)
    return isinstance(error, aiosmtplib.SMTPRecipientRefused) and error.code >= 500
