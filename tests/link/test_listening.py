"""The connection that hears what the database notifies: what is heard, and that a gap is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest_asyncio

from hse.adapters.postgres.listening import Listener
from tests.faults.conditions import until, until_in_thread


class Ear:
    """A listener, and what it heard on the channel `tests`."""

    def __init__(self, database_url: str) -> None:
        self.heard: list[str | None] = []
        self.listener = Listener(database_url)
        self.listener.subscribe("tests", self.heard.append)


@pytest_asyncio.fixture
async def ear(database_url: str) -> AsyncIterator[Ear]:
    made = Ear(database_url)
    task = asyncio.create_task(made.listener.run())
    yield made
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def run(database_url: str, statement: str) -> int:
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(statement.encode()).rowcount


async def test_a_notification_is_heard_and_what_came_before_is_a_gap(ear: Ear, database_url: str) -> None:
    await until(lambda: ear.heard == [None], "the start is told as a gap", seconds=30)
    assert ear.listener.is_connected
    await asyncio.to_thread(run, database_url, "select pg_notify('tests', 'a'), pg_notify('others', 'b')")
    await until(lambda: ear.heard == [None, "a"], "the notification is heard", seconds=30)


async def test_a_connection_that_is_ended_is_made_again_and_the_gap_is_told(ear: Ear, database_url: str) -> None:
    await until(lambda: ear.heard == [None], "it listens", seconds=30)
    end = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'hse listen' and datname = current_database()"
    )
    await until_in_thread(lambda: run(database_url, end) > 0, "the connection is ended", seconds=30)
    await until(lambda: ear.heard[:2] == [None, None], "the gap is told", seconds=30)
    await asyncio.to_thread(run, database_url, "notify tests, 'after'")
    await until(lambda: ear.heard[-1] == "after", "it hears again", seconds=30)
