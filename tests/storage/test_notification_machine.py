"""Any life of bookings with a clock that jumps, and senders that fail and die: what guests hear is what is so, and each thing once.

What came in twice under one id counts once: so do receivers who drop repeats. Checked after every step: nothing but a cancellation
was sent of a booking that was cancelled or deleted before; no thing was told twice; codes that were told were on their locks then.
And once everything has come to rest: who has a booking that is still to end knows of it as it is, and nothing waits.
"""

import os
from datetime import datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hse.adapters.channels import Notice
from hse.adapters.postgres.engine import create_engine
from hse.domain.booking.notifications import SAY_THE_TERMS
from hse.embedded.postgres import EmbeddedPostgres
from tests.conftest import a_database
from tests.storage.bookings import book, change
from tests.storage.door_codes import DAY, HOUR, MINUTE
from tests.storage.notices import Hotel, a_hotel, not_sent

SPANS = st.sampled_from([timedelta(seconds=31), MINUTE, 11 * MINUTE, HOUR, 3 * HOUR, 9 * HOUR, DAY, 3 * DAY])
NUMBER = st.integers(0, 1000)
ONCE = frozenset({"booking_created", "booking_confirmed", "booking_cancelled", "check_out_reminder"})


class Died(BaseException):
    """The worker is gone, as far as its transaction is concerned."""


class Lives(RuleBasedStateMachine):
    """One hotel."""

    server: EmbeddedPostgres
    template: str

    @initialize(is_running=st.booleans())
    def begin(self, is_running: bool) -> None:
        """Two rooms behind a front door, and a few bookings."""
        self.database = a_database(self.server, self.template)
        self.engine = create_engine(self.database.__enter__())
        self.hotel: Hotel = a_hotel(self.engine)
        self.house = self.hotel.house
        self.house.add_room()
        self.booked: list[UUID] = []
        self.ended: set[UUID] = set()
        self.mistakes: list[str] = []
        self.heard: dict[UUID, Notice] = {}
        # What a guest was told last of his stay: what it was at that moment.
        self.knows: dict[UUID, tuple[object, ...]] = {}
        self.hotel.ear.before = self.hear
        for room, away in ((0, 2 * HOUR), (1, 20 * HOUR), (1, 6 * DAY)):
            self.book(room, away, DAY)
        if is_running:
            self.hotel.run()

    def hear(self, notice: Notice) -> None:
        """Something is about to come in. With refusals waiting it does not."""
        if self.hotel.ear.refusals or notice.id in self.heard:
            return
        kept = self.house.stay(notice.booking_id)
        if notice.booking_id in self.ended and notice.type != "booking_cancelled":
            self.mistakes.append(f"{notice.type} after the end of {notice.booking_id}")
        if kept is None:
            return
        if notice.type in SAY_THE_TERMS:
            self.knows[notice.booking_id] = self.terms(notice.booking_id)
        if notice.type == "check_in_instructions":
            told = {line.rpartition(": ")[2] for line in notice.message.splitlines() if line.startswith("lock ")}
            on_lock = {
                row.state in ("set", "active") and self.house.digits(row)
                for row in self.house.codes(notice.booking_id)
                if row.ended_at is None
            }
            if not told or not told <= on_lock:
                self.mistakes.append("codes were told that are not on their locks")
        self.heard[notice.id] = notice

    def terms(self, booking_id: UUID) -> tuple[object, ...]:
        """What a guest goes by."""
        row = self.house.stay(booking_id)
        return (row.area_id, row.check_in, row.check_out, row.num_guests)

    def pick(self, number: int) -> UUID:
        """One of the bookings."""
        return self.booked[number % len(self.booked)]

    @rule(room=st.integers(0, 1), away=SPANS, lasting=SPANS, looks=st.booleans())
    def book_more(self, room: int, away: timedelta, lasting: timedelta, looks: bool) -> None:
        """Somebody books, and the worker may see it at once."""
        self.book(room, away, lasting)
        if looks:
            self.house.look()

    def book(self, room: int, away: timedelta, lasting: timedelta) -> None:
        """Somebody books, if there is room."""
        begins = self.house.now + away
        area = self.house.rooms[room]
        try:
            self.booked.append(book(self.engine, self.house.room, begins, begins + lasting, area_id=area))
        except sa.exc.IntegrityError:
            return

    def try_change(self, booking_id: UUID, **changes: object) -> bool:
        """Change a booking, if that may be."""
        kept = self.house.stay(booking_id)
        if kept is None or kept.check_in <= self.house.now:
            return False
        try:
            change(self.engine, booking_id, **changes)
        except sa.exc.IntegrityError:
            return False
        return True

    @rule(number=NUMBER, looks=st.booleans())
    def confirm(self, number: int, looks: bool) -> None:
        """Confirm."""
        self.try_change(self.pick(number), status="confirmed")
        if looks:
            self.house.look()

    @rule(number=NUMBER, span=SPANS)
    def prolong(self, number: int, span: timedelta) -> None:
        """Another check-out."""
        kept = self.house.stay(self.pick(number))
        if kept is not None:
            ends: datetime = kept.check_in + span
            self.try_change(kept.id, check_out=ends, free_from=ends)

    @rule(number=NUMBER, room=st.integers(0, 1), looks=st.booleans())
    def move(self, number: int, room: int, looks: bool) -> None:
        """Another room."""
        self.try_change(self.pick(number), area_id=self.house.rooms[room])
        if looks:
            self.house.look()

    @rule(number=NUMBER, num_guests=st.integers(1, 2))
    def be_others(self, number: int, num_guests: int) -> None:
        """More guests, or fewer."""
        self.try_change(self.pick(number), num_guests=num_guests)

    @rule(number=NUMBER)
    def note(self, number: int) -> None:
        """What is nothing to the guest."""
        self.try_change(self.pick(number), special_requests="a cot")

    @rule(number=NUMBER, is_sending=st.booleans())
    def cancel(self, number: int, is_sending: bool) -> None:
        """Cancel; what waits may be taken to be sent before the worker sees that."""
        booking = self.pick(number)
        if self.try_change(booking, status="cancelled", cancelled_at=self.house.now, cancelled_by=UUID(int=7)):
            self.ended.add(booking)
        if is_sending:
            self.hotel.send()

    @rule(number=NUMBER)
    def delete(self, number: int) -> None:
        """Delete."""
        booking = self.pick(number)
        kept = self.house.stay(booking)
        if kept is not None and kept.status in ("pending", "confirmed") and kept.check_in > self.house.now:
            self.house.delete(booking)
            self.ended.add(booking)

    @rule(span=SPANS)
    def pass_time(self, span: timedelta) -> None:
        """Time passes, with nobody at work."""
        self.house.pass_time(span)

    @rule()
    def look(self) -> None:
        """The worker looks at bookings."""
        self.house.look()

    @rule(num_commands=st.integers(1, 5), answers=st.booleans())
    def carry(self, num_commands: int, answers: bool) -> None:
        """Locks hear some commands."""
        self.house.carry(answers=answers, commands_max=num_commands)

    @rule(number=NUMBER)
    def switch(self, number: int) -> None:
        """A lock loses its power, or has it again."""
        lock = [*self.house.locks][number % len(self.house.locks)]
        self.house.powered ^= {lock}

    @rule(num_refusals=st.integers(0, 3), is_final=st.booleans(), may_have_left=st.booleans())
    def send(self, num_refusals: int, is_final: bool, may_have_left: bool) -> None:
        """A sender sends what is due; some of it is refused."""
        ear = self.hotel.ear
        ear.refusals = [not_sent(is_final=is_final, may_have_left=may_have_left) for _ in range(num_refusals)]
        self.hotel.send()
        ear.refusals = []

    @rule()
    def send_and_die(self) -> None:
        """A sender dies after the first thing that it sends, before it writes that down."""

        def die(_: Notice) -> None:
            raise Died

        self.hotel.ear.after = die
        try:
            self.hotel.send()
        except Died:
            pass
        finally:
            self.hotel.ear.after = lambda _: None

    @invariant()
    @precondition(lambda self: hasattr(self, "house"))
    def each_is_told_once(self) -> None:
        """No thing twice, and nothing after the end."""
        assert self.mistakes == []
        told = [(one.booking_id, one.type) for one in self.heard.values() if one.type in ONCE]
        assert len(told) == len(set(told))
        codes = [(one.booking_id, one.message) for one in self.heard.values() if one.type == "check_in_instructions"]
        assert len(codes) == len(set(codes))

    def teardown(self) -> None:
        """Everything comes to rest, and the guests know what is so."""
        if not hasattr(self, "house"):
            return
        try:
            if not self.mistakes:
                self.check_rest()
        finally:
            self.engine.dispose()
            self.database.__exit__(None, None, None)

    def check_rest(self) -> None:
        """After all that is tried again."""
        for _ in range(3):
            self.house.come_to_rest()
            self.hotel.run()
        self.each_is_told_once()
        for booking in self.booked:
            rows, kept = self.hotel.rows(booking), self.house.stay(booking)
            assert [row.type for row in rows if row.status == "pending"] == []
            if kept is None or kept.status == "cancelled" or kept.check_out <= self.house.now:
                continue
            last = [row for row in rows if row.type in SAY_THE_TERMS and not row.is_withdrawn][-1]
            if last.status == "sent":
                assert self.knows[booking] == self.terms(booking)


@pytest.mark.timeout(600)
def test_guests_hear_what_is_so_and_each_thing_once(postgres_server: EmbeddedPostgres, migrated_template: str) -> None:
    Lives.server, Lives.template = postgres_server, migrated_template
    checks = settings(
        max_examples=int(os.environ.get("HSE_MACHINE_EXAMPLES", "10")),
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Lives, settings=checks)
