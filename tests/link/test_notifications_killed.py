"""`hse worker` as a process that tells guests things, by a real mail server and a real receiver, and is killed while it does."""

import re
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.engine import create_engine
from hse.embedded.ports import free_ports
from tests.api.mailboxes import Mailbox, smtp_server
from tests.api.webhooks import SECRET, Receiver, webhook_receiver
from tests.conftest import wait_until
from tests.link.conftest import SECONDS_MAX, NewProcess
from tests.storage.bookings import a_room, book

DAY = timedelta(days=1)
ROWS = (
    "select id, channel, status, num_attempts, may_have_left from booking_notifications where booking_id = :booking"
    " order by channel"
)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The database, as its owner."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def execute(engine: sa.Engine, statement: str, **given: Any) -> list[Any]:
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement), given)
        return list(result) if result.returns_rows else []


def a_booking(engine: sa.Engine, *channels: str) -> UUID:
    """Of a guest who has all there is, at a hotel that tells him things on these channels."""
    room = a_room(engine)
    execute(
        engine, "update guests set email = 'ana@example.com', phone = '+56 9 1234' where id = :id", id=room.guest_id
    )
    execute(
        engine,
        "update booking_settings set notification_channels = :channels where establishment_id = :id",
        channels=[*channels],
        id=room.establishment_id,
    )
    begins = datetime.now(UTC) + 2 * DAY
    return book(engine, room, begins, begins + DAY)


def statuses(engine: sa.Engine, booking: UUID) -> list[tuple[str, str]]:
    return [(row.channel, row.status) for row in execute(engine, ROWS, booking=booking)]


def test_a_guest_is_told_by_mail_and_by_a_signed_webhook(engine: sa.Engine, new_process: NewProcess) -> None:
    (port,) = free_ports(1)
    mailbox = Mailbox()
    with smtp_server(mailbox, port), webhook_receiver(Receiver()) as receiver:
        worker = new_process(
            HSE_SMTP_URL=f"smtp://127.0.0.1:{port}",
            HSE_SMS_WEBHOOK_URL=receiver.url,
            HSE_SMS_WEBHOOK_SECRET=SECRET,
        )
        booking = a_booking(engine, "email", "sms", "push")
        done = [("email", "sent"), ("push", "failed"), ("sms", "sent")]
        wait_until(lambda: statuses(engine, booking) == done, "all channels are done", seconds=SECONDS_MAX)
        worker.send_signal(signal.SIGTERM)
        worker.wait()
    of = {row.channel: row.id for row in execute(engine, ROWS, booking=booking)}
    (letter,) = mailbox.messages
    assert mailbox.recipients == ["ana@example.com"]
    assert str(of["email"]) in letter["Message-ID"]
    assert letter["Subject"] == "Recibimos tu reserva en Beach"
    assert re.search(r"Espacio: Room\b", letter.get_content())
    assert receiver.refused == []
    (message,) = receiver.messages.values()
    assert [*receiver.messages] == [str(of["sms"])]
    assert message["data"]["recipient"] == "+56 9 1234"
    (reason,) = execute(engine, "select reason from booking_notifications where channel = 'push'")
    assert reason.reason == "this channel is not set up: HSE_PUSH_WEBHOOK_URL is not set"


def test_a_worker_that_is_killed_between_sending_and_writing_so_has_it_sent_again_under_the_same_id(
    engine: sa.Engine, new_process: NewProcess
) -> None:
    taken, may_answer = threading.Event(), threading.Event()
    receiver = Receiver()

    def hold() -> None:
        taken.set()
        may_answer.wait(SECONDS_MAX)

    receiver.before_answer = hold
    with webhook_receiver(receiver):
        settings = {"HSE_SMS_WEBHOOK_URL": receiver.url, "HSE_SMS_WEBHOOK_SECRET": SECRET}
        doomed = new_process(**settings)
        booking = a_booking(engine, "sms")
        assert taken.wait(SECONDS_MAX), "the receiver has it"
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        may_answer.set()
        (row,) = execute(engine, ROWS, booking=booking)
        assert (row.status, row.num_attempts, row.may_have_left) == ("pending", 1, True)
        # As if its half a minute had passed.
        execute(engine, "update booking_notifications set next_attempt_at = now()")
        for _ in range(2):
            new_process(**settings)
        wait_until(lambda: statuses(engine, booking) == [("sms", "sent")], "it is sent", seconds=SECONDS_MAX)
    assert receiver.num_requests == {str(row.id): 2}
    assert len(receiver.messages) == 1
