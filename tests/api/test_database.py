"""Connections that PostgreSQL ends while they lie in the pool: the next request does not feel it."""

import asyncio

import psycopg
from litestar import Litestar

from tests.api.conftest import Client, problem_of
from tests.api.world import World


async def test_a_request_after_a_restart_of_the_database_is_answered(api: Client, world: World) -> None:
    async def read() -> int:
        return (await api.get("/api/v1/areas", headers=world.root.headers)).status_code

    assert set(await asyncio.gather(*(read() for _ in range(4)))) == {200}
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        ended = connection.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = 'hse api' and datname = current_database()"
        ).fetchone()
    assert ended is not None
    assert ended[0] > 1
    assert await read() == 200
    assert await read() == 200


async def test_a_database_that_has_no_connection_to_spare_is_a_503(app: Litestar, api: Client, world: World) -> None:
    """Beyond the pool a request waits, and is then told to come back: one that reads, and one that writes."""
    engine, readers = app.state.database.engine, app.state.database.readers.pool
    held = [await engine.connect() for _ in range(5)]
    held_to_read = [(await readers.take())[0] for _ in range(5)]
    site = world.tenant.sites[0]
    try:
        responses = await asyncio.gather(
            api.get("/api/v1/areas", headers=world.root.headers),
            api.patch(f"/api/v1/areas/{site.area_id}", headers=world.root.headers, json={"name": "Other"}),
        )
    finally:
        for connection in held:
            await connection.close()
        for reader in held_to_read:
            readers.give_back(reader)
    for response in responses:
        problem_of(response, 503, "service.unavailable")
        assert response.headers["retry-after"]
    assert (await api.get("/api/v1/areas", headers=world.root.headers)).status_code == 200
