"""Waiting for a condition with a deadline: the only way in which these tests wait."""

import asyncio
import time
from collections.abc import Callable

POLL_SECONDS = 0.02


class NeverHappened(AssertionError):
    """A condition did not come about before its deadline."""


async def until(holds: Callable[[], object], what: str, *, seconds: float = 15.0) -> None:
    """Wait until `holds()` is true; raise `NeverHappened` naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise NeverHappened(f"after {seconds} s still not: {what}")
        await asyncio.sleep(POLL_SECONDS)


async def until_in_thread(holds: Callable[[], object], what: str, *, seconds: float = 15.0) -> None:
    """Like `until`, for a condition that blocks: a query, a request."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        if time.monotonic() > deadline:
            raise NeverHappened(f"after {seconds} s still not: {what}")
        await asyncio.sleep(POLL_SECONDS)
