"""Requests that wait for something to end: they hold no transaction meanwhile, and look again when they hear of a change."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Protocol, TypeVar
from uuid import UUID

from litestar.params import QueryParameter

WAIT_SECONDS_MAX = 30
# However often it changes, and whatever was not heard of.
LOOK_SECONDS_MIN, LOOK_SECONDS_MAX = 0.01, 2.0
# Beyond it a request is answered at once, as if it had waited for nothing.
WAITERS_MAX = 2000

Wait = Annotated[
    int,
    QueryParameter(
        description="Seconds to wait for its end; what has not ended then is answered as it stands.",
        ge=0,
        le=WAIT_SECONDS_MAX,
    ),
]


class Ends(Protocol):
    """What can be waited for."""

    @property
    def is_finished(self) -> bool:
        """Whether it has ended."""


E = TypeVar("E", bound=Ends)


class Waiting:
    """Who waits for what in this process."""

    def __init__(self) -> None:
        self._changes: dict[str, set[asyncio.Event]] = {}
        self._num_waiting = 0

    def hear(self, payload: str | None) -> None:
        """These things have changed (ids with commas between); None: something may have."""
        ids = self._changes.keys() if payload is None else payload.split(",")
        for one in ids:
            for changed in self._changes.get(one, ()):
                changed.set()

    async def until_finished(self, thing_id: UUID, read: Callable[[], Awaitable[E]], *, seconds: float) -> E:
        """The thing once it has ended; as it stands when so many seconds have passed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (seconds if self._num_waiting < WAITERS_MAX else 0.0)
        next_look_at = 0.0
        with self._told_of(str(thing_id)) as changed:
            while True:
                # One look for many changes at once, such as those of a group; the first change is looked at without delay.
                await asyncio.sleep(max(0.0, next_look_at - loop.time()))
                changed.clear()
                found = await read()
                next_look_at = loop.time() + LOOK_SECONDS_MIN
                left = deadline - loop.time()
                if found.is_finished or left <= 0:
                    return found
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, LOOK_SECONDS_MAX)):
                        await changed.wait()

    @contextmanager
    def _told_of(self, thing: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._changes.setdefault(thing, set()).add(changed)
        self._num_waiting += 1
        try:
            yield changed
        finally:
            self._num_waiting -= 1
            self._changes[thing].discard(changed)
            if not self._changes[thing]:
                del self._changes[thing]
