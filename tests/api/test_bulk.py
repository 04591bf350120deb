"""The transaction for many rows: what a row did can be undone alone, and what others changed meanwhile is not overwritten."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest_asyncio

from hse.adapters.postgres.bulk import BulkWork
from hse.adapters.postgres.work import Origin
from hse.api.app import Parts
from hse.domain.devices.commands import ChangeDevice, CreateDevice, change_device, create_device
from hse.domain.errors import Stale
from hse.domain.identity.principals import SessionPrincipal
from hse.domain.policy import EVERYWHERE
from tests.api.world import World


@pytest_asyncio.fixture
async def bulk(parts: Parts, world: World) -> AsyncIterator[BulkWork]:
    database = parts.open_database()
    principal = SessionPrincipal(session_id=world.chief.session_id)
    async with database.work(principal, Origin(), datetime.now(UTC)) as work:
        yield await BulkWork.within(work)
    await database.close()


async def test_what_others_changed_meanwhile_is_refused_alone(bulk: BulkWork, world: World) -> None:
    first, second = (site.device_id for site in world.tenant.sites)
    for line, device_id in ((2, first), (3, second)):
        bulk.begin_row(line)
        await change_device(bulk, device_id, ChangeDevice(model="new"))
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update devices set model = 'theirs' where id = %s", [second])
    [(line, error)] = await bulk.flush()
    assert (line, type(error)) == (3, Stale)
    await bulk.commit()
    with psycopg.connect(world.database_url) as connection:
        kept = connection.execute("select id, model from devices where id = any(%s)", [[first, second]]).fetchall()
    assert dict(kept) == {first: "new", second: "theirs"}


async def test_a_row_that_is_undone_leaves_nothing_behind(bulk: BulkWork, world: World) -> None:
    site = world.tenant.sites[0]
    bulk.begin_row(2)
    made = await create_device(bulk, CreateDevice(name="New", establishment_id=site.id))
    await change_device(bulk, site.device_id, ChangeDevice(model="new"))
    bulk.undo_row()
    assert await bulk.devices.find(made.id, EVERYWHERE) is None
    device = await bulk.devices.find(site.device_id, EVERYWHERE)
    assert device is not None
    assert (device.model, device.version) == (None, 1)
    assert await bulk.flush() == []
    await bulk.commit()
    with psycopg.connect(world.database_url) as connection:
        audited = connection.execute("select count(*) from audit_entries").fetchone()
    assert audited == (0,)


async def test_a_view_in_memory_is_the_row_that_is_written(bulk: BulkWork, world: World) -> None:
    bulk.begin_row(2)
    made = await create_device(bulk, CreateDevice(name="New", establishment_id=world.tenant.sites[0].id))
    token = bulk.new_device_token()
    after = await bulk.devices.keep_token(made, token)
    assert await bulk.flush() == []
    [written] = await bulk.devices.load(EVERYWHERE, bulk.devices.table.c.id == made.id)
    assert written == after
    assert written == replace(made, has_token=True, version=2)
