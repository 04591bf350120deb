"""Where letters arrive in tests: an SMTP server in a thread of its own, and what lies in the database's outbox."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from typing import Any

import msgspec
import psycopg
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.api.conftest import OUTBOX
from tests.conftest import wait_until

LINK = re.compile(r"https?://\S+")


@dataclass
class Mailbox:
    """What came in. `refusal` is answered instead while it is set."""

    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    were_private: list[bool] = field(default_factory=list)
    were_signed_in: list[bool] = field(default_factory=list)
    refusal: str | None = None

    async def handle_RCPT(  # noqa: N802 (as the server calls it)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take or refuse a recipient."""
        if self.refusal is not None:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a letter."""
        content = envelope.content
        assert isinstance(content, bytes)
        self.messages.append(message_from_bytes(content, policy=default_policy))
        self.recipients += envelope.rcpt_tos
        # The first is there after STARTTLS, the second where TLS was spoken from the start.
        transport = server.transport
        is_tls = transport is not None and transport.get_extra_info("ssl_object") is not None
        self.were_signed_in.append(session.authenticated is True)
        self.were_private.append(session.ssl is not None or is_tls)
        return "250 OK"


class WaitsForItsClients(Controller):
    """A server that knows who is connected."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.connected: set[SMTP] = set()

    def factory(self) -> SMTP:
        """A new connection's protocol."""
        connected = self.connected

        class Connection(SMTP):
            def connection_made(self, transport: Any) -> None:
                connected.add(self)
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                super().connection_lost(error)
                connected.discard(self)

        return Connection(self.handler, **self.SMTP_kwargs)


@contextmanager
def smtp_server(
    mailbox: Mailbox,
    port: int,
    *,
    tls_context: ssl.SSLContext | None = None,
    is_tls_from_the_start: bool = False,
    login: tuple[str, str] | None = None,
) -> Iterator[None]:
    """Take mail on the port; with `tls_context` by STARTTLS or from the start, with `login` from those only who know it."""
    options: dict[str, Any] = {}
    if tls_context is not None:
        options["ssl_context" if is_tls_from_the_start else "tls_context"] = tls_context
    if login is not None:

        def authenticate(*arguments: Any) -> AuthResult:
            given = arguments[-1]
            assert isinstance(given, LoginPassword)
            is_right = (given.login.decode(), given.password.decode()) == login
            return AuthResult(success=is_right, handled=True)

        has_tls = tls_context is not None
        # Of TLS from the start, the server's rules for logins know nothing: there it takes mail without one, too.
        must_start_tls = has_tls and not is_tls_from_the_start
        options |= {"authenticator": authenticate, "auth_required": must_start_tls, "auth_require_tls": must_start_tls}
    controller = WaitsForItsClients(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield
    finally:
        # A loop that stops under a connection leaves its socket open.
        wait_until(lambda: not controller.connected, "every client has gone")
        controller.stop()


def letters_to(database_url: str, recipient: str) -> list[str]:
    """The texts of the letters that wait to be sent to somebody, in the order in which they were written."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select sealed from outgoing_mail where recipient = %s and sealed is not null order by id", [recipient]
        ).fetchall()
    return [msgspec.json.decode(OUTBOX.sealer.unseal(sealed))["text"] for (sealed,) in rows]


def link_in(text: str) -> str:
    """The link that a letter holds."""
    found = LINK.search(text)
    assert found is not None, text
    return found.group()
