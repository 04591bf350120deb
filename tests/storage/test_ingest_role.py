"""The role of the ingest core: every statement the core uses is allowed to it, and what it does not need is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql


@pytest.fixture
def core(engine: sa.Engine) -> Iterator[psycopg.Connection]:
    """A connection under the core's role, in a transaction that is rolled back."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        connection.execute("set role hse_ingest")
        connection.commit()
        yield connection
        connection.rollback()


EVENT_COLUMNS = "(time, device_id, event_type, value, unit, metadata, source)"


def copy_row(core: psycopg.Connection, target: str, row: tuple[object, ...]) -> None:
    with core.cursor() as cursor, cursor.copy(sql.SQL(f"copy {target} from stdin")) as copy:
        copy.write_row(row)


def test_the_drain_may_do_its_transaction(core: psycopg.Connection) -> None:
    device, journal = uuid4(), uuid4()
    time = datetime(2024, 5, 1, 12, tzinfo=UTC)
    row = core.execute("select event_storage(), ensure_event_partitions(%s, %s)", [time, time]).fetchone()
    assert row in {("partitions", 1), ("timescaledb", 0)}
    core.execute("insert into ingest_cursor (journal_id, lane, generation, position) values (%s, 0, 1, 0)", [journal])
    core.execute("select generation, position from ingest_cursor where journal_id = %s for update", [journal])
    core.execute("select stored from device_sequences where device_id = any(%s) for update", [[device]])
    for table in ("device_events", "event_outbox"):
        copy_row(core, f"{table} {EVENT_COLUMNS}", (time, device, "alarm", 1.0, None, "{}", None))
    columns = "(device_id, epoch, seq, received_at, code, reason, event)"
    copy_row(core, f"dead_letters {columns}", (device, 1, 7, time, "refused", "why", b"\x90"))
    with core.cursor() as cursor:
        late = sql.SQL("copy late_hours (device_id, bucket) from stdin where bucket < date_trunc('hour', now(), 'UTC')")
        with cursor.copy(late) as copy:
            copy.write_row((device, time))
    if row[0] == "partitions":
        copy_row(core, "rollup_dirty (device_id, bucket)", (device, time))
    core.execute(
        "insert into device_sequences (device_id, epoch, stored) values (%s, 1, '{[1,5)}') on conflict (device_id, epoch)"
        " do update set stored = device_sequences.stored + excluded.stored, updated_at = now()",
        [device],
    )
    core.execute("update ingest_cursor set position = 9, updated_at = now() where journal_id = %s", [journal])


def test_the_core_reads_the_devices_of_every_tenant(engine: sa.Engine, core: psycopg.Connection) -> None:
    with engine.begin() as connection:
        organization = connection.execute(
            sa.text("insert into organizations (name) values (:name) returning id"), {"name": uuid4().hex}
        ).scalar_one()
        device = connection.execute(
            sa.text("insert into devices (organization_id, name) values (:organization, 'meter') returning id"),
            {"organization": organization},
        ).scalar_one()
    assert core.execute("select id from devices where id = %s", [device]).fetchone() == (device,)
    assert core.execute("select id from organizations where id = %s", [organization]).fetchone() == (organization,)


def test_the_core_may_retry_dead_letters_and_read_the_registry(core: psycopg.Connection) -> None:
    core.execute("select id, organization_id, gateway_id, token_hash, is_enabled from devices")
    core.execute("listen hse_devices")
    core.execute("select event from dead_letters where status = 'pending' for update skip locked")
    core.execute("update dead_letters set attempts = attempts + 1, status = 'permanent' where id = 0")
    core.execute("delete from dead_letters where id = 0")


def test_the_core_reads_the_profiles_of_every_tenant_and_changes_none(
    engine: sa.Engine, core: psycopg.Connection
) -> None:
    with engine.begin() as connection:
        organization = connection.execute(
            sa.text("insert into organizations (name) values (:name) returning id"), {"name": uuid4().hex}
        ).scalar_one()
        profile = connection.execute(
            sa.text(
                "insert into device_profiles (organization_id, name, points, format)"
                " values (:organization, 'meter', '[]', '{\"kind\": \"hdp\"}') returning id"
            ),
            {"organization": organization},
        ).scalar_one()
    columns: LiteralString = "id, organization_id, points, expected_interval_s, format, version"
    row = core.execute(f"select {columns} from device_profiles where id = %s", [profile]).fetchone()
    assert row == (profile, organization, [], None, {"kind": "hdp"}, 1)
    core.execute("select profile_id, modbus from devices")
    core.execute("listen hse_device_profiles")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        core.execute("update device_profiles set name = 'mine'")


def test_the_core_may_read_what_devices_ask_for(core: psycopg.Connection) -> None:
    core.execute("select desired, reported from device_attributes where device_id = %s", [uuid4()])
    core.execute("select case when d.gateway_id is not null then d.name end, d.serial_number from devices d")
    core.execute("listen hse_device_attributes")


def test_the_core_may_read_what_it_stored(core: psycopg.Connection) -> None:
    core.execute("select time, event_type, value, unit, metadata from device_events where device_id = %s", [uuid4()])


@pytest.mark.parametrize(
    "statement",
    [
        "select bucket from device_events_hourly",
        "delete from device_events",
        "truncate device_events",
        "select id from event_outbox",
        "select establishment_id from devices",
        "select code_hash from device_claims",
        "update device_attributes set reported = '{}'",
        "update devices set is_enabled = true",
        "insert into devices (organization_id, name) values (gen_random_uuid(), 'mine')",
        "delete from device_sequences",
        "delete from late_hours",
        "delete from ingest_cursor",
        "select name from organizations",
        "update alembic_version set version_num = ''",
        "create table mine ()",
    ],
)
def test_what_the_core_does_not_need_is_refused(core: psycopg.Connection, statement: LiteralString) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        core.execute(statement)


def test_the_partition_maker_cannot_be_led_astray(plain_engine: sa.Engine) -> None:
    """It runs with its owner's rights, so what it calls is found in fixed schemas and never in the caller's."""
    with plain_engine.connect() as connection:
        row = connection.execute(
            sa.text("select prosecdef, proconfig from pg_proc where proname = 'ensure_event_partitions'")
        ).one()
    assert row.prosecdef is True
    assert "search_path=pg_catalog, public, pg_temp" in row.proconfig
