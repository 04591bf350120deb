"""Who follows the calendar of an establishment or of an area: what is told when bookings change there.

The database notifies which booking changed where, and nothing of it. What a follower is told is read then, as a query of his own
in a transaction of now: so he is told what he may read at that moment, and a follower who may read nothing any more is told so.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from hse.adapters.live.notices import ids_of
from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting
from hse.api.live import STREAMS_MAX, STREAMS_OF_USER_MAX
from hse.api.shares import Shares
from hse.domain.booking.bookings import SEE_BOOKINGS
from hse.domain.booking.model import Booking
from hse.domain.errors import DomainError, NotFound
from hse.domain.identity.principals import Unauthenticated
from hse.domain.work import within_act

# What waits for a reader; beyond that he is told that he missed some.
BOOKINGS_WAITING_MAX = 500
# Changes that follow one another are told together.
GATHER_SECONDS = 0.1
# Nobody follows for longer than this without having been looked up again.
LOOK_SECONDS = 30.0
AWAY_SECONDS = 2.0

Ended = Literal["session-ended", "forbidden", "shutting-down"]

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarChanges:
    """What changed: bookings as they are now, and the ids of those that are not there any more, or are elsewhere.

    `has_missed_some` says that more has changed than is told: read the calendar again.
    """

    changed: list[Booking]
    gone_ids: list[UUID]
    has_missed_some: bool
    ended: Ended | None


@dataclass(eq=False, slots=True, kw_only=True)
class Watch:
    """One follower, and what waits for him."""

    acting: Acting
    user_id: UUID
    establishment_id: UUID
    area_id: UUID | None
    waiting: set[UUID] = field(default_factory=set)
    has_missed_some: bool = False
    is_ending: bool = False
    has_news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, booking_id: UUID | None) -> None:
        """A booking changed there; None: some may have."""
        if booking_id is None or len(self.waiting) >= BOOKINGS_WAITING_MAX:
            self.waiting.clear()
            self.has_missed_some = True
        else:
            self.waiting.add(booking_id)
        self.has_news.set()

    async def batches(self) -> AsyncGenerator[CalendarChanges, None]:
        """What changes, until the end is told."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.has_news.wait()
            await asyncio.sleep(GATHER_SECONDS)
            if (told := await self._read()) is None:
                await asyncio.sleep(AWAY_SECONDS)
                continue
            if told.changed or told.gone_ids or told.has_missed_some or told.ended is not None:
                yield told
            if told.ended is not None:
                return

    async def _read(self) -> CalendarChanges | None:
        """What there is to tell; None when the database does not answer, and everything waits still."""
        if self.is_ending:
            return self._end("shutting-down")
        self.has_news.clear()
        ids, has_missed_some = [*self.waiting], self.has_missed_some
        self.waiting.clear()
        self.has_missed_some = False
        try:
            found = await self.acting.read(lambda work: self._bookings(work, ids))
        except Unauthenticated:
            return self._end("session-ended")
        except DomainError:
            return self._end("forbidden")
        except (SQLAlchemyError, OSError) as error:
            logger.warning("followers of calendars wait for the database", error=type(error).__name__)
            self.waiting.update(ids)
            self.has_missed_some |= has_missed_some
            self.has_news.set()
            return None
        here = [one for one in found.values() if self.is_at(one.establishment_id, one.area_id)]
        gone = set(ids) - {one.id for one in here}
        return CalendarChanges(
            changed=sorted(here, key=lambda one: (one.check_in, one.id)),
            gone_ids=sorted(gone),
            has_missed_some=has_missed_some,
            ended=None,
        )

    async def _bookings(self, work: PostgresWork, booking_ids: list[UUID]) -> dict[UUID, Booking]:
        await check_admitted(work, self.establishment_id, self.area_id)
        reach = work.actor.reach(SEE_BOOKINGS)
        return await work.bookings.find_many(booking_ids, reach) if booking_ids else {}

    def is_at(self, establishment_id: UUID, area_id: UUID) -> bool:
        """Whether that is where he looks."""
        return establishment_id == self.establishment_id and self.area_id in (None, area_id)

    @staticmethod
    def _end(reason: Ended) -> CalendarChanges:
        return CalendarChanges(changed=[], gone_ids=[], has_missed_some=False, ended=reason)


class BookingWatches:
    """The followers of this process."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._shares = Shares(of_user_max=STREAMS_OF_USER_MAX, all_max=STREAMS_MAX)
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._watches)

    async def open(self, acting: Acting, establishment_id: UUID, area_id: UUID | None) -> Watch:
        """Begin to follow. Raises `Unauthenticated`, `Forbidden`, `NotFound`, `TooManyStreams`."""

        async def user(work: PostgresWork) -> UUID:
            await check_admitted(work, establishment_id, area_id)
            return work.actor.user_id

        user_id = await acting.read(user)
        self._shares.take(user_id)
        watch = Watch(acting=acting, user_id=user_id, establishment_id=establishment_id, area_id=area_id)
        watch.is_ending = self._is_ending
        self._watches.add(watch)
        # What changed between the reader's own query and this is not known: an empty beginning would hide it.
        watch.note(None)
        return watch

    def close(self, watch: Watch) -> None:
        """Follow no more. Done already, it is done again without harm."""
        if watch in self._watches:
            self._watches.remove(watch)
            self._shares.give_back(watch.user_id)

    def hear(self, payload: str | None) -> None:
        """A booking changed: organisation, establishment, area and booking; None after a gap in hearing."""
        if payload is None:
            for watch in self._watches:
                watch.note(None)
            return
        try:
            _, establishment_id, area_id, booking_id = (UUID(one) for one in payload.split(" "))
        except ValueError:
            logger.warning("a notification about bookings is not understood")
            return
        for watch in self._watches:
            # Also one that he was told of before, and that is elsewhere now: the database notifies both places.
            if watch.is_at(establishment_id, area_id):
                watch.note(booking_id)

    def hear_scopes(self, payload: str | None) -> None:
        """Users whose scope may have changed: they are looked up again now, and not only with the next change."""
        user_ids = None if payload is None else ids_of(payload)
        for watch in self._watches:
            if user_ids is None or watch.user_id in user_ids:
                watch.has_news.set()

    def end_all(self) -> None:
        """The process is about to end: readers are told to come back."""
        self._is_ending = True
        for watch in self._watches:
            watch.is_ending = True
            watch.has_news.set()


async def check_admitted(work: PostgresWork, establishment_id: UUID, area_id: UUID | None) -> None:
    """See that the actor may read the bookings there now. Raises `Forbidden`, `NotFound`."""
    work.actor.require(SEE_BOOKINGS)
    await within_act(work, work.establishments, establishment_id, see="read_establishment", act=SEE_BOOKINGS)
    if area_id is not None:
        area = await within_act(work, work.areas, area_id, see="read_area", act=SEE_BOOKINGS)
        if area.establishment_id != establishment_id:
            raise NotFound("area", area_id)
