"""The second lock: what the database itself shows and takes under the api's login, with every WHERE clause forgotten."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.database import Database
from hse.adapters.postgres.tables import areas, devices, establishments, organizations, partner_companies
from hse.adapters.postgres.work import Origin
from hse.domain.identity.principals import SessionPrincipal
from tests.api.conftest import OUTBOX, Client
from tests.api.world import Person, World

# What the api may read without a scope: the catalogue is the same for everybody.
WITHOUT_ROW_SECURITY = {"actions"}
TENANT_TABLES = (partner_companies, organizations, establishments, areas, devices)
SCOPE_SETTINGS = [
    *(
        "scope",
        "user_id",
        "is_root",
        "partner_company_id",
        "organization_id",
        "organization_ids",
        "establishment_ids",
        "device_ids",
    )
]
PEOPLE = ("root", "partner", "other_partner", "chief", "admin", "other_site_admin", "user", "custom", "other_chief")


@pytest_asyncio.fixture
async def database(api_database_url: str) -> AsyncIterator[Database]:
    """A pool of one connection, so that everybody gets the one that somebody else had."""
    database = Database(api_database_url, pool_size=1, outbox=OUTBOX)
    yield database
    await database.close()


@asynccontextmanager
async def as_person(database: Database, person: Person) -> AsyncIterator[AsyncConnection]:
    async with database.work(SessionPrincipal(session_id=person.session_id), Origin(), datetime.now(UTC)) as work:
        yield work.connection


async def ids(connection: AsyncConnection, table: sa.Table) -> set[UUID]:
    return set((await connection.execute(sa.select(table.c.id))).scalars())


def granted_tables(database_url: str) -> dict[str, bool]:
    """Every table that the api's role has any right on, and whether row-level security binds it there."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select relname, relrowsecurity from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"
            " and has_table_privilege('hse_api', oid, 'select, insert, update, delete')"
        ).fetchall()
    return dict(rows)


def test_every_table_of_the_api_has_row_level_security_and_the_events_have_none(world: World) -> None:
    found = granted_tables(world.database_url)
    assert {name for name, is_secured in found.items() if not is_secured} == WITHOUT_ROW_SECURITY
    assert {"users", "sessions", "devices", "audit_entries"} <= found.keys()
    with psycopg.connect(world.database_url) as connection:
        secured = connection.execute("select relrowsecurity from pg_class where relname = 'device_events'").fetchone()
    assert secured == (False,)


def test_the_api_s_login_cannot_get_around_it(api_database_url: str, database_url: str) -> None:
    with psycopg.connect(api_database_url, autocommit=True) as connection:
        login, owner = connection.info.user, psycopg.conninfo.conninfo_to_dict(database_url)["user"]
        rights = connection.execute(
            "select rolsuper or rolbypassrls or rolcreaterole or rolcreatedb from pg_roles where rolname = any(%s)",
            [[login, "hse_api"]],
        ).fetchall()
        assert rights == [(False,), (False,)]
        for statement in (
            f"set role {owner}",
            "alter table users disable row level security",
            "alter table users no force row level security",
            "create policy mine on users using (true)",
            "set session_replication_role = 'replica'",
            "select * from hse_enter_user(gen_random_uuid())",
            "alter function hse_enter_session(uuid) security invoker",
            "grant hse_api to hse_ingest",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.usefixtures("world")
async def test_without_a_scope_there_is_nothing(database: Database, database_url: str) -> None:
    async with database.engine.connect() as connection:
        for name in sorted(granted_tables(database_url).keys() - WITHOUT_ROW_SECURITY - {"outgoing_mail"}):
            rows = (await connection.execute(sa.text(f"select count(*) from {name}"))).scalar_one()
            assert rows == 0, name


async def test_a_connection_that_goes_back_carries_nothing_to_the_next(database: Database, world: World) -> None:
    pids = set()
    for person in (world.root, world.other_chief, world.user):
        async with as_person(database, person) as connection:
            await connection.execute(sa.select(establishments.c.id))
        async with database.engine.connect() as connection:
            settings = await connection.execute(
                sa.text(
                    "select count(*) from unnest(cast(:names as text[])) as name where hse_setting(name) is not null"
                ),
                {"names": SCOPE_SETTINGS},
            )
            assert settings.scalar_one() == 0
            assert await ids(connection, establishments) == set()
            pids.add((await connection.execute(sa.text("select pg_backend_pid()"))).scalar_one())
    assert len(pids) == 1


@pytest.mark.parametrize("name", PEOPLE)
async def test_the_database_shows_nobody_more_than_his_reach(
    name: str, database: Database, world: World, api: Client
) -> None:
    """With the policy's WHERE forgotten. It may show the own organisation and nothing else of what the role may not read."""
    person: Person = getattr(world, name)
    async with as_person(database, person) as connection:
        shown = {table.name: await ids(connection, table) for table in TENANT_TABLES}
    for path, table in (("organizations", organizations), ("establishments", establishments), ("areas", areas)):
        response = await api.get(f"/api/v1/{path}", headers=person.headers, params={"limit": 200})
        if response.status_code == 200:
            assert {UUID(item["id"]) for item in response.json()["items"]} == shown[table.name], path
        else:
            assert response.status_code == 403
    own = {world.tenant.id, world.other_tenant.id, world.direct_tenant.id}
    if name != "root":
        assert len(shown["organizations"] & own) == 1


async def test_nobody_changes_or_deletes_what_he_does_not_reach(database: Database, world: World) -> None:
    foreign = world.other_tenant.sites[0]
    for person in (world.partner, world.chief, world.admin, world.user):
        async with as_person(database, person) as connection:
            for table, row_id in ((establishments, foreign.id), (areas, foreign.area_id), (devices, foreign.device_id)):
                where = table.c.id == row_id
                changed = await connection.execute(sa.update(table).where(where).values(name="Mine"))
                deleted = await connection.execute(sa.delete(table).where(where))
                assert (changed.rowcount, deleted.rowcount) == (0, 0)
        async with as_person(database, person) as connection:
            with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
                await connection.execute(
                    sa.insert(areas).values(
                        organization_id=world.other_tenant.id, establishment_id=foreign.id, name="Mine", type="x"
                    )
                )


async def test_an_establishment_that_exists_is_not_reached_by_expecting_it(database: Database, world: World) -> None:
    foreign = world.other_tenant.sites[0].id
    async with as_person(database, world.chief) as connection:
        await connection.execute(sa.text("select hse_expect_establishment(:id)"), {"id": foreign})
        assert foreign not in await ids(connection, establishments)


async def test_nobody_changes_the_audit_log(database: Database, world: World) -> None:
    async with as_person(database, world.root) as connection:
        for statement in ("update audit_entries set action = ''", "delete from audit_entries"):
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                await connection.execute(sa.text(statement))
            await connection.rollback()
