"""The second lock for guests and bookings: what the database shows and takes under the api's login, with every WHERE forgotten."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
import pytest_asyncio
import sqlalchemy as sa

from hse.adapters.postgres.booking_tables import (
    booking_calendars,
    booking_history,
    booking_settings,
    bookings,
    guest_companions,
    guests,
)
from hse.adapters.postgres.database import Database
from tests.api.booked import give_calendar, join, new_booking, new_guest
from tests.api.conftest import OUTBOX
from tests.api.test_isolation import PEOPLE, as_person
from tests.api.world import Site, Tenant, World

TABLES = (guests, guest_companions, bookings, booking_settings, booking_history, booking_calendars)


@pytest_asyncio.fixture
async def database(api_database_url: str) -> AsyncIterator[Database]:
    database = Database(api_database_url, pool_size=1, outbox=OUTBOX)
    yield database
    await database.close()


def tenants(world: World) -> list[Tenant]:
    return [world.tenant, world.other_tenant, world.direct_tenant]


@pytest.fixture
def booked(world: World) -> dict[UUID, tuple[UUID, UUID]]:
    """Everything of every kind at every site: the guest and the booking of each."""
    found = {}
    for tenant in tenants(world):
        for site in tenant.sites:
            guest, companion = new_guest(world, tenant, site), new_guest(world, tenant, site)
            join(world, tenant, guest, companion)
            give_calendar(world, tenant, site)
            found[site.id] = (guest, new_booking(world, tenant, site, guest))
    return found


def reached(world: World, name: str) -> set[UUID]:
    """Where somebody's scope lies."""
    first, second = (site.id for site in world.tenant.sites)
    own = {first, second}
    return {
        "root": {site.id for tenant in tenants(world) for site in tenant.sites},
        "partner": own,
        "chief": own,
        "other_partner": {site.id for site in world.other_tenant.sites},
        "other_chief": {site.id for site in world.other_tenant.sites},
        "other_site_admin": {second},
    }.get(name, {first})


@pytest.mark.parametrize("name", PEOPLE)
async def test_the_database_shows_nobody_more_than_his_places(
    name: str, database: Database, world: World, booked: dict[UUID, tuple[UUID, UUID]]
) -> None:
    places = reached(world, name)
    async with as_person(database, getattr(world, name)) as connection:
        for table in TABLES:
            if table is guest_companions:
                continue
            shown = set((await connection.execute(sa.select(table.c.establishment_id))).scalars())
            assert shown == places, table.name
        pairs = set((await connection.execute(sa.select(guest_companions.c.guest_id))).scalars())
        assert pairs & {guest for guest, _ in booked.values()} == {booked[place][0] for place in places}
        assert len(pairs) == 2 * len(places)


async def test_a_guest_who_is_booked_elsewhere_is_shown_there_and_his_other_stays_are_not(
    database: Database, world: World, booked: dict[UUID, tuple[UUID, UUID]]
) -> None:
    first, second = world.tenant.sites
    guest, there = booked[second.id]
    here = new_booking(world, world.tenant, first, guest, days_ahead=60)
    async with as_person(database, world.admin) as connection:
        assert guest in set((await connection.execute(sa.select(guests.c.id))).scalars())
        shown = set((await connection.execute(sa.select(bookings.c.id))).scalars())
        assert here in shown
        assert there not in shown
        # He is seen by his booking; who accompanies him is not.
        assert guest not in set((await connection.execute(sa.select(guest_companions.c.guest_id))).scalars())


async def test_nobody_changes_adds_or_deletes_what_he_does_not_reach(
    database: Database, world: World, booked: dict[UUID, tuple[UUID, UUID]]
) -> None:
    foreign = world.other_tenant.sites[0]
    guest, booking = booked[foreign.id]
    for person in (world.partner, world.chief, world.admin, world.user):
        async with as_person(database, person) as connection:
            for change in (
                sa.update(bookings).where(bookings.c.id == booking).values(num_guests=9),
                sa.delete(bookings).where(bookings.c.id == booking),
                sa.update(guests).where(guests.c.id == guest).values(first_name="Mine"),
                sa.update(booking_settings)
                .where(booking_settings.c.establishment_id == foreign.id)
                .values(code_lead_hours=1),
                sa.delete(booking_calendars).where(booking_calendars.c.area_id == foreign.area_id),
                sa.delete(guest_companions).where(guest_companions.c.guest_id == guest),
            ):
                assert (await connection.execute(change)).rowcount == 0
        for statement in (_guest_of(world.other_tenant, foreign), _booking_of(world.other_tenant, foreign, guest)):
            async with as_person(database, person) as connection:
                with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
                    await connection.execute(statement)


async def test_the_queue_of_the_worker_and_what_happened_are_not_the_api_s_to_write(
    database: Database, world: World, booked: dict[UUID, tuple[UUID, UUID]]
) -> None:
    assert booked
    for statement in (
        "select * from booking_queue",
        "delete from booking_history",
        "update booking_history set action = 'created'",
        "delete from guests",
        "update booking_settings set organization_id = gen_random_uuid()",
        "select hse_queue_booking(gen_random_uuid())",
    ):
        async with as_person(database, world.root) as connection:
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                await connection.execute(sa.text(statement))


async def test_a_calendar_is_shown_to_nobody_without_its_secret(
    database: Database, world: World, booked: dict[UUID, tuple[UUID, UUID]]
) -> None:
    assert booked
    area = world.tenant.sites[0].area_id
    async with database.nobody() as connection:
        for table in TABLES:
            assert (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one() == 0
        stays = sa.text("select * from hse_booking_calendar_stays(:area, :token, now() - interval '1 y', 10)")
        assert (await connection.execute(stays, {"area": area, "token": bytes(32)})).all() == []


def _guest_of(tenant: Tenant, site: Site) -> sa.Insert:
    return sa.insert(guests).values(
        organization_id=tenant.id, establishment_id=site.id, first_name="Mine", last_name="Mine"
    )


def _booking_of(tenant: Tenant, site: Site, guest: UUID) -> sa.Insert:
    moment = datetime(2040, 1, 1, tzinfo=UTC)
    return sa.insert(bookings).values(
        organization_id=tenant.id,
        establishment_id=site.id,
        area_id=site.area_id,
        guest_id=guest,
        check_in=moment,
        check_out=moment.replace(day=2),
        free_from=moment.replace(day=2),
        confirmation_code="MINE",
    )
