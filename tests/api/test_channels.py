"""The ways to tell a guest something, against a real mail server and a real receiver that checks signatures."""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from hse.adapters import channels, mail
from hse.adapters.channels import Channel, MailChannel, MissingChannel, Notice, NoticeNotSent, WebhookChannel
from hse.adapters.mail import FileMailer, SmtpMailer
from hse.embedded.ports import free_ports
from tests.api.mailboxes import Mailbox, smtp_server
from tests.api.webhooks import OTHER_SECRET, SECRET, Receiver, webhook_receiver
from tests.faults.certificates import write_certificate

SENDER = "HSE <hse@example.com>"
NOTICE = Notice(
    id=UUID("7a1c5b1e-0c1e-4a57-9d0f-1b2c3d4e5f60"),
    booking_id=UUID("11111111-0c1e-4a57-9d0f-1b2c3d4e5f60"),
    type="check_in_instructions",
    channel="sms",
    language="es",
    created_at=datetime(2026, 3, 10, 12, 0, tzinfo=UTC),
    recipient="+56 9 1234 5678",
    subject="Tu acceso",
    message="Habitación: 493817",
)
LETTER = replace(NOTICE, channel="email", recipient="ana@example.com")


def send(channel: Channel, notice: Notice = NOTICE) -> None:
    asyncio.run(channel.send(notice, nullcontext))


def refusal(channel: Channel, notice: Notice = NOTICE) -> NoticeNotSent:
    with pytest.raises(NoticeNotSent) as refused:
        send(channel, notice)
    return refused.value


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver(Receiver()) as found:
        yield found


def test_a_webhook_is_signed_as_the_specification_has_it(receiver: Receiver) -> None:
    send(WebhookChannel(receiver.url, SECRET))
    assert receiver.messages == {
        str(NOTICE.id): {
            "type": "notification.sms",
            "timestamp": "2026-03-10T12:00:00Z",
            "data": {
                "id": str(NOTICE.id),
                "booking_id": str(NOTICE.booking_id),
                "notification_type": "check_in_instructions",
                "recipient": "+56 9 1234 5678",
                "language": "es",
                "subject": "Tu acceso",
                "message": "Habitación: 493817",
            },
        }
    }


def test_the_signature_is_that_of_the_specification_s_example() -> None:
    # https://github.com/standard-webhooks/standard-webhooks: the vector that all its libraries are tested with.
    signature = Webhook(SECRET).sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), '{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_who_has_another_secret_is_not_believed(receiver: Receiver) -> None:
    refused = refusal(WebhookChannel(receiver.url, OTHER_SECRET))
    assert (str(refused), refused.is_final, refused.may_have_left) == (
        "HTTP 401: the receiver did not take it",
        False,
        False,
    )
    assert receiver.messages == {}
    assert receiver.refused


@pytest.mark.parametrize(
    ("status", "is_final", "may_have_left"),
    [
        (400, True, False),
        (404, False, False),
        (410, True, False),
        (422, True, False),
        (429, False, False),
        (503, False, True),
    ],
)
def test_what_a_receiver_does_not_take_is_told_with_its_answer(
    status: int, is_final: bool, may_have_left: bool, receiver: Receiver
) -> None:
    receiver.answers = [status]
    refused = refusal(WebhookChannel(receiver.url, SECRET))
    assert str(refused).startswith(f"HTTP {status}: ")
    assert (refused.is_final, refused.may_have_left) == (is_final, may_have_left)


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    with webhook_receiver(Receiver()) as elsewhere:
        receiver.answers, receiver.headers = [307], {"location": elsewhere.url}
        assert "redirects are not followed" in str(refusal(WebhookChannel(receiver.url, SECRET)))
        assert elsewhere.num_requests == {}


def test_a_proxy_of_the_environment_is_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)[0]}")
    send(WebhookChannel(receiver.url, SECRET))
    assert len(receiver.messages) == 1


def test_nobody_there_is_surely_not_sent() -> None:
    refused = refusal(WebhookChannel(f"http://127.0.0.1:{free_ports(1)[0]}/", SECRET))
    assert (refused.is_final, refused.may_have_left) == (False, False)


@contextmanager
def slow_server(first: bytes) -> Iterator[int]:
    """Says `first`, and then a byte now and then, for as long as anybody listens."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(first)
                while not is_over.wait(0.05):
                    connection.sendall(b"x")
            except OSError:
                return

    is_over = threading.Event()
    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        thread.join()
        listener.close()


def test_who_answers_drop_by_drop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (channels, mail):
        monkeypatch.setattr(module, "SEND_SECONDS_MAX", 0.5)
    with slow_server(b"HTTP/1.1 200 OK\r\nx: ") as port:
        refused = refusal(WebhookChannel(f"http://127.0.0.1:{port}/", SECRET))
    assert refused.may_have_left
    with slow_server(b"220-") as port:
        mailer = SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER)
        refused = refusal(MailChannel(mailer), LETTER)
    assert (refused.is_final, refused.may_have_left) == (False, False), "it has not even greeted"


def test_a_long_answer_is_not_read() -> None:
    with slow_server(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n") as port:
        send(WebhookChannel(f"http://127.0.0.1:{port}/", SECRET))


def test_over_tls_only_who_shows_a_certificate_that_is_known_is_told(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(certificate, key)
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def answer() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            try:
                with listening.wrap_socket(connection, server_side=True) as private:
                    received.append(private.recv(65536))
                    private.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            except OSError:
                # It does not trust us, and leaves.
                connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    url = f"https://localhost:{listener.getsockname()[1]}/"
    assert "CERTIFICATE_VERIFY_FAILED" in str(refusal(WebhookChannel(url, SECRET)))
    assert received == []
    send(WebhookChannel(url, SECRET, tls_context=ssl.create_default_context(cafile=certificate)))
    thread.join()
    listener.close()
    assert received[0].startswith(b"POST / HTTP/1.1\r\n")


def test_a_letter_has_the_same_message_id_each_time() -> None:
    mailbox, port = Mailbox(), free_ports(1)[0]
    with smtp_server(mailbox, port):
        for _ in range(2):
            send(MailChannel(SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER)), LETTER)
    first, second = mailbox.messages
    assert first["Message-ID"] == second["Message-ID"]
    assert str(NOTICE.id) in first["Message-ID"]
    assert (first["To"], first["Subject"]) == ("ana@example.com", "Tu acceso")
    assert first.get_content().strip() == "Habitación: 493817"


def test_a_line_that_begins_with_a_point_does_not_end_the_letter() -> None:
    mailbox, port = Mailbox(), free_ports(1)[0]
    with smtp_server(mailbox, port):
        message = "Hall:\n.\n..\n.493817"
        send(MailChannel(SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER)), replace(LETTER, message=message))
    assert mailbox.messages[0].get_content().splitlines() == message.splitlines()


def test_a_mail_server_that_refuses_has_surely_not_taken_it() -> None:
    mailbox, port = Mailbox(refusal="451 later"), free_ports(1)[0]
    channel = MailChannel(SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER))
    with smtp_server(mailbox, port):
        refused = refusal(channel, LETTER)
        assert (refused.is_final, refused.may_have_left) == (False, False)
        mailbox.refusal = "550 nobody of that name"
        assert refusal(channel, LETTER).is_final
    refused = refusal(channel, LETTER)
    assert (refused.is_final, refused.may_have_left) == (False, False)


def test_an_address_that_writes_headers_is_refused() -> None:
    channel = MailChannel(SmtpMailer("smtp://127.0.0.1:1", SENDER))
    for recipient in (
        "a@example.com\r\nBcc: b@example.com",
        "a@example.com, b@example.com",
        "nobody",
        "a@example.com.",
        "a@[",
    ):
        assert refusal(channel, replace(LETTER, recipient=recipient)).is_final


def test_neither_log_nor_repr_shows_what_a_guest_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = replace(LETTER, message="https://door.example.com/493817")
    send(MailChannel(FileMailer(tmp_path, SENDER)), told)
    (path,) = tmp_path.iterdir()
    assert b"493817" in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    for shown in (caplog.text, repr(told)):
        assert "493817" not in shown
        assert "ana@" not in shown
        assert "Tu acceso" not in shown


def test_a_channel_that_is_not_set_up_says_so() -> None:
    refused = refusal(MissingChannel(reason="HSE_SMS_WEBHOOK_URL is not set"))
    assert (str(refused), refused.is_final) == ("HSE_SMS_WEBHOOK_URL is not set", True)
