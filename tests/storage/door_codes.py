"""A house with locks, its bookings and codes, a worker that looks at them, and a way between it and the locks that loses anything.

The clock is the test's. Between the queue of commands and a lock stands what the dispatcher, the node and the socket do together:
commands in order, each at least once, with or without an answer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from hse.adapters.postgres.booking_tables import bookings
from hse.adapters.postgres.command_queues import IS_TO_BE_SENT, ReportedCommand, answer, apply_reports
from hse.adapters.postgres.door_code_keeper import DoorCodeKeeper
from hse.adapters.postgres.door_code_tables import door_lock_codes
from hse.adapters.postgres.tables import device_commands
from hse.adapters.sealing import Sealer, derived_key
from hse.domain.devices.device_commands import Report, Told
from hse.simulation.commanded import Answer
from hse.simulation.locks import Lock
from hse.wiring.bookings import BookingKeeper
from tests.api.world import SECRET_KEY
from tests.storage.bookings import Room, a_room, book, change

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
LOOKS_MAX = 100

command = device_commands.c


@dataclass
class House:
    """An establishment with rooms, each behind the front door, and what its worker and its locks know."""

    engine: sa.Engine
    now: datetime
    random_below: Callable[[int], int] = random.SystemRandom().randrange
    capacity: int = 250
    room: Room = field(init=False)
    rooms: list[UUID] = field(default_factory=list)
    locks: dict[UUID, Lock] = field(default_factory=dict)
    powered: set[UUID] = field(default_factory=set)
    front_door: UUID = field(init=False)
    keeper: BookingKeeper = field(init=False)
    # What was heard by each lock, in order.
    told: list[tuple[UUID, str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.room = a_room(self.engine)
        self.rooms.append(self.room.area_id)
        sealer = Sealer(SECRET_KEY)
        codes = DoorCodeKeeper(sealer=sealer, mac_key=derived_key(SECRET_KEY, "door codes"), random_below=self._draw)
        self.keeper = BookingKeeper(engine=self.engine, consequences=[codes.keep])
        self.front_door = self.add_lock(None)
        self.add_lock(self.room.area_id)

    def _draw(self, below: int) -> int:
        return self.random_below(below)

    def execute(self, statement: str, **given: Any) -> list[Any]:
        """Run a statement in a transaction of its own."""
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), given)
            return list(result) if result.returns_rows else []

    def add_room(self) -> UUID:
        """Another room with a lock."""
        (row,) = self.execute(
            "insert into areas (organization_id, establishment_id, name, type) values (:owner, :site, :name, 'room')"
            " returning id",
            owner=self.room.organization_id,
            site=self.room.establishment_id,
            name=f"room {len(self.rooms)}",
        )
        self.rooms.append(row.id)
        self.add_lock(row.id)
        return self.rooms[-1]

    def add_lock(self, area_id: UUID | None, gateway_id: UUID | None = None) -> UUID:
        """A lock, in an area or of the establishment as a whole."""
        (row,) = self.execute(
            "insert into devices (organization_id, establishment_id, area_id, gateway_id, name, device_type)"
            " values (:owner, :site, :area, :gateway, :name, 'doorlock') returning id",
            owner=self.room.organization_id,
            site=self.room.establishment_id,
            area=area_id,
            gateway=gateway_id,
            name=f"lock {len(self.locks)}",
        )
        self.locks[row.id] = Lock(capacity=self.capacity)
        self.powered.add(row.id)
        return UUID(str(row.id))

    def book(self, check_in: datetime, check_out: datetime, area_id: UUID | None = None, **more: Any) -> UUID:
        """A confirmed booking."""
        values = {"area_id": area_id or self.room.area_id, "created_by": UUID(int=7), **more}
        booking_id = book(self.engine, self.room, check_in, check_out, **values)
        change(self.engine, booking_id, status="confirmed")
        return booking_id

    def another_guest(self) -> UUID:
        """Somebody else, in whose name a booking may go on."""
        (row,) = self.execute(
            "insert into guests (organization_id, first_name, last_name, email)"
            " values (:owner, 'Eva', 'Rojas', 'eva@example.com') returning id",
            owner=self.room.organization_id,
        )
        return UUID(str(row.id))

    def cancel(self, booking_id: UUID) -> None:
        """Cancel a booking."""
        change(self.engine, booking_id, status="cancelled", cancelled_at=self.now, cancelled_by=UUID(int=7))

    def delete(self, booking_id: UUID) -> None:
        """Delete a booking."""
        self.execute("delete from bookings where id = :id", id=booking_id)

    def look(self) -> None:
        """The worker looks at everything that is due."""
        for _ in range(LOOKS_MAX):
            if self.keeper.keep_due(self.now) == 0:
                return
        raise AssertionError("the worker does not come to rest")

    def run(self, **ways: Any) -> None:
        """Worker and locks, until nothing is left to be done now."""
        self.look()
        while self.carry(**ways):
            self.look()

    def carry(self, *, hears: bool = True, answers: bool = True, commands_max: int = 1000) -> int:
        """Bring commands to the locks that have power, in order. A lock that does not hear loses what it was sent; one that does
        not answer has done it."""
        statement = sa.select(*command).where(IS_TO_BE_SENT, command.deadline > self.now).order_by(command.number)
        with self.engine.connect() as connection:
            waiting = [row for row in connection.execute(statement) if self.lock_of(row) in self.powered]
        for row in waiting[:commands_max]:
            self._bring(row, hears=hears, answers=answers)
        return len(waiting[:commands_max])

    @staticmethod
    def lock_of(row: Any) -> UUID:
        """The lock that a command is for."""
        return UUID(str(row.params.get("lock_id", row.device_id)))

    def _bring(self, row: Any, *, hears: bool, answers: bool) -> None:
        self.execute(
            "update device_commands set dispatch = 'under_way', attempts = attempts + 1 where id = :id", id=row.id
        )
        self.report(row, Report(told=Told.DELIVERED, at=self.now))
        if not hears:
            return
        said = self.do(row)
        if answers:
            self.report(row, answer(self.now, status=said.status, message=said.message, result=said.data))

    def do(self, row: Any) -> Answer:
        """The lock that a command is for does it."""
        lock_id = self.lock_of(row)
        secret = {}
        if row.sealed_params is not None:
            secret = msgspec.json.decode(Sealer(SECRET_KEY).unseal(row.sealed_params))
        self.told.append((lock_id, row.type, {**row.params, **secret}))
        return self.locks[lock_id].do(row.type, {**row.params, **secret}, self.now)

    def report(self, row: Any, report: Report) -> None:
        """Something is told of a command."""
        reported = ReportedCommand(command_id=row.id, device_id=row.device_id, report=report)
        with self.engine.begin() as connection:
            apply_reports(connection, [reported])

    def pass_time(self, span: timedelta) -> None:
        """So much time passes at once, without anybody looking; commands end at their deadlines."""
        self.now += span
        statement = sa.select(*command).where(command.finished_at.is_(None), command.deadline <= self.now)
        with self.engine.connect() as connection:
            late = connection.execute(statement).all()
        for row in late:
            self.report(row, Report(told=Told.DEADLINE_PASSED, at=row.deadline))

    def come_to_rest(self) -> None:
        """Every lock has power, and there is time for all that is tried again."""
        self.powered |= self.locks.keys()
        for _ in range(8):
            self.run()
            self.pass_time(11 * MINUTE)
        self.run()

    def codes(self, booking_id: UUID | None = None, lock_id: UUID | None = None) -> list[Any]:
        """Codes as they stand, of a booking or a lock, in the order of their making."""
        code = door_lock_codes.c
        where = [code.booking_id == booking_id] if booking_id else []
        where += [code.device_id == lock_id] if lock_id else []
        with self.engine.connect() as connection:
            found = connection.execute(sa.select(*code).where(*where).order_by(code.created_at, code.id))
            return list(found)

    def states(self, booking_id: UUID) -> list[str]:
        """The states of a booking's codes, sorted."""
        return sorted(row.state for row in self.codes(booking_id))

    def digits(self, row: Any) -> str:
        """The digits of a code."""
        return Sealer(SECRET_KEY).unseal(row.sealed_code).decode()

    def alarms(self) -> list[tuple[str, str]]:
        """Type and state of the alarms, in order."""
        rows = self.execute("select type, state from device_alarms order by raised_at, id")
        return [(row.type, row.state) for row in rows]

    def stay(self, booking_id: UUID) -> Any:
        """A booking as it stands; None when it is deleted."""
        with self.engine.connect() as connection:
            return connection.execute(sa.select(*bookings.c).where(bookings.c.id == booking_id)).one_or_none()


def a_house(engine: sa.Engine, **more: Any) -> House:
    """A house at a moment a little ahead of the database's clock, by which rows of the queue are due."""
    return House(engine, datetime.now(UTC).replace(microsecond=0) + HOUR, **more)
