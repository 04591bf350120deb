"""Letters on their way out: sent at least once, by any number of workers, over SMTP or into files."""

import asyncio
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from hse.adapters.mail import FileMailer, Hold, Letter, LetterNotSent, Mailer, SmtpMailer
from hse.adapters.postgres.engine import create_engine, psycopg_url
from hse.adapters.postgres.mail import ATTEMPTS_MAX, FIRST_WAIT, claim_letter, queue_mail
from hse.embedded.ports import free_ports
from hse.settings import Settings
from hse.wiring.worker import Postman, compose_mailer, compose_postman
from tests.api.conftest import OUTBOX
from tests.api.mailboxes import Mailbox, smtp_server
from tests.api.world import SECRET_KEY
from tests.conftest import wait_until
from tests.faults.certificates import write_certificate

SENDER = "HSE <hse@example.com>"
TEXT = "Come in:\n\nhttps://hse.example.com/invitations/secret-token\n"


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def queue(database_url: str, *recipients: str) -> None:
    async def run() -> None:
        engine = create_async_engine(psycopg_url(database_url))
        async with engine.begin() as connection:
            for recipient in recipients:
                await queue_mail(connection, OUTBOX.sealer, "invitation", recipient, "Come in", TEXT)
        await engine.dispose()

    asyncio.run(run())


def postman(engine: sa.Engine, mailer: Mailer) -> Postman:
    return Postman(engine=engine, sealer=OUTBOX.sealer, mailer=mailer)


def make_due(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("update outgoing_mail set next_attempt_at = now()")


def states(database_url: str) -> list[tuple[str, int, bool]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute("select status, attempts, sealed is null from outgoing_mail order by id").fetchall()


def test_a_letter_arrives_and_its_content_is_forgotten(database_url: str, engine: sa.Engine, port: int) -> None:
    queue(database_url, "ana@example.com")
    mailbox = Mailbox()
    with smtp_server(mailbox, port):
        assert postman(engine, SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER)).deliver_one()
    (message,) = mailbox.messages
    assert (message["From"], message["To"], message["Subject"]) == (SENDER, "ana@example.com", "Come in")
    assert message["Message-ID"].endswith("@example.com>")
    assert message.get_content().splitlines() == TEXT.splitlines()
    assert states(database_url) == [("sent", 1, True)]


def test_what_lies_in_the_database_does_not_show_the_link(database_url: str) -> None:
    queue(database_url, "ana@example.com")
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select outgoing_mail::text, sealed from outgoing_mail").fetchone()
    assert row is not None
    assert "secret-token" not in row[0]
    assert b"secret-token" not in row[1]


def test_a_letter_waits_longer_each_time_until_the_server_is_back(
    database_url: str, engine: sa.Engine, port: int
) -> None:
    queue(database_url, "ana@example.com")
    sends = postman(engine, SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER))
    waits = []
    for _ in range(3):
        make_due(database_url)
        assert not sends.deliver_one()
        assert not sends.deliver_one(), "it is put off"
        with engine.connect() as connection:
            wait = connection.execute(sa.text("select next_attempt_at - now() from outgoing_mail")).scalar_one()
        waits.append(round(wait / FIRST_WAIT))
    assert waits == [1, 2, 4]
    make_due(database_url)
    mailbox = Mailbox()
    with smtp_server(mailbox, port):
        assert sends.deliver_one()
    assert mailbox.recipients == ["ana@example.com"]
    assert states(database_url) == [("sent", 4, True)]


def test_after_eight_attempts_a_letter_is_given_up_and_a_person_is_called(
    database_url: str, engine: sa.Engine, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    queue(database_url, "ana@example.com")
    sends = postman(engine, SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER))
    for _ in range(ATTEMPTS_MAX):
        make_due(database_url)
        sends.deliver_one()
    assert states(database_url) == [("failed", ATTEMPTS_MAX, True)]
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    assert "secret-token" not in caplog.text


def test_an_address_that_the_server_refuses_for_good_is_not_tried_again(
    database_url: str, engine: sa.Engine, port: int
) -> None:
    queue(database_url, "nobody@example.com", "later@example.com")
    mailbox = Mailbox()
    sends = postman(engine, SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER))
    with smtp_server(mailbox, port):
        mailbox.refusal = "550 no such mailbox"
        sends.deliver_one()
        mailbox.refusal = "451 come back later"
        sends.deliver_one()
    assert states(database_url) == [("failed", 1, True), ("pending", 1, False)]


def test_many_workers_send_every_letter_once(database_url: str, engine: sa.Engine, port: int) -> None:
    recipients = [f"person-{number}@example.com" for number in range(40)]
    queue(database_url, *recipients)
    mailbox, stopping = Mailbox(), threading.Event()
    with smtp_server(mailbox, port):
        workers = [
            threading.Thread(
                target=postman(engine, SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER)).deliver_until, args=[stopping]
            )
            for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        wait_until(lambda: {state for state, *_ in states(database_url)} == {"sent"}, "every letter is sent")
        stopping.set()
        for worker in workers:
            worker.join()
    assert sorted(mailbox.recipients) == sorted(recipients)


def test_a_letter_that_another_worker_is_claiming_holds_up_no_other(
    database_url: str, engine: sa.Engine, port: int
) -> None:
    queue(database_url, "first@example.com", "second@example.com")
    mailbox = Mailbox()
    with smtp_server(mailbox, port), engine.begin() as claiming:
        claimed = claim_letter(claiming)
        assert claimed is not None
        # A claim that waited for the other one would fail.
        impatient = engine.execution_options()
        sa.event.listen(
            impatient, "begin", lambda connection: connection.exec_driver_sql("set local lock_timeout = '2s'")
        )
        assert postman(impatient, SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER)).deliver_one()
    assert mailbox.recipients == ["second@example.com"]


def test_a_letter_whose_worker_died_before_it_wrote_so_down_is_sent_again_as_the_same_letter(
    database_url: str, engine: sa.Engine, port: int
) -> None:
    """At least once: the second has the first one's Message-ID, by which a mailbox knows it."""
    queue(database_url, "ana@example.com")

    class Dies(SmtpMailer):
        async def send(self, letter: Letter, held: Hold = nullcontext) -> None:
            await super().send(letter, held)
            raise KeyboardInterrupt

    mailbox, url = Mailbox(), f"smtp://127.0.0.1:{port}"
    with smtp_server(mailbox, port):
        with pytest.raises(KeyboardInterrupt):
            postman(engine, Dies(url, SENDER)).deliver_one()
        assert states(database_url) == [("pending", 1, False)]
        other = postman(engine, SmtpMailer(url, SENDER))
        assert not other.deliver_one(), "not before the first has had its time"
        make_due(database_url)
        assert other.deliver_one()
    first, second = mailbox.messages
    assert first["Message-ID"] == second["Message-ID"]
    assert first.as_bytes() == second.as_bytes()


def test_a_password_goes_out_over_tls_only(database_url: str, engine: sa.Engine, port: int, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    client_context = ssl.create_default_context(cafile=str(certificate))
    mailer = SmtpMailer(f"smtp://hse:p%40ss@localhost:{port}", SENDER, tls_context=client_context)
    queue(database_url, "ana@example.com")
    mailbox = Mailbox()
    with smtp_server(mailbox, port, login=("hse", "p@ss")):
        assert not postman(engine, mailer).deliver_one(), "this server would take the password in the clear"
    make_due(database_url)
    with smtp_server(mailbox, port, tls_context=server_context, login=("hse", "p@ss")):
        assert postman(engine, mailer).deliver_one()
    assert mailbox.were_private == [True]


def test_smtps_speaks_tls_from_the_start_and_to_nobody_it_does_not_know(
    database_url: str, engine: sa.Engine, port: int, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    url = f"smtps://hse:p%40ss@localhost:{port}"
    trusting = SmtpMailer(url, SENDER, tls_context=ssl.create_default_context(cafile=str(certificate)))
    queue(database_url, "ana@example.com")
    mailbox = Mailbox()
    with smtp_server(mailbox, port, tls_context=server_context, is_tls_from_the_start=True, login=("hse", "p@ss")):
        assert not postman(engine, SmtpMailer(url, SENDER)).deliver_one(), "nobody vouches for this certificate"
        assert states(database_url) == [("pending", 1, False)]
        make_due(database_url)
        assert postman(engine, trusting).deliver_one()
    assert mailbox.recipients == ["ana@example.com"]
    assert (mailbox.were_private, mailbox.were_signed_in) == ([True], [True])
    # A server without TLS gets nothing, and no password either.
    queue(database_url, "eva@example.com")
    with smtp_server(mailbox, port, login=("hse", "p@ss")):
        assert not postman(engine, trusting).deliver_one()
    assert mailbox.recipients == ["ana@example.com"]


def test_a_letter_that_cannot_stand_in_a_header_is_given_up(database_url: str, engine: sa.Engine, port: int) -> None:
    queue(database_url, "ana@example.com\nBcc: all@example.com")
    assert not postman(engine, SmtpMailer(f"smtp://127.0.0.1:{port}", SENDER)).deliver_one()
    assert states(database_url) == [("failed", 1, True)]


def test_without_a_server_letters_are_files_that_their_owner_alone_reads_and_the_link_is_printed(
    database_url: str, engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue(database_url, "ana@example.com")
    with caplog.at_level(logging.INFO):
        assert postman(engine, FileMailer(tmp_path / "mail", SENDER)).deliver_one()
    (path,) = (tmp_path / "mail").iterdir()
    assert (path.suffix, path.stat().st_mode & 0o777) == (".eml", 0o600)
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700
    assert "https://hse.example.com/invitations/secret-token" in path.read_text()
    assert "https://hse.example.com/invitations/secret-token" in caplog.text


def test_the_worker_sends_what_is_queued_and_ends_when_it_is_told(database_url: str, tmp_path: Path, port: int) -> None:
    """The process as it is run: killed with a letter in its hands, and another one that takes over."""
    environment = {
        **os.environ,
        "HSE_DATABASE_URL": database_url,
        "HSE_SECRET_KEY": SECRET_KEY,
        "HSE_DATA_DIR": str(tmp_path),
        "HSE_SMTP_URL": f"smtp://127.0.0.1:{port}",
    }
    queue(database_url, "ana@example.com")
    command = [sys.executable, "-m", "hse", "worker"]
    with socket.create_server(("127.0.0.1", port)) as silent:
        killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            connection, _ = silent.accept()
            assert states(database_url) == [("pending", 1, False)]
        finally:
            killed.kill()
            killed.wait()
        connection.close()
    make_due(database_url)
    mailbox = Mailbox()
    with smtp_server(mailbox, port):
        worker = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: states(database_url) == [("sent", 2, True)], "the letter is sent")
        finally:
            worker.terminate()
            assert worker.wait(20) == 0
    assert mailbox.recipients == ["ana@example.com"]


async def test_a_directory_that_cannot_be_written_to_is_a_letter_not_sent(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("in the way")
    letter = Letter(id=1, created_at=datetime.now(UTC), recipient="a@example.com", subject="x", text="y")
    with pytest.raises(LetterNotSent) as refusal:
        await FileMailer(tmp_path / "mail", SENDER).send(letter)
    assert not refusal.value.is_final


def test_the_settings_choose_how_mail_leaves(engine: sa.Engine, tmp_path: Path) -> None:
    assert compose_postman(Settings(), engine) is None
    assert isinstance(compose_mailer(Settings(data_dir=tmp_path)), FileMailer)
    assert isinstance(compose_mailer(Settings(smtp_url="smtps://user:pass@mail.example.com")), SmtpMailer)
