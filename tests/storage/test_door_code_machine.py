"""Any life of bookings, locks and the worker between them, with a clock that jumps: what locks open follows the bookings.

Checked after every step: no code of a lock opens outside a stay that its booking had; no two codes of a lock are the same; what is
said to be on a lock is there, and what is said to be off it is not. And at the end, once every lock has power and there was time
for what is tried again: locks hold the codes of live bookings, drawn for their guests, with their times, and no others.
"""

import os
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hse.adapters.postgres.engine import create_engine
from hse.embedded.postgres import EmbeddedPostgres
from tests.conftest import a_database
from tests.storage.bookings import change
from tests.storage.door_codes import DAY, HOUR, MINUTE, House, a_house

# So few that codes meet, on one lock and on several.
NUM_DIGITS = 12
SPANS = st.sampled_from([MINUTE, 11 * MINUTE, HOUR, 3 * HOUR, 7 * HOUR, DAY, 3 * DAY])
NUMBER = st.integers(0, 1000)


class Lives(RuleBasedStateMachine):
    """One house."""

    server: EmbeddedPostgres
    template: str

    @initialize(seed=st.integers(0, 2**32), capacity=st.integers(2, 6), is_running=st.booleans())
    def begin(self, seed: int, capacity: int, is_running: bool) -> None:
        """Two rooms behind a front door, with locks that hold a few codes."""
        self.database = a_database(self.server, self.template)
        self.engine = create_engine(self.database.__enter__())
        generator = random.Random(seed)
        choice = [100_003 + 70_001 * number for number in range(NUM_DIGITS)]
        self.house: House = a_house(self.engine, capacity=capacity, random_below=lambda _: generator.choice(choice))
        self.house.add_room()
        self.guests = (self.house.room.guest_id, self.house.another_guest())
        self.booked: list[UUID] = []
        # Every stay that a booking ever had, by (booking): a lock may know the last that it was told.
        self.stays: dict[UUID, set[tuple[datetime, datetime]]] = {}
        for room, away in ((0, 2 * HOUR), (1, 20 * HOUR), (1, 4 * DAY)):
            self.book(room, away, DAY)
        if is_running:
            self.house.run()

    def teardown(self) -> None:
        """Everything comes to rest, and agrees."""
        if not hasattr(self, "house"):
            return
        try:
            self.house.come_to_rest()
            self.what_is_said_is_so()
            self.locks_and_bookings_agree()
        finally:
            self.engine.dispose()
            self.database.__exit__(None, None, None)

    @rule(room=st.integers(0, 1), away=SPANS, nights=SPANS)
    def come_to_stay(self, room: int, away: timedelta, nights: timedelta) -> None:
        self.book(room, away, nights)

    def book(self, room: int, away: timedelta, nights: timedelta) -> None:
        start = self.house.now + away
        if (
            booking := self._attempt(lambda: self.house.book(start, start + nights, self.house.rooms[room]))
        ) is not None:
            self.booked.append(booking)
            self.stays[booking] = {(start, start + nights)}

    @rule(which=NUMBER, away=SPANS, nights=SPANS)
    def move(self, which: int, away: timedelta, nights: timedelta) -> None:
        if self.booked:
            booking, start = self.booked[which % len(self.booked)], self.house.now + away
            times = {"check_in": start, "check_out": start + nights, "free_from": start + nights}
            self._attempt(lambda: change(self.engine, booking, **times))
            stay = self.house.stay(booking)
            if stay is not None:
                self.stays[booking].add((stay.check_in, stay.check_out))

    @rule(which=NUMBER, room=st.integers(0, 1))
    def change_room(self, which: int, room: int) -> None:
        if self.booked:
            booking = self.booked[which % len(self.booked)]
            self._attempt(lambda: change(self.engine, booking, area_id=self.house.rooms[room]))

    @rule(which=NUMBER, guest=st.integers(0, 1))
    def change_guest(self, which: int, guest: int) -> None:
        if self.booked:
            booking = self.booked[which % len(self.booked)]
            self._attempt(lambda: change(self.engine, booking, guest_id=self.guests[guest]))

    @rule(which=NUMBER, end=st.sampled_from(["cancel", "delete"]))
    def give_up(self, which: int, end: str) -> None:
        if self.booked:
            self._attempt(lambda: getattr(self.house, end)(self.booked[which % len(self.booked)]))

    @rule(span=SPANS)
    def jump(self, span: timedelta) -> None:
        self.house.pass_time(span)

    @rule(which=NUMBER)
    def turn_power_on_or_off(self, which: int) -> None:
        self.house.powered ^= {sorted(self.house.locks)[which % len(self.house.locks)]}

    @rule(span=SPANS, way=st.sampled_from([{}, {}, {"answers": False}, {"hears": False}]))
    def live(self, span: timedelta, way: dict[str, bool]) -> None:
        self.house.pass_time(span)
        self.house.run(**way)

    @rule()
    def look(self) -> None:
        self.house.look()

    @rule(hears=st.booleans(), answers=st.booleans(), commands_max=st.integers(1, 5))
    def carry(self, hears: bool, answers: bool, commands_max: int) -> None:
        self.house.carry(hears=hears, answers=answers, commands_max=commands_max)

    @rule()
    def carry_everything(self) -> None:
        self.house.run()

    @rule(which=NUMBER)
    def have_a_lock_s_memory_filled_by_hand(self, which: int) -> None:
        """Somebody sets a code at the lock itself, and takes it away the next time."""
        lock = self.house.locks[sorted(self.house.locks)[which % len(self.house.locks)]]
        if "by hand" in lock.codes:
            del lock.codes["by hand"]
            return
        stay = {"valid_from": self.house.now.isoformat(), "valid_until": (self.house.now + 99 * DAY).isoformat()}
        digits = f"{100_003 + 70_001 * (which % NUM_DIGITS):06}"
        lock.do(
            "set_code", {"code_id": "by hand", "version": 1, "code": digits, "max_usages": None, **stay}, self.house.now
        )

    @invariant()
    def no_code_opens_outside_a_stay_of_its_booking(self) -> None:
        if not hasattr(self, "house"):
            return
        rows = {str(row.id): row for row in self.house.codes()}
        for lock in self.house.locks.values():
            kept = {code_id: code for code_id, code in lock.codes.items() if code_id != "by hand"}
            assert len({code.digits for code in lock.codes.values()}) == len(lock.codes)
            for code_id, code in kept.items():
                assert (code.valid_from, code.valid_until) in self.stays[rows[code_id].booking_id]

    @invariant()
    def what_is_said_is_so(self) -> None:
        if not hasattr(self, "house"):
            return
        for row in self.house.codes():
            code = self.house.locks[row.device_id].codes.get(str(row.id))
            if row.state in ("planned", "revoked"):
                assert code is None, row
            if row.state in ("set", "active") and row.on_lock_until > self.house.now:
                assert code is not None, row
                assert code.valid_from <= row.valid_from, row
                assert code.valid_until >= row.valid_until, row
                assert code.digits == self.house.digits(row)

    def locks_and_bookings_agree(self) -> None:
        wanted: dict[UUID, set[tuple[UUID, datetime, datetime]]] = {one: set() for one in self.house.locks}
        room_locks = [one for one in self.house.locks if one != self.house.front_door]
        for booking in self.booked:
            stay = self.house.stay(booking)
            if stay is None or stay.status not in ("confirmed", "in-progress"):
                assert set(self.house.states(booking)) <= {"revoked"}
                continue
            for lock_id in (self.house.front_door, room_locks[self.house.rooms.index(stay.area_id)]):
                rows = [row for row in self.house.codes(booking, lock_id) if row.ended_at is None]
                assert len(rows) == 1
                assert rows[0].guest_id == stay.guest_id
                if rows[0].state in ("set", "active"):
                    wanted[lock_id].add((rows[0].id, stay.check_in, stay.check_out))
                else:
                    assert rows[0].state == "planned" or rows[0].reason == "full", rows[0]
        for lock_id, lock in self.house.locks.items():
            kept = {
                (UUID(code_id), code.valid_from, code.valid_until)
                for code_id, code in lock.codes.items()
                if code_id != "by hand"
            }
            assert kept == wanted[lock_id]

    def _attempt(self, what: Callable[[], Any]) -> Any:
        """Do what the database may refuse: a slot that is taken, a booking that has begun."""
        try:
            return what()
        except sa.exc.IntegrityError:
            return None


@pytest.mark.timeout(600)
def test_locks_follow_bookings_through_any_life(postgres_server: EmbeddedPostgres, migrated_template: str) -> None:
    Lives.server, Lives.template = postgres_server, migrated_template
    checks = settings(
        max_examples=int(os.environ.get("HSE_MACHINE_EXAMPLES", "10")),
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Lives, settings=checks)
