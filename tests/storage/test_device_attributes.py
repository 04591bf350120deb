"""What a device reported of itself, as whoever heard it keeps it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.device_attributes import keep_reported
from hse.adapters.postgres.tables import device_attributes, devices, event_outbox, organizations
from hse.domain.errors import Invalid
from hse.wiring.outbox import HANDLERS, EventDispatcher

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def device_id(engine: sa.Engine) -> UUID:
    with engine.begin() as connection:
        owner = connection.execute(sa.insert(organizations).values(name=uuid4().hex).returning(organizations.c.id))
        values = {"organization_id": owner.scalar_one(), "name": "meter"}
        made = connection.execute(sa.insert(devices).values(values).returning(devices.c.id))
        return UUID(str(made.scalar_one()))


def heard(engine: sa.Engine, device_id: UUID, changes: dict[str, Any], *, seconds: int = 0) -> int | None:
    with engine.begin() as connection:
        return keep_reported(connection, device_id, changes, NOW + timedelta(seconds=seconds))


def kept(engine: sa.Engine, device_id: UUID) -> Any:
    row = device_attributes.c
    with engine.begin() as connection:
        statement = sa.select(row.reported, row.reported_version, row.reported_at, row.desired, row.desired_version)
        return connection.execute(statement.where(row.device_id == device_id)).one()


def test_reports_are_merged_and_count_when_they_change_something(engine: sa.Engine, device_id: UUID) -> None:
    assert heard(engine, device_id, {"firmware": "1.2", "net": {"rssi": -70, "ssid": "x"}}) == 1
    assert heard(engine, device_id, {"net": {"rssi": -71}, "firmware": None}, seconds=1) == 2
    assert heard(engine, device_id, {"net": {"rssi": -71.0}}, seconds=2) == 2
    row = kept(engine, device_id)
    assert (row.reported, row.reported_version) == ({"net": {"rssi": -71, "ssid": "x"}}, 2)
    assert row.reported_at == NOW + timedelta(seconds=2)
    assert (row.desired, row.desired_version) == ({}, 0)


def test_a_report_leaves_what_is_desired_as_it_is(engine: sa.Engine, device_id: UUID) -> None:
    with engine.begin() as connection:
        values = {"device_id": device_id, "desired": {"a": 1}, "desired_version": 3}
        connection.execute(sa.insert(device_attributes).values(values))
    assert heard(engine, device_id, {"a": 2}) == 1
    row = kept(engine, device_id)
    assert (row.desired, row.desired_version, row.reported) == ({"a": 1}, 3, {"a": 2})


def test_a_device_does_not_fill_the_table(engine: sa.Engine, device_id: UUID) -> None:
    assert heard(engine, device_id, {"a": "x" * 9_000}) == 1
    for wrong in ({"b": "x" * 9_000}, {"b": "x" * 17_000}, {"": 1}):
        with pytest.raises(Invalid) as refused:
            heard(engine, device_id, wrong)
        assert refused.value.field == "reported"
    assert list(kept(engine, device_id).reported) == ["a"]


def test_a_device_that_is_gone_reports_nothing(engine: sa.Engine) -> None:
    assert heard(engine, uuid4(), {"a": 1}) is None


def test_reports_come_through_the_outbox_and_one_that_is_refused_holds_nothing_up(
    engine: sa.Engine, device_id: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[dict[str, Any]] = [{"a": 1}, {"a": "x" * 17_000}, {"b": 2, "a": None}]
    rows = [
        {"time": NOW, "device_id": device_id, "event_type": "attributes_reported", "metadata": report}
        for report in reports
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(event_outbox), rows)
    dispatcher = EventDispatcher(engine=engine, handlers=HANDLERS)
    while dispatcher.dispatch_batch():
        pass
    assert (kept(engine, device_id).reported, kept(engine, device_id).reported_version) == ({"b": 2}, 2)
    assert dispatcher.counts.events["attributes_reported", "handled"] == 3
    assert str(device_id) in caplog.text
