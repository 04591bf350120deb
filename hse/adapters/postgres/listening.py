"""One connection a process that hears of what the database notifies.

A notification that was sent while the connection was away is not heard. Who listens is told of such a gap, and looks for himself.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg import sql

from hse.adapters.postgres.engine import psycopg_url

# Of the payload; None after a gap, and at the start.
Heard = Callable[[str | None], None]

FIRST_WAIT_SECONDS, WAIT_SECONDS_MAX = 0.2, 5.0
CONNECT_SECONDS_MAX = 5
# A connection that is silent is asked whether it lives.
SILENCE_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 5.0

logger = logging.getLogger(__name__)


class Listener:
    """Listens for ever, over any number of connections. Callbacks run in the event loop and must not block."""

    def __init__(self, database_url: str) -> None:
        self._conninfo = psycopg_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._heard: dict[str, list[Heard]] = {}
        self._is_connected = False

    @property
    def is_connected(self) -> bool:
        """Whether notifications are heard just now."""
        return self._is_connected

    def subscribe(self, channel: str, heard: Heard) -> None:
        """Have `heard` called for every notification on a channel; before `run`."""
        self._heard.setdefault(channel, []).append(heard)

    async def run(self) -> None:
        """Listen until cancelled."""
        wait_seconds = FIRST_WAIT_SECONDS
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if self._is_connected:
                    wait_seconds = FIRST_WAIT_SECONDS
                logger.warning("notifications are not heard: the database does not answer (%s)", type(error).__name__)
            finally:
                self._is_connected = False
            await asyncio.sleep(wait_seconds * random.uniform(0.5, 1.0))  # noqa: S311 (so that not all come back at once)
            wait_seconds = min(wait_seconds * 2, WAIT_SECONDS_MAX)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            application_name="hse listen",
            connect_timeout=CONNECT_SECONDS_MAX,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        try:
            for channel in self._heard:
                await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
            self._is_connected = True
            self._tell_of_a_gap()
            while True:
                async for notification in connection.notifies(timeout=SILENCE_SECONDS_MAX):
                    for heard in self._heard.get(notification.channel, ()):
                        heard(notification.payload)
                async with asyncio.timeout(ANSWER_SECONDS_MAX):
                    await connection.execute("select 1")
        finally:
            with suppress(psycopg.Error, OSError):
                await connection.close()

    def _tell_of_a_gap(self) -> None:
        for listeners in self._heard.values():
            for heard in listeners:
                heard(None)
