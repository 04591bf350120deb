"""The whole life of bookings with a clock that jumps, against the real database: the api's commands, the worker's loop, a model.

The model is written down here a second time, as the requirements have it: so what is found is held against what must be, and not
against itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
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

from hse.adapters.postgres.booking_tables import booking_history, bookings
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.work import Origin, PostgresWork
from hse.domain.booking import booking_settings as settings_of
from hse.domain.booking import bookings as commands
from hse.domain.booking.model import Booking, BookingNotOpen, SlotTaken, StayIsOver
from hse.domain.errors import DomainError
from hse.domain.identity.principals import SessionPrincipal
from hse.wiring.bookings import BookingKeeper
from tests.api.booked import new_guest
from tests.api.conftest import OUTBOX
from tests.api.world import World

HOUR = timedelta(hours=1)
NUM_AREAS = 2
ALLOWED = {
    ("pending", "confirmed"),
    ("pending", "cancelled"),
    ("confirmed", "in-progress"),
    ("confirmed", "cancelled"),
    ("in-progress", "completed"),
}


@dataclass(frozen=True)
class Known:
    """A booking as it must be."""

    area_id: UUID
    check_in: datetime
    check_out: datetime
    free_from: datetime
    status: str = "pending"
    reason: str | None = None

    def at(self, now: datetime) -> str:
        """Its state by the clock."""
        if self.status == "confirmed" and self.check_in <= now:
            return "completed" if self.check_out <= now else "in-progress"
        return "completed" if self.status == "in-progress" and self.check_out <= now else self.status


class Life(RuleBasedStateMachine):
    """Guests book, clerks change their minds, the clock jumps, and the worker comes when it likes."""

    def __init__(self, world: World, api_url: str, engine: sa.Engine) -> None:
        super().__init__()
        self.world = world
        self.runner = asyncio.Runner()
        self.runner.get_loop()
        self.database = self.runner.run(self._open(api_url))
        self.engine = engine
        self.keeper = BookingKeeper(engine=engine)
        # Ahead of the database's own clock, by which its rows fall due.
        self.now = datetime.now(UTC).replace(microsecond=0) + HOUR
        self.known: dict[UUID, Known] = {}
        self.gap = HOUR
        self.grace: timedelta | None = None
        self.seen: dict[UUID, str] = {}

    async def _open(self, api_url: str) -> Database:
        return Database(api_url, pool_size=1, outbox=OUTBOX)

    @initialize()
    def furnish(self) -> None:
        tenant = self.runner.run(self._tenant())
        self.site, self.areas, self.guest = tenant

    async def _tenant(self) -> tuple[UUID, list[UUID], UUID]:
        with psycopg.connect(self.world.database_url) as self.world._connection:
            tenant = self.world.add_tenant(f"Hotel {id(self)} {self.now.timestamp()} {datetime.now(UTC)}", None)
        guest = new_guest(self.world, tenant)
        part = self.world.add_part(tenant, tenant.sites[0])
        return tenant.sites[0].id, [tenant.sites[0].area_id, part][:NUM_AREAS], guest

    def teardown(self) -> None:
        self.runner.run(self.database.close())
        self.runner.close()

    def do(self, command: Callable[[PostgresWork], Awaitable[Any]]) -> Any:
        """Run a command of the api at this moment; what it answers, or the refusal."""

        async def run() -> Any:
            principal = SessionPrincipal(session_id=self.world.root.session_id)
            async with self.database.work(principal, Origin(), self.now) as work:
                try:
                    result = await command(work)
                except DomainError as refusal:
                    return refusal
                await work.commit()
                return result

        return self.runner.run(run())

    def in_the_way(self, wanted: Known, but: UUID | None = None) -> bool:
        return any(
            one.check_in < wanted.free_from and wanted.check_in < one.free_from
            for booking_id, one in self.known.items()
            if booking_id != but and one.area_id == wanted.area_id and one.status != "cancelled"
        )

    @rule(area=st.integers(0, NUM_AREAS - 1), ahead=st.integers(-5, 30), lasting=st.integers(1, 30))
    def book(self, area: int, ahead: int, lasting: int) -> None:
        check_in = self.now + ahead * HOUR
        check_out = check_in + lasting * HOUR
        wanted = Known(self.areas[area], check_in, check_out, check_out + self.gap)
        command = commands.CreateBooking(
            area_id=wanted.area_id, guest_id=self.guest, check_in=check_in, check_out=check_out
        )
        made = self.do(lambda work: commands.create_booking(work, command))
        if check_out <= self.now:
            assert isinstance(made, StayIsOver)
        elif self.in_the_way(wanted):
            assert isinstance(made, SlotTaken)
            assert made.check_in is not None
            assert any(one.check_in == made.check_in and one.check_out == made.check_out for one in self.known.values())
        else:
            assert isinstance(made, Booking)
            self.known[made.id] = wanted

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 100))
    def confirm(self, which: int) -> None:
        booking_id, one = self.one(which)
        done = self.do(lambda work: commands.confirm_booking(work, booking_id))
        if one.status == "confirmed":
            assert done.status == "confirmed"
        elif one.at(self.now) != "pending":
            assert isinstance(done, BookingNotOpen)
        elif one.check_out <= self.now:
            assert isinstance(done, StayIsOver)
        else:
            assert done.status == "confirmed"
            self.known[booking_id] = replace(one, status="confirmed")

    @precondition(lambda self: self.known)
    @rule(
        which=st.integers(0, 100),
        area=st.integers(0, NUM_AREAS - 1),
        ahead=st.integers(-5, 30),
        lasting=st.integers(1, 30),
    )
    def move(self, which: int, area: int, ahead: int, lasting: int) -> None:
        booking_id, one = self.one(which)
        check_in = self.now + ahead * HOUR
        check_out = check_in + lasting * HOUR
        wanted = replace(
            one, area_id=self.areas[area], check_in=check_in, check_out=check_out, free_from=check_out + self.gap
        )
        command = commands.ChangeBooking(area_id=wanted.area_id, check_in=check_in, check_out=check_out)
        done = self.do(lambda work: commands.change_booking(work, booking_id, command))
        if one.at(self.now) not in ("pending", "confirmed"):
            assert isinstance(done, BookingNotOpen)
        elif check_out <= self.now:
            assert isinstance(done, StayIsOver)
        elif self.in_the_way(wanted, but=booking_id):
            assert isinstance(done, SlotTaken)
        else:
            assert isinstance(done, Booking)
            self.known[booking_id] = wanted

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 100), is_deleted=st.booleans())
    def give_up(self, which: int, is_deleted: bool) -> None:
        booking_id, one = self.one(which)
        if is_deleted:
            done = self.do(lambda work: commands.delete_booking(work, booking_id))
        else:
            cancel = commands.CancelBooking(reason="Ill")
            done = self.do(lambda work: commands.cancel_booking(work, booking_id, cancel))
        if one.at(self.now) in ("pending", "confirmed"):
            assert not isinstance(done, DomainError)
            if is_deleted:
                del self.known[booking_id]
                self.seen.pop(booking_id, None)
            else:
                self.known[booking_id] = replace(one, status="cancelled", reason="Ill")
        elif one.status == "cancelled" and not is_deleted:
            assert done.status == "cancelled"
        else:
            assert isinstance(done, BookingNotOpen)

    @rule(margin=st.sampled_from([0, 30, 60, 180]), grace=st.sampled_from([None, 0, 60, 600]))
    def change_settings(self, margin: int, grace: int | None) -> None:
        command = settings_of.ChangeBookingSettings(
            check_in_margin_minutes=margin, check_out_margin_minutes=0, no_show_grace_minutes=grace
        )
        done = self.do(lambda work: settings_of.change_booking_settings(work, self.site, command))
        assert not isinstance(done, DomainError)
        gap = timedelta(minutes=margin)
        if gap != self.gap:
            for booking_id, one in [*self.known.items()]:
                if one.status in ("cancelled", "completed"):
                    continue
                following = [
                    other.check_in
                    for other in self.known.values()
                    if other.area_id == one.area_id and other.status != "cancelled" and other.check_in > one.check_in
                ]
                self.known[booking_id] = replace(one, free_from=min([one.check_out + gap, *following]))
        self.gap, self.grace = gap, None if grace is None else timedelta(minutes=grace)

    @rule(hours=st.integers(1, 20))
    def let_time_pass(self, hours: int) -> None:
        self.now += hours * HOUR

    @rule()
    def let_the_worker_come(self) -> None:
        while self.keeper.keep_due(self.now):
            pass
        for booking_id, one in [*self.known.items()]:
            if one.status == "pending" and self.grace is not None and one.check_in + self.grace <= self.now:
                self.known[booking_id] = replace(one, status="cancelled", reason="no_show")
            else:
                self.known[booking_id] = replace(one, status=one.at(self.now))

    @rule()
    def let_the_worker_die_in_the_middle(self) -> None:
        def die(*_: object) -> None:
            raise KeyboardInterrupt

        doomed = BookingKeeper(engine=self.engine, consequences=[die])
        with suppress(KeyboardInterrupt):
            doomed.keep_due(self.now)

    def one(self, which: int) -> tuple[UUID, Known]:
        booking_ids = sorted(self.known)
        booking_id = booking_ids[which % len(booking_ids)]
        return booking_id, self.known[booking_id]

    @invariant()
    def all_is_as_it_must_be(self) -> None:
        if not hasattr(self, "areas"):
            return
        with self.engine.connect() as connection:
            rows = connection.execute(
                sa.select(bookings).where(bookings.c.area_id.in_(self.areas)).order_by(bookings.c.check_in)
            ).all()
            told = connection.execute(
                sa.select(booking_history.c.booking_id, booking_history.c.status)
                .where(booking_history.c.establishment_id == self.site)
                .order_by(booking_history.c.id)
            ).all()
        found = {
            row.id: Known(row.area_id, row.check_in, row.check_out, row.free_from, row.status, row.cancellation_reason)
            for row in rows
        }
        assert found == self.known
        for area in self.areas:
            live = [one for one in found.values() if one.area_id == area and one.status != "cancelled"]
            assert all(one.free_from <= other.check_in for one, other in pairwise(live))
        ways: dict[UUID, list[str]] = {}
        for row in told:
            ways.setdefault(row.booking_id, []).append(row.status)
        for states in ways.values():
            assert states[0] == "pending"
            assert all(one == other or (one, other) in ALLOWED for one, other in pairwise(states))


@contextmanager
def an_engine(url: str) -> Iterator[sa.Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.mark.timeout(600)
def test_bookings_live_as_the_requirements_say_whenever_the_clock_jumps_and_the_worker_comes(
    world: World, api_database_url: str
) -> None:
    with an_engine(world.database_url) as engine:
        run_state_machine_as_test(
            partial(Life, world, api_database_url, engine),  # type: ignore[arg-type]
            settings=settings(
                max_examples=40,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )
