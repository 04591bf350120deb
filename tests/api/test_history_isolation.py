"""Nobody reads what the devices of another tenant report, also where the history has no row-level security of its own.

The api's login has no right on the events and their aggregates. It has some views, which show the events of the devices that the
transaction has named, and it can name only what row-level security shows it. So these tests ask the views with every WHERE
clause forgotten, and look at every relation that the login may read.
"""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

import hse
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.history import Telemetry
from hse.adapters.postgres.maintenance import refresh_rollups
from hse.domain.policy import EVERYWHERE, NOWHERE
from tests.api.conftest import OUTBOX
from tests.api.test_isolation import as_person
from tests.api.world import Tenant, World
from tests.storage.drain import Reading, drain

VIEWS = (
    "named_events",
    "named_hours",
    "named_days",
    "named_late_hours",
    "named_dead_letters",
    "named_dead_letter_removals",
)
# Whatever else has events in it: the tables, their partitions, what is aggregated of them, what waits to be handled.
HOLDS_EVENTS = "^(device_events.*|rollup_.*|late_hours|event_outbox|dead_letter.*|device_sequences|ingest_cursor)$"
NOW = datetime.now(UTC)


@pytest_asyncio.fixture
async def database(api_database_url: str) -> AsyncIterator[Database]:
    database = Database(api_database_url, pool_size=1, outbox=OUTBOX)
    yield database
    await database.close()


@pytest.fixture
def reported(world: World) -> World:
    """Every device has reported, long ago and just now."""
    engine = create_engine(world.database_url)
    times = [NOW - timedelta(days=9), NOW - timedelta(days=3), NOW]
    devices = [site.device_id for tenant in tenants(world) for site in tenant.sites]
    drain(engine, [Reading(time=time, device_id=device, value=1.0) for device in devices for time in times])
    with engine.begin() as connection:
        for device in devices:
            connection.execute(
                sa.text(
                    "insert into dead_letters (device_id, epoch, seq, received_at, code, reason, event)"
                    " values (:device, 1, 1, :now, 'bad_payload', 'not JSON', '\\x90')"
                ),
                {"device": device, "now": NOW},
            )
            connection.execute(
                sa.text("insert into dead_letter_removals values (:device, 1, now())"), {"device": device}
            )
    refresh_rollups(engine, before=NOW.replace(minute=0, second=0, microsecond=0))
    engine.dispose()
    return world


def tenants(world: World) -> list[Tenant]:
    return [world.tenant, world.other_tenant, world.direct_tenant]


def test_the_api_has_no_right_on_what_holds_events(world: World) -> None:
    with psycopg.connect(world.database_url) as connection:
        relations = connection.execute(
            "select relname, has_table_privilege('hse_api', oid, 'select, insert, update, delete')"
            "       or has_any_column_privilege('hse_api', oid, 'select')"
            "  from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm') and relname ~ %s",
            [HOLDS_EVENTS],
        ).fetchall()
        readable = connection.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('v', 'm')"
            " and has_table_privilege('hse_api', oid, 'select') order by relname"
        ).fetchall()
    assert {"device_events", "device_events_hourly", "rollup_hourly", "late_hours"} <= {name for name, _ in relations}
    assert [name for name, is_granted in relations if is_granted] == []
    # A new view is a new way to read: it belongs into VIEWS, and so under the tests below.
    assert [name for (name,) in readable] == sorted(VIEWS)


def test_no_statement_of_the_control_plane_names_what_holds_events() -> None:
    """Those that do are the operator's and the worker's, which have a login of their own."""
    named = re.compile(r"device_events[,.)\"]|from (device_events|named_)|rollup_")
    naming = {
        path.relative_to(Path(hse.__file__).parent).as_posix()
        for path in Path(hse.__file__).parent.rglob("*.py")
        if named.search(path.read_text(encoding="utf-8"))
    }
    assert naming == {
        "adapters/postgres/dead_letters.py",
        "adapters/postgres/door_code_alarms.py",
        "adapters/postgres/history_statements.py",
        "adapters/postgres/maintenance.py",
        "adapters/postgres/overdue_devices.py",
        "adapters/postgres/tables.py",
        "adapters/postgres/telemetry.py",
    }


async def devices_shown(connection: AsyncConnection) -> dict[str, set[UUID]]:
    return {view: set((await connection.execute(sa.text(f"select device_id from {view}"))).scalars()) for view in VIEWS}


async def test_before_devices_are_named_there_is_nothing(database: Database, reported: World) -> None:
    for person in reported.people:
        async with as_person(database, person) as connection:
            assert await devices_shown(connection) == {view: set() for view in VIEWS}
    async with database.engine.connect() as connection:
        assert await devices_shown(connection) == {view: set() for view in VIEWS}


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("root", [0, 1, 2, 3]),
        ("partner", [0, 1]),
        ("chief", [0, 1]),
        ("admin", [0]),
        ("user", [0]),
        ("other_chief", [2]),
    ],
)
async def test_nobody_can_name_a_device_that_he_does_not_reach(
    database: Database, reported: World, name: str, reached: list[int]
) -> None:
    """With a policy that forgot whom it is about, and reaches everything."""
    devices = [site.device_id for tenant in tenants(reported) for site in tenant.sites]
    async with as_person(database, getattr(reported, name)) as connection:
        telemetry = Telemetry(connection)
        named = await telemetry.name(devices, see=EVERYWHERE, read=EVERYWHERE)
        expected = {devices[number] for number in reached}
        assert {one.id for one in named if one.is_readable} == expected
        assert await devices_shown(connection) == dict.fromkeys(VIEWS, expected)
        # What is named anew takes the place of what was named before, also when it is nothing.
        await telemetry.name(devices[:1], see=EVERYWHERE, read=NOWHERE)
        assert await devices_shown(connection) == {view: set() for view in VIEWS}


async def test_names_go_with_their_transaction(database: Database, reported: World) -> None:
    device = reported.tenant.sites[0].device_id
    async with as_person(database, reported.chief) as connection:
        await Telemetry(connection).name([device], see=EVERYWHERE, read=EVERYWHERE)
        assert (await devices_shown(connection))["named_events"] == {device}
    # The pool has one connection.
    for person in (reported.chief, reported.other_chief):
        async with as_person(database, person) as connection:
            assert await devices_shown(connection) == {view: set() for view in VIEWS}
