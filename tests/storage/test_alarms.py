"""What reports make of the alarms that are kept: one open at most, whatever the order, where the device stands."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.alarms import record_alarms
from hse.domain.relevant import RelevantEvent
from tests.storage.bookings import Room, a_room

START = datetime(2030, 1, 1, tzinfo=UTC)
OTHER_TYPES = 20_000


@pytest.fixture
def room(plain_engine: sa.Engine) -> Room:
    """Somewhere to stand."""
    return a_room(plain_engine)


@pytest.fixture
def device_id(plain_engine: sa.Engine, room: Room) -> UUID:
    """A sensor that stands there."""
    statement = "insert into devices (organization_id, establishment_id, name) values (:o, :e, 'sensor') returning id"
    with plain_engine.begin() as connection:
        values = {"o": room.organization_id, "e": room.establishment_id}
        return UUID(str(connection.execute(sa.text(statement), values).scalar_one()))


def reported(engine: sa.Engine, device_id: UUID, minute: int, **said: Any) -> None:
    event = RelevantEvent(
        id=minute, time=START + timedelta(minutes=minute), device_id=device_id, event_type="alarm", metadata=said
    )
    with engine.begin() as connection:
        record_alarms(connection, [event])


def kept(engine: sa.Engine) -> list[Any]:
    """The alarms, in the order in which they began."""
    with engine.connect() as connection:
        return list(connection.execute(sa.text("select * from device_alarms order by raised_at, state desc")))


def test_a_report_so_late_that_the_open_alarm_becomes_the_older_one_leaves_it_open(
    plain_engine: sa.Engine, device_id: UUID
) -> None:
    reported(plain_engine, device_id, 10)
    reported(plain_engine, device_id, 20, state="cleared")
    reported(plain_engine, device_id, 30)
    reported(plain_engine, device_id, 5)
    reported(plain_engine, device_id, 40, message="still")
    open_one, over = kept(plain_engine)
    assert (over.state, open_one.state, open_one.num_reports, open_one.message) == ("cleared", "active", 3, "still")


def test_what_a_device_says_after_it_was_moved_is_an_alarm_of_its_new_place(
    plain_engine: sa.Engine, room: Room, device_id: UUID
) -> None:
    reported(plain_engine, device_id, 1, message="here")
    with plain_engine.begin() as connection:
        add = sa.text(
            "insert into establishments (organization_id, name, timezone) values (:o, 'there', 'UTC') returning id"
        )
        there = connection.execute(add, {"o": room.organization_id}).scalar_one()
        move = sa.text("update devices set establishment_id = :there where id = :id")
        connection.execute(move, {"there": there, "id": device_id})
    reported(plain_engine, device_id, 2, message="there")
    reported(plain_engine, device_id, 3, message="still there")
    before, after = kept(plain_engine)
    assert (before.establishment_id, before.state, before.message) == (room.establishment_id, "cleared", "here")
    assert (after.establishment_id, after.state, after.message) == (there, "active", "still there")
    assert after.num_reports == 2


def test_what_else_a_device_ever_reported_is_not_read(plain_engine: sa.Engine, room: Room, device_id: UUID) -> None:
    values = {"o": room.organization_id, "e": room.establishment_id, "d": device_id, "n": OTHER_TYPES, "start": START}
    others = """insert into device_alarms
        (organization_id, establishment_id, device_id, type, severity, state, raised_at, last_reported_at)
        select :o, :e, :d, 'type ' || i, 'major', 'active', :start, :start from generate_series(1, :n) i"""
    with plain_engine.begin() as connection:
        connection.execute(sa.text(others), values)
        connection.execute(sa.text("analyze device_alarms"))
        before = num_rows_read(connection)
        record_alarms(
            connection,
            [RelevantEvent(id=1, time=START, device_id=device_id, event_type="alarm", metadata={"type": "type 7"})],
        )
        assert num_rows_read(connection) - before < 100


def num_rows_read(connection: sa.Connection) -> int:
    """Of the alarms, by this transaction."""
    statement = """select pg_stat_get_xact_tuples_returned('device_alarms'::regclass)
        + coalesce((select sum(pg_stat_get_xact_tuples_fetched(indexrelid) + pg_stat_get_xact_tuples_returned(indexrelid))
            from pg_index where indrelid = 'device_alarms'::regclass), 0)"""
    return int(connection.execute(sa.text(statement)).scalar_one())
