"""Writes what becomes of commands: all that waits in one transaction, in the order in which it came, and again while the database
is away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.command_queues import Ended, ReportedCommand, apply_reports, ask_for_a_try, release

P = ParamSpec("P")
T = TypeVar("T")

# In one transaction.
NOTES_MAX = 1000
# What a device that answers at once makes of a command (sent, delivered, its result, and the claim's end) follows within a moment:
# one transaction, one sync of the disk and one notification instead of several.
GATHER_SECONDS = 0.003
WAIT_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A device's commands were reported on: the claim on its queue ends."""

    device_id: UUID
    were_connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A device has connected: what waits for it is due. None: any may have, unheard."""

    device_id: UUID | None


Note = ReportedCommand | Released | Connected


class InDatabase:
    """Runs functions of one connection in a transaction each, outside of the event loop."""

    def __init__(self, engine: sa.Engine, executor: Executor) -> None:
        self._engine = engine
        self._executor = executor

    async def run(
        self, function: Callable[Concatenate[sa.Connection, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """What the function returns, once it is committed."""

        def work() -> T:
            with self._engine.begin() as connection:
                return function(connection, *arguments, **named)

        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class Writer:
    """Takes notes and writes them. What was noted last is written last, so a release is never before its reports."""

    def __init__(
        self,
        database: InDatabase,
        claimed_by: UUID,
        *,
        ended: Callable[[Ended], None],
        look_again: Callable[[], None],
    ) -> None:
        self._database = database
        self._claimed_by = claimed_by
        self._ended = ended
        self._look_again = look_again
        self._notes: asyncio.Queue[Note] = asyncio.Queue()

    def note(self, *notes: Note) -> None:
        """Have this written."""
        for one in notes:
            self._notes.put_nowait(one)

    async def settle(self) -> None:
        """Wait until everything that was noted is written."""
        await self._notes.join()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            batch = [await self._notes.get()]
            await asyncio.sleep(GATHER_SECONDS)
            while len(batch) < NOTES_MAX and not self._notes.empty():
                batch.append(self._notes.get_nowait())
            await self._write_until_done(batch)
            for _ in batch:
                self._notes.task_done()

    async def _write_until_done(self, batch: list[Note]) -> None:
        """Write a batch: a database that is away is waited for, and what cannot be written is found by halving and dropped."""
        while True:
            try:
                ended, is_more_due = await self._database.run(self._write, batch)
            except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
                logger.warning("what became of commands waits for the database: %s", type(error).__name__)
                await asyncio.sleep(WAIT_SECONDS)
                continue
            except Exception:
                if len(batch) == 1:
                    logger.exception("what became of a command cannot be written")
                    return
                middle = len(batch) // 2
                await self._write_until_done(batch[:middle])
                await self._write_until_done(batch[middle:])
                return
            for one in ended:
                self._ended(one)
            if is_more_due:
                self._look_again()
            return

    def _write(self, connection: sa.Connection, batch: list[Note]) -> tuple[list[Ended], bool]:
        ended = apply_reports(connection, [one for one in batch if isinstance(one, ReportedCommand)])
        released = [one for one in batch if isinstance(one, Released)]
        for were_connected in (True, False):
            ids = [one.device_id for one in released if one.were_connected == were_connected]
            if ids:
                release(connection, self._claimed_by, ids, were_connected=were_connected)
        connected = {one.device_id for one in batch if isinstance(one, Connected)}
        everybody = None in connected
        known = None if everybody else {one for one in connected if one is not None}
        is_asked = bool(connected) and ask_for_a_try(connection, known) > 0
        return ended, is_asked or any(one.were_connected for one in released)


async def for_ever(name: str, step: Callable[[], Awaitable[Any]], *, seconds: float) -> None:
    """Do a step again and again; what goes wrong is logged, and the next one may go better."""
    while True:
        try:
            await step()
        except sa.exc.DBAPIError as error:
            logger.warning("%s: the database does not answer: %s", name, type(error).__name__)
        except Exception:
            logger.exception("%s: a step failed", name)
        await asyncio.sleep(seconds)
