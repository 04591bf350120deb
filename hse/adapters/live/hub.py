"""Hands what is heard to the streams that may tell it, and remembers the last of it for those who come back."""

import asyncio
import logging
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from urllib.parse import quote, unquote
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from hse.adapters.link import NodeLink
from hse.adapters.live.nodes import Heard, HeardNodes
from hse.adapters.live.places import Places
from hse.adapters.live.subscription import Change, LiveScope, Subscription
from hse.domain.telemetry.live import LiveAlarm, Sources

REMEMBERED_CHANGES_MAX = 10_000
RUN_CHARS = 8
# Nodes are heard so long after the last stream was closed: a page that is loaded anew finds what it missed.
LINGER_SECONDS = 60.0
# A stream that goes on where another one stopped waits so long for the nodes.
CATCH_UP_SECONDS_MAX = 3.0
POSITION_CHARS_MAX = 4000
# A device that changes while it is looked up is looked up again.
LOOK_UPS_MAX = 3
EVERYWHERE: Hashable = "everywhere"

logger = logging.getLogger(__name__)

# By node: the beginning of its run, and the number of the last change.
Positions = dict[str, tuple[str, int]]


def encode_positions(positions: Mapping[str, tuple[str, int]]) -> str:
    """Positions as a reader keeps them."""
    return ",".join(f"{quote(node, safe='')}:{run}:{number}" for node, (run, number) in sorted(positions.items()))


def decode_positions(text: str) -> Positions:
    """The positions that a reader brings back. Raises `ValueError`."""
    if len(text) > POSITION_CHARS_MAX:
        raise ValueError("too long")
    found: Positions = {}
    for part in filter(None, text.split(",")):
        node, run, number = part.split(":")
        if not (number.isascii() and number.isdigit()):
            raise ValueError("no number")
        found[unquote(node)] = (run, int(number))
    return found


class LiveHub:
    """Every stream of this process, and what the nodes told last."""

    def __init__(self, places: Places, link: NodeLink | None) -> None:
        self.places = places
        self.num_changes = 0
        self.num_lost = 0
        self._link = link
        self._subscriptions: set[Subscription] = set()
        self._by_key: dict[Hashable, set[Subscription]] = {}
        self._keys: dict[Subscription, list[Hashable]] = {}
        self._past: deque[tuple[Change, str]] = deque(maxlen=REMEMBERED_CHANGES_MAX)
        self._positions: Positions = {}
        self._position_text: str | None = None
        # None: not looked yet.
        self._sources: Sources | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._has_looked = asyncio.Event()
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def num_streams(self) -> int:
        """How many there are."""
        return len(self._subscriptions)

    def nodes(self) -> dict[str, float]:
        """How many nodes are up, and away. For metrics."""
        sources = self._sources or Sources(num_nodes=0, num_away=0)
        return {"up": sources.num_nodes - sources.num_away, "away": sources.num_away}

    @property
    def position(self) -> str:
        """Where a reader is who was told everything up to now."""
        if self._position_text is None:
            self._position_text = encode_positions(self._positions)
        return self._position_text

    async def add(self, subscription: Subscription, after: Positions | None = None) -> None:
        """Offer to a stream what is heard from now on, or from where its reader stopped."""
        self._begin_to_hear()
        if after is not None:
            await self._replay(subscription, after)
        self._subscriptions.add(subscription)
        self._place(subscription)
        if self._sources is not None:
            subscription.offer_sources(self._sources)

    def remove(self, subscription: Subscription) -> None:
        """The stream is closed. What was done already is done again without harm."""
        self._subscriptions.discard(subscription)
        self._unplace(subscription)
        if not self._subscriptions and self._hearing is not None and self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._stop_hearing)

    def rescope(self, subscription: Subscription, scope: LiveScope) -> None:
        """The owner of a stream reaches other places now, or the same."""
        if subscription in self._subscriptions and subscription.scope != scope:
            self._unplace(subscription)
            subscription.rescope(scope)
            self._place(subscription)
        else:
            subscription.rescope(scope)

    def offer_alarm(self, alarm: LiveAlarm) -> None:
        """Hand an alarm to those who may see it."""
        for subscription in self._subscriptions:
            subscription.offer_alarm(alarm)

    async def close(self) -> None:
        """Hear nothing any more."""
        hearing, self._hearing = self._hearing, None
        if self._lingering is not None:
            self._lingering.cancel()
        if hearing is not None:
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing

    async def take(self, bunch: list[Heard]) -> None:
        """Hand on what was heard. What stands nobody knows where, as the database is away, is lost, and said to be."""
        devices = {heard.change.device_id for heard in bunch if heard.change is not None}
        unknown = await self._look_up(devices)
        num_lost = 0
        for heard in bunch:
            if heard.change is not None and heard.change.device_id in unknown:
                num_lost += 1
            else:
                self._hand_on(heard)
        if num_lost:
            self.num_lost += num_lost
            self._miss(num_lost)

    async def _look_up(self, device_ids: Iterable[UUID]) -> set[UUID]:
        """Learn where devices stand; returns those of which that cannot be said just now."""
        unknown = self.places.unknown(device_ids)
        try:
            for _ in range(LOOK_UPS_MAX):
                if not unknown:
                    break
                await self.places.look_up(unknown)
                unknown = self.places.unknown(unknown)
        except (SQLAlchemyError, OSError) as error:
            logger.warning("live changes are lost: the database does not answer (%s)", type(error).__name__)
        return unknown

    def _hand_on(self, heard: Heard) -> None:
        known = self._positions.get(heard.node)
        run = heard.run[:RUN_CHARS]
        if known is None or known[0] != run or known[1] < heard.number:
            self._positions[heard.node] = (run, heard.number)
            self._position_text = None
        if heard.change is None:
            if heard.num_missed != 0 and not heard.is_past:
                self._miss(heard.num_missed)
            return
        self.num_changes += 1
        self._past.append((heard.change, run))
        if not heard.is_past:
            self._offer(heard.change)

    def _offer(self, change: Change) -> None:
        place = self.places.of(change.device_id)
        if place is None:
            return
        keys = (EVERYWHERE, place.organization_id, place.establishment_id, change.device_id)
        found = [streams for key in keys if (streams := self._by_key.get(key))]
        # A stream that reaches the organisation and the establishment is told once.
        for subscription in found[0] if len(found) == 1 else set[Subscription]().union(*found):
            subscription.offer_change(change, place)

    def _miss(self, num_missed: int | None) -> None:
        for subscription in self._subscriptions:
            subscription.offer_missed(num_missed)

    async def _replay(self, subscription: Subscription, after: Positions) -> None:
        """Offer what came behind these positions, as far as it is remembered; tell how much is not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS_MAX):
                await self._has_looked.wait()
        unknown = await self._look_up({change.device_id for change, _ in self._past})
        # From here on nothing else runs before the stream is one of those that new changes are offered to.
        oldest: dict[str, int] = {}
        for change, run in self._past:
            oldest.setdefault(change.node, change.number)
            known = after.get(change.node)
            if known is not None and known[0] == run and change.number <= known[1]:
                continue
            place = self.places.of(change.device_id)
            if change.device_id in unknown:
                subscription.offer_missed(1)
            elif place is not None:
                subscription.offer_change(change, place)
        for node, (run, number) in self._positions.items():
            known = after.get(node)
            if known is None:
                continue
            if known[0] != run:
                subscription.offer_missed(None)
            elif number > known[1] and (first := oldest.get(node, number + 1)) > known[1] + 1:
                subscription.offer_missed(first - known[1] - 1)
        if after.keys() - self._positions.keys():
            # Of nodes that cannot be heard, or are gone, nobody knows.
            subscription.offer_missed(None)

    def _place(self, subscription: Subscription) -> None:
        keys = self._keys[subscription] = list(_keys_of(subscription))
        for key in keys:
            self._by_key.setdefault(key, set()).add(subscription)

    def _unplace(self, subscription: Subscription) -> None:
        for key in self._keys.pop(subscription, ()):
            streams = self._by_key[key]
            streams.discard(subscription)
            if not streams:
                del self._by_key[key]

    def _begin_to_hear(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._link is None:
            self._set_sources(0, 0)
        elif self._hearing is None:
            nodes = HeardNodes(self._link, take=self.take, changed=self._set_sources)
            self._hearing = asyncio.create_task(nodes.run())

    def _stop_hearing(self) -> None:
        self._lingering = None
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None
        self._has_looked.clear()
        self._past.clear()
        self._positions.clear()
        self._position_text = None
        self._sources = None

    def _set_sources(self, num_nodes: int, num_away: int) -> None:
        self._sources = Sources(num_nodes=num_nodes, num_away=num_away)
        if not num_away:
            self._has_looked.set()
        for subscription in self._subscriptions:
            subscription.offer_sources(self._sources)


def _keys_of(subscription: Subscription) -> Iterable[Hashable]:
    """Under what a change must be known to be offered to a stream at all."""
    wanted, reach = subscription.wanted, subscription.scope.devices
    if wanted.device_ids:
        return wanted.device_ids
    if wanted.establishment_id is not None:
        return [wanted.establishment_id]
    if reach.is_everything:
        return [EVERYWHERE]
    return [*reach.organization_ids, *reach.establishment_ids]
