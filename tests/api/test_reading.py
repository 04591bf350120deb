"""Reading in one wait for the database: what it costs, and that nobody is answered as who he was a moment ago."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from litestar import Litestar

from hse.adapters.live_states import NoLiveStates
from hse.adapters.postgres.audit import AuditEntries
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.devices import Devices
from hse.adapters.postgres.pipeline import PREPARED_MAX
from hse.adapters.postgres.plans import DIALECT
from hse.adapters.postgres.roles import Roles
from hse.adapters.postgres.tables import areas, devices, establishments
from hse.adapters.postgres.users import Users
from hse.adapters.postgres.work import Origin, PostgresWork
from hse.api.history import History
from hse.domain.devices import queries
from hse.domain.identity.principals import SessionPrincipal
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Reach
from hse.domain.telemetry.model import DeviceState
from tests.api.conftest import OUTBOX, Client, problem_of
from tests.api.test_isolation import SCOPE_SETTINGS
from tests.api.world import Person, World


@pytest_asyncio.fixture
async def database(api_database_url: str) -> AsyncIterator[Database]:
    """A database with one connection to read through, so that everybody gets the one that somebody else had."""
    database = Database(api_database_url, pool_size=1, outbox=OUTBOX)
    yield database
    await database.close()


async def read_as(database: Database, person: Person, statement: sa.Executable) -> sa.Result[Any]:
    async def run(work: PostgresWork) -> sa.Result[Any]:
        return await work.connection.execute(statement)

    return await database.read(
        SessionPrincipal(session_id=person.session_id), Origin(), datetime.now(UTC), run, nothing
    )


async def nothing(_: PostgresWork) -> None:
    """Admits everybody."""


class AllConnected(NoLiveStates):
    """Says of every device that it is connected."""

    async def find(self, device_ids: Sequence[UUID]) -> Mapping[UUID, DeviceState] | None:
        """All of them."""
        return {
            one: DeviceState(
                device_id=one,
                status="online",
                is_live=True,
                last_event=None,
                connection=None,
                updated_at=None,
                overdue_since=None,
            )
            for one in device_ids
        }


async def statements_of(app: Litestar, client: Client, path: str, person: Person) -> tuple[int, list[str]]:
    """How often a request waits for the database, and for what."""
    pool, statements = app.state.database.readers.pool, []
    waits = pool.num_flights
    pool.on_statement = lambda text: statements.append(text.decode())
    assert (await client.get(path, headers=person.headers)).status_code == 200
    pool.on_statement = None
    return pool.num_flights - waits, statements


# --- what it costs ---


@pytest.mark.parametrize("path", ["devices", "areas?sort=-name&q=Hall", "users", "roles", "sessions", "audit-entries"])
async def test_a_list_is_one_wait_for_the_database(app: Litestar, api: Client, world: World, path: str) -> None:
    """The first one of a session is two: nobody knows yet who that is."""
    assert (await statements_of(app, api, f"/api/v1/{path}", world.chief))[0] == 2
    for _ in range(3):
        waits, statements = await statements_of(app, api, f"/api/v1/{path}", world.chief)
        assert waits == 1
        assert "hse_enter_session" in statements[0]
        assert len(statements) == 2


async def test_a_device_s_state_is_one_wait_for_the_database_and_what_is_stored_of_it_one_more(
    app: Litestar, api: Client, world: World
) -> None:
    device = world.tenant.sites[0].device_id
    await api.get("/api/v1/devices", headers=world.chief.headers)
    history = app.state.history
    app.state.history = History(states=AllConnected())
    assert (await statements_of(app, api, f"/api/v1/devices/{device}/state", world.chief))[0] == 1
    app.state.history = history
    waits, statements = await statements_of(app, api, f"/api/v1/telemetry/latest?device_id={device}", world.chief)
    assert waits == 3
    # Each of them is a transaction of its own, which enters and names.
    assert ["hse_enter_session" in one for one in statements] == [True, False] + [True, False, False] * 2
    assert ["hse_name_devices" in one for one in statements] == [False, True] + [False, True, False] * 2
    # What helps a series keeps the planner of TimescaleDB busy for minutes with this.
    assert not any("enable_sort" in one for one in statements)


async def test_a_list_takes_nothing_of_the_pool_that_commands_use(api: Client, world: World) -> None:
    sent: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        assert (await api.get("/api/v1/devices", headers=world.chief.headers)).status_code == 200
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert sent == []


async def test_a_statement_is_prepared_once_and_the_oldest_makes_room(database: Database, world: World) -> None:
    async def prepared() -> list[str]:
        rows = await read_as(database, world.root, sa.text("select statement from pg_prepared_statements"))
        return list(rows.scalars())

    for _ in range(3):
        await read_as(database, world.root, sa.select(areas.c.id))
    assert len([text for text in await prepared() if "FROM areas" in text]) == 1
    for number in range(PREPARED_MAX + 10):
        await read_as(database, world.root, sa.text(f"select {number}"))
    assert len(await prepared()) <= PREPARED_MAX
    assert [text for text in await prepared() if "FROM areas" in text] == []
    await read_as(database, world.root, sa.select(areas.c.id))


# --- who one is now ---


async def test_what_was_taken_from_a_role_is_missing_at_the_next_request(api: Client, world: World) -> None:
    for _ in range(2):
        assert (await api.get("/api/v1/devices", headers=world.custom.headers)).status_code == 200
    execute(world, "delete from permissions where role_id = %s and action_name = 'read_device'", world.custom_role)
    problem_of(await api.get("/api/v1/devices", headers=world.custom.headers), 403, "permission.missing")


async def test_what_was_given_to_a_role_is_there_at_the_next_request(api: Client, world: World) -> None:
    """A refusal is not remembered, either."""
    for _ in range(2):
        problem_of(await api.get("/api/v1/areas", headers=world.custom.headers), 403, "permission.missing")
    execute(world, "insert into permissions (role_id, action_name) values (%s, 'read_area')", world.custom_role)
    response = await api.get("/api/v1/areas", headers=world.custom.headers)
    assert [area["id"] for area in response.json()["items"]] == [str(world.tenant.sites[0].area_id)]


async def test_who_is_sent_to_another_site_sees_that_one_at_the_next_request(api: Client, world: World) -> None:
    first, second = world.tenant.sites

    async def seen() -> list[str]:
        response = await api.get("/api/v1/devices", headers=world.user.headers)
        return [device["id"] for device in response.json()["items"]]

    assert [await seen(), await seen()] == [[str(first.device_id)]] * 2
    execute(world, "update user_establishments set establishment_id = %s where user_id = %s", second.id, world.user.id)
    assert [await seen(), await seen()] == [[str(second.device_id)]] * 2


async def test_a_session_that_ended_is_refused_at_the_next_request(api: Client, world: World) -> None:
    for _ in range(2):
        assert (await api.get("/api/v1/devices", headers=world.user.headers)).status_code == 200
    world.revoke(world.user)
    for _ in range(2):
        problem_of(await api.get("/api/v1/devices", headers=world.user.headers), 401, "identity.unauthenticated")


async def test_a_key_that_was_revoked_is_refused_at_the_next_request(api: Client, world: World) -> None:
    headers = {"X-API-Key": world.add_api_key(world.chief, ["read_device"])}
    for _ in range(2):
        assert (await api.get("/api/v1/devices", headers=headers)).status_code == 200
    execute(world, "update api_keys set revoked_at = now()")
    problem_of(await api.get("/api/v1/devices", headers=headers), 401, "identity.unauthenticated")


async def test_who_is_changed_between_two_statements_of_one_query_is_not_answered_as_both(
    database: Database, world: World
) -> None:
    answers: list[Page[object]] = []

    async def twice(work: PostgresWork) -> list[UUID]:
        before = await queries.devices(work, PageQuery())
        if not answers:
            execute(world, "delete from user_establishments where user_id = %s", world.admin.id)
        answers.append(before)  # type: ignore[arg-type]
        after = await queries.devices(work, PageQuery())
        return [device.id for page in (before, after) for device in page.items]

    principal = SessionPrincipal(session_id=world.admin.session_id)
    assert await database.read(principal, Origin(), datetime.now(UTC), twice, nothing) == []
    assert [len(answer.items) for answer in answers] == [1, 0]


# --- what a connection keeps ---


async def test_a_connection_carries_nothing_from_one_reader_to_the_next(database: Database, world: World) -> None:
    names = ", ".join(f"hse_setting('{name}')" for name in SCOPE_SETTINGS)
    pool = database.readers.pool
    pids = set()
    for person in (world.root, world.other_chief, world.user):
        rows = await read_as(database, person, sa.text("select pg_backend_pid()"))
        pids.add(rows.scalar_one())
        connection, (settings, count, pid) = await pool.fly(
            [
                (f"select {names}".encode(), []),
                (b"select count(*) from establishments", []),
                (b"select pg_backend_pid()", []),
            ]
        )
        assert connection.rows(settings) == [(None,) * len(SCOPE_SETTINGS)]
        assert connection.rows(count) == [(0,)]
        pids.add(connection.rows(pid)[0][0])
    assert len(pids) == 1


@pytest.mark.parametrize(
    "name", ["root", "partner", "other_partner", "chief", "admin", "user", "custom", "other_chief"]
)
async def test_the_second_lock_is_closed_to_readers_as_it_is_to_others(
    database: Database, world: World, name: str
) -> None:
    """With every WHERE forgotten, a reader is shown what a transaction of his is shown."""
    person: Person = getattr(world, name)
    principal = SessionPrincipal(session_id=person.session_id)
    for table in (establishments, areas, devices):
        shown = set((await read_as(database, person, sa.select(table.c.id))).scalars())
        async with database.work(principal, Origin(), datetime.now(UTC)) as work:
            assert set((await work.connection.execute(sa.select(table.c.id))).scalars()) == shown


async def test_a_reader_cannot_write(database: Database, world: World) -> None:
    for _ in range(2):
        with pytest.raises(sa.exc.DBAPIError, match="read-only"):
            await read_as(database, world.root, sa.update(areas).values(name="Mine"))
    assert (await read_as(database, world.root, sa.text("select 1"))).scalar_one() == 1


async def test_a_statement_that_fails_leaves_the_connection_as_it_was(database: Database, world: World) -> None:
    (pid,) = (await read_as(database, world.root, sa.text("select pg_backend_pid()"))).one()
    for statement in ("select 1 / 0", "select nonsense", "select * from nowhere", "select 'x'::integer"):
        with pytest.raises(sa.exc.DBAPIError):
            await read_as(database, world.root, sa.text(statement))
        assert (await read_as(database, world.root, sa.text("select pg_backend_pid()"))).one() == (pid,)


async def test_a_value_that_cannot_be_sent_leaves_the_connection_as_it_was(api: Client, world: World) -> None:
    for wanted in ("a\0b", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        await api.get("/api/v1/areas", headers=world.chief.headers, params={"q": wanted})
    assert len((await api.get("/api/v1/areas", headers=world.chief.headers)).json()["items"]) == 2


async def test_who_stops_waiting_costs_a_connection_and_no_more(database: Database, world: World) -> None:
    pool = database.readers.pool
    asleep = asyncio.create_task(read_as(database, world.root, sa.text("select pg_sleep(60)")))
    await until_it_sleeps(world)
    waiting = asyncio.create_task(read_as(database, world.root, sa.text("select 1")))
    gone = asyncio.create_task(read_as(database, world.root, sa.text("select 2")))
    await asyncio.sleep(0)
    gone.cancel()
    asleep.cancel()
    assert (await waiting).scalar_one() == 1
    assert (pool.num_in_use, pool.num_idle) == (0, 1)


async def test_more_readers_than_connections_all_get_their_turn(database: Database, world: World) -> None:
    rows = await asyncio.gather(*(read_as(database, world.root, sa.text(f"select {number}")) for number in range(50)))
    assert [row.scalar_one() for row in rows] == list(range(50))
    assert (database.readers.pool.num_in_use, database.readers.pool.num_idle) == (0, 1)


# --- statements that are kept ---


def test_two_reaches_in_one_statement_keep_their_own_ids() -> None:
    """A statement may ask who sees and who may read: one must never be given the ids of the other."""
    wide, narrow = Reach(organization_ids=frozenset({uuid4()})), Reach(establishment_ids=frozenset({uuid4()}))
    for store in (Devices, Users, Roles, AuditEntries):
        scope = store.scope
        alone = [compiled(scope.within(reach)).values() for reach in (wide, narrow)]
        together = list(compiled(sa.and_(scope.within(wide), scope.within(narrow))).values())
        assert together == [value for values in alone for value in values]


def compiled(condition: sa.ColumnElement[bool]) -> dict[str, object]:
    return dict(condition.compile(dialect=DIALECT).params)


async def test_a_kept_statement_takes_the_values_of_each_request(api: Client, world: World) -> None:
    async def names(person: Person, **params: str | int) -> list[str]:
        response = await api.get("/api/v1/devices", headers=person.headers, params=params)
        return [device["name"] for device in response.json()["items"]]

    first, second = world.tenant.sites
    for _ in range(2):
        assert await names(world.chief) == ["Acme 1 meter", "Acme 2 meter"]
        assert await names(world.other_chief) == ["Bolt 1 meter"]
        assert await names(world.chief, q="acme 1") == ["Acme 1 meter"]
        assert await names(world.chief, q="2 M") == ["Acme 2 meter"]
        assert await names(world.chief, q="%") == []
        assert await names(world.chief, establishment_id=str(first.id)) == ["Acme 1 meter"]
        assert await names(world.chief, establishment_id=str(second.id)) == ["Acme 2 meter"]
        assert await names(world.chief, establishment_id=str(uuid4())) == []
        assert await names(world.chief, limit=1) == ["Acme 1 meter"]
        assert await names(world.chief, limit=1, sort="-name") == ["Acme 2 meter"]


def execute(world: World, statement: str, *values: object) -> None:
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute(statement.encode(), values).rowcount > 0


async def until_it_sleeps(world: World) -> None:
    """Wait until the database runs pg_sleep."""
    query = "select from pg_stat_activity where application_name = 'hse api' and state = 'active' and query like '%pg_sleep%'"
    async with await psycopg.AsyncConnection.connect(world.database_url, autocommit=True) as connection:
        async with asyncio.timeout(60):
            while await (await connection.execute(query)).fetchone() is None:
                # The database's own clock: it gives the event loop the time to send what is to be seen.
                await connection.execute("select pg_sleep(0.01)")


async def test_what_was_named_is_named_again_and_a_device_that_was_moved_away_meanwhile_is_not(
    database: Database, world: World
) -> None:
    first, second = world.tenant.sites
    seen: list[list[UUID]] = []

    async def run(work: PostgresWork) -> list[UUID]:
        reach = work.actor.reach("read_telemetry")
        named = await work.telemetry.name([first.device_id], see=reach, read=reach)
        seen.append([one.id for one in named])
        if len(seen) == 1:
            move = "update devices set establishment_id = %s, area_id = null where id = %s"
            execute(world, move, second.id, first.device_id)
        setting = await work.connection.execute(sa.text("select hse_setting_ids('device_ids')::uuid[]"))
        return list(setting.scalar_one())

    principal = SessionPrincipal(session_id=world.user.session_id)
    await read_as(database, world.user, sa.text("select 1"))
    assert await database.read(principal, Origin(), datetime.now(UTC), run, nothing) == []
    assert seen == [[first.device_id], []]
