"""A live stream as a person's browser follows it, over a real socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx

from tests.faults.conditions import until

# It is open for as long as the test wants.
TIMEOUTS = httpx.Timeout(30, read=None)


class Stream:
    """What a stream has told so far."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.last_id: str | None = None
        self._name = ""

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return all messages of a name, in order."""
        return [data for known, data in self.told if known == name]

    def values(self) -> list[float]:
        """Return the values of the events that have one, in order."""
        return [float(event["value"]) for event in self.named("event") if event["value"] is not None]

    async def until(self, holds: Callable[["Stream"], object], what: str, *, seconds: float = 30.0) -> None:
        """Wait until it has told what the test waits for."""
        await until(lambda: holds(self), what, seconds=seconds)

    def hear(self, line: str) -> None:
        """Take one line of the response."""
        field, _, value = line.partition(": ")
        match field:
            case "event":
                self._name = value
            case "id":
                self.last_id = value
            case "data":
                self.told.append((self._name, json.loads(value)))


@contextlib.asynccontextmanager
async def following(
    url: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None
) -> AsyncIterator[Stream]:
    """Follow a live stream while the block runs."""
    stream = Stream()

    async def read(response: httpx.Response) -> None:
        async for line in response.aiter_lines():
            stream.hear(line)

    async with (
        httpx.AsyncClient(timeout=TIMEOUTS) as client,
        client.stream("GET", f"{url}/api/v1/live", headers=headers, params=params) as response,
    ):
        assert response.status_code == 200, response.status_code
        reading = asyncio.create_task(read(response))
        try:
            yield stream
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, httpx.TransportError):
                await reading
