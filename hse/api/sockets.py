"""WebSockets of people: how many somebody may hold open, and when they end.

A socket is somebody's from when he has proved who he is, whether he asks for anything on it or not. It ends with the session or
the API key that it was opened with: that is looked up when somebody changed one, and every half a minute. While it cannot be
looked up, sockets stay: what is asked on one is answered to those only who are signed in then.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from hse.adapters.live.notices import ids_of
from hse.adapters.postgres.database import Database
from hse.api.acting import Acting
from hse.api.live import LOOK_SECONDS, SCOPE_SECONDS_MAX
from hse.api.shares import Shares
from hse.domain.identity.principals import Principal, Unauthenticated

# As many as streams, so that one socket for each finds room.
SOCKETS_OF_USER_MAX = 20
NEVER = float("-inf")

logger = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True, kw_only=True)
class OpenSocket:
    """One socket. Whoever serves it closes it once it `has_ended`."""

    acting: Acting
    user_id: UUID
    has_ended: asyncio.Event
    looked_at: float


class Sockets:
    """The sockets of this process whose owners are known."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sockets: set[OpenSocket] = set()
        self._shares = Shares(of_user_max=SOCKETS_OF_USER_MAX)

    def __len__(self) -> int:
        return len(self._sockets)

    def open(self, acting: Acting, user_id: UUID, has_ended: asyncio.Event) -> OpenSocket:
        """Somebody holds one more, until it is closed. Raises `TooManyStreams`."""
        self._shares.take(user_id)
        socket = OpenSocket(acting=acting, user_id=user_id, has_ended=has_ended, looked_at=time.monotonic())
        self._sockets.add(socket)
        return socket

    def close(self, socket: OpenSocket) -> None:
        """He holds it no more."""
        self._sockets.remove(socket)
        self._shares.give_back(socket.user_id)

    def hear_scopes(self, payload: str | None) -> None:
        """Users whose session or key may have ended; None after a gap in hearing."""
        user_ids = None if payload is None else ids_of(payload)
        for socket in self._sockets:
            if user_ids is None or socket.user_id in user_ids:
                socket.looked_at = NEVER

    async def look_for_ever(self) -> None:
        """End those whose session or key has ended, until cancelled. One after the other: nobody waits for it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for principal, sockets in self._due(time.monotonic()).items():
                try:
                    await self._look(principal, sockets)
                except Exception:
                    logger.exception("sockets could not be looked at")

    def _due(self, now: float) -> dict[Principal, list[OpenSocket]]:
        """The sockets that are to be looked at, by who opened them."""
        due: dict[Principal, list[OpenSocket]] = {}
        for socket in self._sockets:
            if now - socket.looked_at > SCOPE_SECONDS_MAX and not socket.has_ended.is_set():
                due.setdefault(socket.acting.principal, []).append(socket)
        return due

    async def _look(self, principal: Principal, sockets: list[OpenSocket]) -> None:
        for socket in sockets:
            # Before it is read, so that what is heard meanwhile has it read again.
            socket.looked_at = time.monotonic()
        try:
            async with self._database.work(principal, sockets[0].acting.origin, datetime.now(UTC)):
                return
        except Unauthenticated:
            for socket in sockets:
                socket.has_ended.set()
        except (SQLAlchemyError, OSError) as error:
            logger.warning("sockets wait for the database", error=type(error).__name__)
            for socket in sockets:
                socket.looked_at = NEVER
