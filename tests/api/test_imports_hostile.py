"""Bulk import by those who shall have no work done, and by more at once than the machine has room for."""

import asyncio
from threading import Event

import pytest
from litestar import Litestar

from hse.adapters.sheets import READ_AT_ONCE_MAX, read_table
from hse.api.rest import imports
from hse.domain.imports.model import Table
from tests.api.conftest import Client, problem_of
from tests.api.test_imports import IMPORTS, SITE, as_csv, send
from tests.api.world import World
from tests.faults.conditions import until


async def test_nothing_is_read_of_what_comes_from_a_stranger_or_too_often(
    api: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents: list[bytes] = []

    def read(content: bytes) -> Table:
        contents.append(content)
        return read_table(content)

    monkeypatch.setattr(imports, "read_table", read)
    stranger = {"X-API-Key": "hse_a_b"}
    problem_of(await api.post(IMPORTS, headers=stranger, content=as_csv(SITE)), 401, "identity.unauthenticated")
    key = {"X-API-Key": world.add_api_key(world.chief, ["read_device"], requests_per_minute=1)}
    problem_of(await api.post(IMPORTS, headers=key, content=b"name\n"), 422, "imports.missing-column")
    problem_of(await api.post(IMPORTS, headers=key, content=b"name\n"), 429, "request.too-many")
    assert contents == [b"name\n"]


async def test_few_files_are_read_at_once(
    app: Litestar, api: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_read = Event()

    def read(content: bytes) -> Table:
        may_read.wait()
        return read_table(content)

    monkeypatch.setattr(imports, "read_table", read)
    files = READ_AT_ONCE_MAX + 2
    sent = asyncio.gather(*(send(api, world.chief, as_csv(SITE), dry_run=True) for _ in range(files)))
    readers = app.state.file_readers
    try:
        await until(lambda: readers.borrowed_tokens + readers.statistics().tasks_waiting == files, "all are there")
        assert readers.borrowed_tokens == READ_AT_ONCE_MAX
    finally:
        may_read.set()
        answers = await sent
    assert {answer.status_code for answer in answers} == {200}
