"""How notifications are sent: by any number of senders that may die, with channels that fail, in the words of the guest."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from aiosmtpd.smtp import SMTP, Envelope, Session

from hse.adapters import mail
from hse.adapters.channels import MailChannel, MissingChannel, Notice
from hse.adapters.guest_times import stay_values
from hse.adapters.mail import SmtpMailer
from hse.adapters.postgres.booking_tables import bookings
from hse.adapters.postgres.notification_sending import ATTEMPTS_MAX, FIRST_WAIT, IN_HAND_MAX, claim_notification
from hse.adapters.postgres.notification_tables import notification_templates
from hse.adapters.sealing import Sealer
from hse.embedded.ports import free_ports
from tests.api.mailboxes import Mailbox, smtp_server
from tests.api.world import SECRET_KEY
from tests.storage.bookings import change
from tests.storage.door_codes import DAY, HOUR, MINUTE
from tests.storage.notices import Ear, Hotel, a_hotel, not_sent, pending_booking


@pytest.fixture
def hotel(plain_engine: sa.Engine) -> Hotel:
    """A hotel."""
    return a_hotel(plain_engine)


def test_two_senders_at_once_send_nothing_twice(hotel: Hotel) -> None:
    house = hotel.house
    for number in range(1, 21):
        pending_booking(hotel, house.now + number * 3 * DAY)
    house.run()
    both = threading.Barrier(4)

    def work() -> None:
        both.wait()
        hotel.send()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(hotel.ear.heard) == 20
    assert len({notice.id for notice in hotel.ear.heard}) == 20


class Died(BaseException):
    """The worker is gone, as far as its transaction is concerned."""


def die(_: Notice) -> None:
    raise Died


def test_a_worker_that_dies_between_sending_and_writing_so_has_it_sent_again_under_the_same_id(hotel: Hotel) -> None:
    booking = pending_booking(hotel)
    hotel.house.run()
    hotel.ear.after = die
    with pytest.raises(Died):
        hotel.send()
    (row,) = hotel.rows(booking)
    assert (row.status, row.may_have_left, row.num_attempts) == ("pending", True, 1)
    hotel.ear.after = lambda _: None
    hotel.house.pass_time(FIRST_WAIT)
    assert hotel.send() == 0, "somebody may have it in hand"
    hotel.house.pass_time(IN_HAND_MAX)
    hotel.send()
    first, second = hotel.ear.heard
    assert first == second
    assert hotel.states(booking) == [("booking_created", "sent")]


def test_what_may_have_left_before_a_change_is_followed_by_the_change_and_not_said_otherwise(hotel: Hotel) -> None:
    booking = pending_booking(hotel)
    hotel.house.run()
    hotel.ear.after = die
    with pytest.raises(Died):
        hotel.send()
    hotel.ear.after = lambda _: None
    change(hotel.house.engine, booking, num_guests=4)
    hotel.house.pass_time(IN_HAND_MAX)
    hotel.send()
    hotel.run()
    hotel.house.pass_time(HOUR)
    hotel.run()
    assert hotel.ear.types == ["booking_created", "booking_modified"]
    assert hotel.states(booking) == [("booking_created", "failed"), ("booking_modified", "sent")]


def test_a_worker_that_dies_at_every_attempt_does_not_try_for_ever(hotel: Hotel) -> None:
    booking = pending_booking(hotel, hotel.house.now + 60 * DAY)
    hotel.house.run()
    for _ in range(ATTEMPTS_MAX):
        with hotel.house.engine.begin() as connection:
            assert claim_notification(connection, "email", hotel.house.now) is not None
        hotel.house.now += DAY
    hotel.send()
    assert hotel.ear.heard == []
    (row,) = hotel.rows(booking)
    assert (row.status, row.reason, row.may_have_left) == ("failed", "the worker died at every attempt", True)


def test_what_cannot_be_sent_waits_longer_each_time_and_fails_with_its_reason(
    hotel: Hotel, caplog: pytest.LogCaptureFixture
) -> None:
    booking = pending_booking(hotel, hotel.house.now + 9 * DAY)
    hotel.house.run()
    waits = []
    for _ in range(ATTEMPTS_MAX):
        hotel.ear.refusals = [not_sent("HTTP 503: the receiver did not take it")]
        assert hotel.send() == 1
        (tried,) = hotel.rows(booking)
        waits.append((tried.next_attempt_at - hotel.house.now) / FIRST_WAIT)
        hotel.house.now = tried.next_attempt_at
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128]
    (row,) = hotel.rows(booking)
    assert (row.status, row.reason, row.num_attempts) == ("failed", "HTTP 503: the receiver did not take it", 8)
    assert "notification given up: type=booking_created channel=email" in caplog.text
    assert "ana@" not in caplog.text
    assert hotel.send() == 0
    hotel.run()
    assert len(hotel.rows(booking)) == 1


def test_what_surely_did_not_leave_is_said_anew_after_a_change(hotel: Hotel) -> None:
    booking = pending_booking(hotel)
    hotel.house.run()
    hotel.ear.refusals = [not_sent()]
    hotel.send()
    change(hotel.house.engine, booking, num_guests=4)
    hotel.run()
    assert hotel.ear.types == ["booking_created"]
    assert "Personas: 4" in hotel.ear.heard[0].message


def test_a_channel_that_is_not_set_up_and_a_guest_without_an_address_fail_with_their_reason(hotel: Hotel) -> None:
    hotel.use("email", "sms", "push")
    hotel.change_guest(email=None)
    booking = pending_booking(hotel)
    hotel.house.run()
    hotel.send("email")
    push = Ear()
    hotel.send("push", push)
    hotel.send("sms", MissingChannel(reason="this channel is not set up: HSE_SMS_WEBHOOK_URL is not set"))
    assert {row.channel: (row.status, row.reason) for row in hotel.rows(booking)} == {
        "email": ("failed", "the guest has no e-mail address"),
        "sms": ("failed", "this channel is not set up: HSE_SMS_WEBHOOK_URL is not set"),
        "push": ("sent", None),
    }
    assert push.heard[0].recipient == str(hotel.house.room.guest_id)
    assert hotel.ear.heard == []


def test_on_no_channel_nothing_is_told_and_on_one_that_is_chosen_later_nothing_old(hotel: Hotel) -> None:
    hotel.use()
    booking = pending_booking(hotel)
    hotel.run()
    assert hotel.states(booking) == []
    hotel.use("email")
    hotel.run()
    hotel.use("email", "sms")
    hotel.run()
    assert [row.channel for row in hotel.rows(booking)] == ["email"]


def test_guests_are_told_in_their_language_by_the_clock_of_the_place(hotel: Hotel) -> None:
    pending_booking(hotel, datetime.fromisoformat("2030-07-10T19:00:00+00:00"))
    hotel.run()
    hotel.change_guest(language="en")
    pending_booking(hotel, datetime.fromisoformat("2030-01-10T18:00:00+00:00"))
    hotel.run()
    spanish, english = hotel.ear.heard
    assert (spanish.subject, spanish.language) == ("Recibimos tu reserva en Beach", "es")
    assert "Entrada: miércoles, 10 de julio de 2030, 15:00" in spanish.message
    assert (english.subject, english.language) == ("We received your booking at Beach", "en")
    assert "Check-in: Thursday, January 10, 2030, 3:00 PM" in english.message
    assert "(Chile Time)" in english.message


def test_the_organisation_s_own_words_in_the_guest_s_language_are_used(hotel: Hotel) -> None:
    values = {
        "organization_id": hotel.house.room.organization_id,
        "type": "booking_created",
        "channel": "email",
        "subject": "Welcome {{guest_first_name}}",
        "message": "See you {{check_in_date}} at {{check_in_time}}, {{time_zone}}",
    }
    with hotel.house.engine.begin() as connection:
        connection.execute(sa.insert(notification_templates).values(**values, language="en"))
    first = pending_booking(hotel, datetime.fromisoformat("2030-07-10T19:00:00+00:00"))
    hotel.run()
    hotel.change_guest(language="en")
    second = pending_booking(hotel, datetime.fromisoformat("2030-01-10T18:00:00+00:00"))
    hotel.run()
    spanish, english = hotel.ear.heard
    assert spanish.subject == "Recibimos tu reserva en Beach"
    assert "Entrada: miércoles, 10 de julio de 2030, 15:00" in spanish.message
    assert (english.subject, english.language) == ("Welcome Ana", "en")
    assert english.message == "See you Thursday, January 10, 2030 at 3:00 PM, Chile Time"
    assert hotel.rows(first)[0].template_id is None
    assert hotel.rows(second)[0].template_version == 1


def test_a_failed_one_that_is_to_be_sent_again_is_withdrawn_where_there_is_nothing_to_say(hotel: Hotel) -> None:
    going, gone = pending_booking(hotel), pending_booking(hotel, hotel.house.now + 9 * DAY)
    hotel.house.run()
    hotel.ear.refusals = [not_sent(is_final=True), not_sent(is_final=True)]
    hotel.send()
    hotel.house.delete(gone)
    hotel.house.run()
    assert [hotel.states(booking) for booking in (going, gone)] == [[("booking_created", "failed")]] * 2
    hotel.house.execute("update booking_notifications set status = 'pending', reason = null, num_tries = 0")
    hotel.house.now += MINUTE
    hotel.run()
    assert hotel.states(going) == [("booking_created", "sent")]
    (withdrawn,) = hotel.rows(gone)
    assert (withdrawn.status, withdrawn.is_withdrawn) == ("failed", True)
    assert len(hotel.ear.heard) == 1


def test_a_reason_does_not_name_the_guest(hotel: Hotel, caplog: pytest.LogCaptureFixture) -> None:
    booking = pending_booking(hotel)
    hotel.house.run()
    hotel.ear.refusals = [not_sent("550 no such user: <ANA@example.com>", is_final=True)]
    hotel.send()
    (row,) = hotel.rows(booking)
    assert row.reason == "550 no such user: <(the guest)>"
    assert "ana@" not in caplog.text.lower()


def test_a_guest_who_is_erased_is_told_nothing_more_and_nothing_of_him_is_kept(hotel: Hotel) -> None:
    house = hotel.house
    booking = pending_booking(hotel)
    hotel.run()
    house.cancel(booking)
    house.run()
    erased: dict[str, Any] = {"first_name": "", "last_name": "", "email": None, "phone": None, "erased_at": house.now}
    hotel.change_guest(**erased)
    hotel.send()
    assert hotel.ear.types == ["booking_created"]
    for row in hotel.rows(booking):
        assert (row.recipient, row.sealed_content) == (None, None)
    assert hotel.states(booking) == [("booking_created", "sent"), ("booking_cancelled", "failed")]


def test_who_changes_a_booking_for_long_holds_up_the_sender_not_the_worker(hotel: Hotel) -> None:
    booking = pending_booking(hotel)
    hotel.house.run()
    with hotel.house.engine.connect() as connection:
        connection.execute(sa.select(bookings.c.id).where(bookings.c.id == booking).with_for_update())
        assert hotel.send() == 1
        (row,) = hotel.rows(booking)
        assert (row.status, row.num_attempts, row.may_have_left) == ("pending", 0, False)
    hotel.house.pass_time(MINUTE)
    hotel.send()
    assert hotel.ear.types == ["booking_created"]


@pytest.mark.parametrize(
    ("timezone", "language", "check_in", "check_out", "expected"),
    [
        # Chile puts its clocks forward on 2026-09-06 and back on 2026-04-05, at 24:00 of the day before.
        ("America/Santiago", "es", "2026-09-05T20:00Z", "2026-09-06T15:00Z",
         ("sábado, 5 de septiembre de 2026", "16:00", "domingo, 6 de septiembre de 2026", "12:00", "1", "hora de Chile")),
        ("America/Santiago", "en", "2026-04-04T18:00Z", "2026-04-05T15:00Z",
         ("Saturday, April 4, 2026", "3:00 PM", "Sunday, April 5, 2026", "11:00 AM", "1", "Chile Time")),
        ("Europe/Madrid", "es", "2026-03-28T14:00Z", "2026-03-29T10:00Z",
         ("sábado, 28 de marzo de 2026", "15:00", "domingo, 29 de marzo de 2026", "12:00", "1", "hora de Europa central")),
        ("Europe/Madrid", "en", "2026-10-24T13:00Z", "2026-10-25T11:00Z",
         ("Saturday, October 24, 2026", "3:00 PM", "Sunday, October 25, 2026", "12:00 PM", "1", "Central European Time")),
        ("UTC", "es", "2028-02-28T15:00Z", "2028-03-01T11:00Z",
         ("lunes, 28 de febrero de 2028", "15:00", "miércoles, 1 de marzo de 2028", "11:00", "2", "tiempo universal coordinado")),
        ("UTC", "en", "2028-02-28T15:00Z", "2028-02-28T18:00Z",
         ("Monday, February 28, 2028", "3:00 PM", "Monday, February 28, 2028", "6:00 PM", "0", "Coordinated Universal Time")),
    ],
)  # fmt: skip
def test_times_are_those_of_the_place_in_the_guest_s_language(
    timezone: str, language: str, check_in: str, check_out: str, expected: tuple[str, ...]
) -> None:
    values = stay_values(datetime.fromisoformat(check_in), datetime.fromisoformat(check_out), timezone, language)
    names = ("check_in_date", "check_in_time", "check_out_date", "check_out_time", "num_nights", "time_zone")
    assert tuple(values[name] for name in names) == expected


def test_sealed_content_needs_the_key(hotel: Hotel) -> None:
    booking = pending_booking(hotel)
    hotel.run()
    (row,) = hotel.rows(booking)
    assert b"reserva" in Sealer(SECRET_KEY).unseal(row.sealed_content)
    assert row.recipient == "ana@example.com"


@dataclass
class SlowServer(Mailbox):
    """One that does something else first: before it takes a recipient, and before it says that it takes a letter."""

    at_recipient: Callable[[], object] = lambda: None
    at_answer: Callable[[], object] = lambda: None

    async def handle_RCPT(  # noqa: N802 (as the server calls it)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient, after a while."""
        await asyncio.to_thread(self.at_recipient)
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a letter, and say so after a while."""
        answer = await super().handle_DATA(server, session, envelope)
        await asyncio.to_thread(self.at_answer)
        return answer


@contextmanager
def mail_of(mailbox: Mailbox) -> Iterator[MailChannel]:
    """The channel to a mail server."""
    (port,) = free_ports(1)
    with smtp_server(mailbox, port):
        yield MailChannel(SmtpMailer(f"smtp://127.0.0.1:{port}", "hse@example.com"))


def test_who_cancels_waits_for_no_mail_server_and_nothing_leaves_after_it(hotel: Hotel) -> None:
    house = hotel.house
    booking = pending_booking(hotel)
    house.run()
    server = SlowServer(at_recipient=lambda: house.cancel(booking))
    with mail_of(server) as channel:
        hotel.send("email", channel)
        assert (house.stay(booking).status, server.messages) == ("cancelled", [])
        server.at_recipient = lambda: None
        house.pass_time(MINUTE)
        house.run()
        hotel.send("email", channel)
    assert [message["Subject"] for message in server.messages] == ["Tu reserva en Beach está cancelada"]
    assert hotel.states(booking) == [("booking_created", "failed"), ("booking_cancelled", "sent")]


def test_what_a_mail_server_takes_while_its_booking_is_cancelled_was_sent(hotel: Hotel) -> None:
    house = hotel.house
    booking = pending_booking(hotel)
    house.run()

    def cancel() -> None:
        house.cancel(booking)
        house.look()

    server = SlowServer(at_answer=cancel)
    with mail_of(server) as channel:
        hotel.sender("email", channel).send_one(house.now)
    (created, _) = hotel.rows(booking)
    assert (created.status, created.reason, created.is_withdrawn) == ("sent", None, False)


def test_what_a_mail_server_took_without_a_word_is_not_sent_again_by_itself(
    hotel: Hotel, monkeypatch: pytest.MonkeyPatch
) -> None:
    booking = pending_booking(hotel, hotel.house.now + 40 * DAY)
    hotel.house.run()
    may_answer = threading.Event()
    server = SlowServer(at_answer=may_answer.wait)
    monkeypatch.setattr(mail, "SEND_SECONDS_MAX", 0.5)
    with mail_of(server) as channel:
        try:
            for _ in range(3):
                hotel.send("email", channel)
                hotel.house.pass_time(HOUR)
        finally:
            may_answer.set()
    (row,) = hotel.rows(booking)
    assert (row.status, row.may_have_left, row.num_attempts) == ("failed", True, 1)
    assert "did not say within 0.5 s" in row.reason
    assert len(server.messages) == 1
