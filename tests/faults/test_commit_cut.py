"""The outcome of a COMMIT is unknown: cut before the server hears of it, and after it carried it out."""

import asyncio

import psycopg
import pytest

from tests.faults.checker import Checker
from tests.faults.conditions import until
from tests.faults.conftest import NewCore
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.proxy import CommitWatch, DatabaseProxy, Wire
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials

CUTS_IN_A_ROW = 8
STEADY = Plan(pause_seconds=0.01)


@pytest.mark.parametrize("wire", [Wire.CUT_BEFORE_COMMIT, Wire.CUT_AFTER_COMMIT], ids=["before", "after"])
async def test_a_connection_cut_at_commit_many_times_in_a_row_stores_every_event_once(
    wire: Wire, new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(database_url=proxy.url)
        await core.started()
        async with Load(core.port, fleet, recorder, STEADY) as load:
            await load.progress(500)
            proxy.cut(wire, CUTS_IN_A_ROW)
            await until(lambda: proxy.cuts == CUTS_IN_A_ROW, "all cuts were made", seconds=60)
            await load.progress(500)
            await load.settle()
            await checker.until_stored()
            assert await core.stop() == 0
    checker.check(acked_min=1000)


async def test_a_core_killed_while_a_commit_is_unknown_stores_every_event_once(
    new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(database_url=proxy.url)
        async with Load(core.port, fleet, recorder, STEADY) as load:
            for wire in (Wire.CUT_AFTER_COMMIT, Wire.CUT_BEFORE_COMMIT) * 3:
                proxy.cut(Wire.WHOLE)
                core.start()
                await load.progress(200)
                cuts = proxy.cuts
                proxy.cut(wire, 1)
                await until(lambda cuts=cuts: proxy.cuts > cuts, "the commit is cut")  # type: ignore[misc]
                await core.kill()
            proxy.cut(Wire.WHOLE)
            await core.started()
            await load.settle()
            await checker.until_stored()
    checker.check(acked_min=1000)


@pytest.mark.parametrize("wire", [Wire.REFUSED, Wire.BLACKHOLE], ids=["refused", "black hole"])
async def test_a_database_that_cannot_be_reached_does_not_stop_the_acknowledgements(
    wire: Wire, new_core: NewCore, database: Database, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    async with DatabaseProxy(database.url).listening() as proxy:
        core = new_core(database_url=proxy.url)
        await core.started()
        async with Load(core.port, fleet, recorder, STEADY) as load:
            await load.progress(200)
            proxy.cut(wire)
            if wire is Wire.REFUSED:
                proxy.cut_all()
            await load.progress(2000)
            assert checker.lost(), "the database was reached all the time"
            proxy.cut(Wire.WHOLE)
            await load.settle()
            await checker.until_stored(seconds=90)
    checker.check(acked_min=2000)


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def test_the_wire_knows_a_commit_in_either_protocol() -> None:
    watch = CommitWatch()
    start_up = (12).to_bytes(4, "big") + (196608).to_bytes(4, "big") + b"a\0b\0"
    simple = message(b"Q", b"COMMIT\0")
    parsed = message(b"P", b"s1\0commit;\0\0\0") + message(b"B", b"\0s1\0\0\0\0\0\0\0") + message(b"E", b"\0\0\0\0\0")
    other = message(b"Q", b"select 'COMMIT'\0")
    stream = start_up + other + simple + parsed
    seen = [flag for place in range(len(stream)) for _, flag in watch.feed(stream[place : place + 1])]
    assert seen == [False, False, True, False, False, True]


async def test_the_wire_cuts_where_it_says(database: Database) -> None:
    database.execute("create table if not exists commit_probe (wire text)")
    async with DatabaseProxy(database.url).listening() as proxy:
        for wire in (Wire.CUT_BEFORE_COMMIT, Wire.CUT_AFTER_COMMIT):
            proxy.cut(wire, 1)
            with pytest.raises(psycopg.OperationalError):
                await asyncio.to_thread(insert_through, proxy.url, wire.name)
    assert database.execute("select wire from commit_probe") == [(Wire.CUT_AFTER_COMMIT.name,)]
    database.execute("drop table commit_probe")


def insert_through(url: str, text: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("insert into commit_probe values (%s)", [text])
