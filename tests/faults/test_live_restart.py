"""A deployment while somebody watches: his stream is ended with a word, and does not hold up the process that is to end."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from tests.api.world import World
from tests.faults.control_plane import ControlPlane
from tests.faults.database import Database


@pytest.mark.timeout(300)
async def test_a_deployment_tells_live_streams_to_come_back(database: Database, people: World, tmp_path: Path) -> None:
    control_plane = ControlPlane(tmp_path, database)
    await control_plane.start()
    url = f"http://127.0.0.1:{control_plane.port}/api/v1/live"
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("GET", url, headers=people.user.headers) as stream,
    ):
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        async for line in lines:
            if line.startswith("event: sources"):
                break
        ending = asyncio.create_task(asyncio.to_thread(control_plane.end, signal.SIGTERM))
        rest = [line async for line in lines]
        assert "event: end" in rest
        assert 'data: {"reason":"shutting-down"}' in rest
        await ending
