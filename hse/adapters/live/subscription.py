"""What one reader is still to be told. Bounded, and never waited for by who offers."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from hse.domain.policy import Reach
from hse.domain.telemetry.live import (
    DevicePlace,
    Ended,
    LiveAlarm,
    LiveEvent,
    LiveFilter,
    LiveState,
    Missed,
    Sources,
    Told,
    merged,
)

# Half a second between two states of one device.
STATE_SECONDS = 0.5
STATES_WAITING_MAX = 10_000
EVENTS_WAITING_MAX = 1000
BATCH_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a node tells of a device: its state, and the event where it is one. `number` is the node's, in its run."""

    device_id: UUID
    node: str
    number: int
    state: LiveState
    event: LiveEvent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveScope:
    """Where the owner of a stream sees devices, what they report, and their alarms."""

    devices: Reach
    reports: Reach
    alarms: Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is to be told now; `is_caught_up` when nothing was left over, so that a reader can go on from here."""

    told: list[Told] = field(default_factory=list)
    is_caught_up: bool = True


class Subscription:
    """One reader's queue. While its scope is in doubt it takes, and gives nothing."""

    def __init__(self, wanted: LiveFilter, scope: LiveScope, now: Callable[[], float] = time.monotonic) -> None:
        self.wanted = wanted
        self.scope = scope
        self.is_in_doubt = False
        # How often its scope came into doubt: a scope that was read before the last time says nothing.
        self.num_doubts = 0
        self.num_missed_all = 0
        self._now = now
        # What changed since the last round of states, and what of this round is not told yet.
        self._states: dict[UUID, tuple[LiveState, DevicePlace]] = {}
        self._round: dict[UUID, tuple[LiveState, DevicePlace]] = {}
        self._next_states_at = 0.0
        self._events: deque[tuple[LiveEvent | LiveAlarm, DevicePlace]] = deque()
        self._num_missed: int | None = 0
        self._sources: Sources | None = None
        self._ended: Ended | None = None
        self._wake = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        """How much it holds."""
        return len(self._states) + len(self._round) + len(self._events)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will be offered."""
        return self._ended is not None

    def offer_change(self, change: Change, place: DevicePlace) -> None:
        """Take a change of a device, if it is wanted and the device stands within reach."""
        wanted, event = self.wanted, change.event
        if wanted.device_ids and change.device_id not in wanted.device_ids:
            return
        if event is not None and wanted.event_types and event.type not in wanted.event_types:
            return
        if not self._sees_reports(place):
            return
        if "state" in wanted.kinds:
            self._take_state(change, place)
        if event is not None and "event" in wanted.kinds:
            self._take_event(event, place)

    def offer_alarm(self, alarm: LiveAlarm) -> None:
        """Take an alarm, if it is wanted and stands within reach."""
        wanted = self.wanted
        if "alarm" not in wanted.kinds or (wanted.device_ids and alarm.device_id not in wanted.device_ids):
            return
        place = DevicePlace(organization_id=alarm.organization_id, establishment_id=alarm.establishment_id)
        if self._is_seen(self.scope.alarms, place):
            self._take_event(alarm, place)

    def offer_missed(self, num_missed: int | None) -> None:
        """Changes were lost on the way here, nobody knows whose."""
        self._miss(num_missed)
        self._wake.set()

    def offer_sources(self, sources: Sources) -> None:
        """How many nodes are heard has changed."""
        self._sources = sources
        self._wake.set()

    def end(self, reason: str) -> None:
        """Tell nothing more but that this is the end."""
        if self._ended is None:
            self._ended = Ended(reason=reason)
        self._wake.set()

    def doubt(self) -> None:
        """Give nothing until the scope was read again."""
        self.is_in_doubt = True
        self.num_doubts += 1

    def rescope(self, scope: LiveScope) -> None:
        """What waits and is not within the new scope is not told any more."""
        self.scope = scope
        self.is_in_doubt = False
        self._states, self._round = (
            {device_id: (state, place) for device_id, (state, place) in states.items() if self._sees_reports(place)}
            for states in (self._states, self._round)
        )
        self._events = deque(
            (one, place)
            for one, place in self._events
            if (self._is_seen(scope.alarms, place) if isinstance(one, LiveAlarm) else self._sees_reports(place))
        )
        self._wake.set()

    async def next_batch(self, timeout_seconds: float) -> Batch | None:
        """What is to be told next; None when there was nothing for so long. After `Ended` there is nothing more."""
        until = self._now() + timeout_seconds
        while True:
            self._wake.clear()
            batch = self._take()
            if batch is not None:
                return batch
            now = self._now()
            if now >= until:
                return None
            wait = until - now
            if self._states and not self.is_in_doubt:
                wait = min(wait, max(0.0, self._next_states_at - now))
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _take(self) -> Batch | None:
        if self._ended is not None:
            return Batch(told=[self._ended])
        if self.is_in_doubt:
            return None
        told: list[Told] = []
        if self._sources is not None:
            told.append(self._sources)
            self._sources = None
        if self._num_missed != 0:
            told.append(Missed(num_missed=self._num_missed))
            self._num_missed = 0
        told += self._take_states()
        while self._events and len(told) < BATCH_MAX:
            told.append(self._events.popleft()[0])
        return Batch(told=told, is_caught_up=self.num_waiting == 0) if told else None

    def _take_states(self) -> list[LiveState]:
        """The states of this round, a batch at most; what changes meanwhile waits for the next round."""
        now = self._now()
        if not self._round and self._states and now >= self._next_states_at:
            self._round, self._states = self._states, {}
            self._next_states_at = now + STATE_SECONDS
        ids = list(self._round) if len(self._round) <= BATCH_MAX else list(islice(self._round, BATCH_MAX))
        return [self._round.pop(device_id)[0] for device_id in ids]

    def _take_state(self, change: Change, place: DevicePlace) -> None:
        states = self._round if change.device_id in self._round else self._states
        known = states.get(change.device_id)
        if known is None and len(states) >= STATES_WAITING_MAX:
            self._miss(1)
            return
        if not states:
            # Else the reader knows already when the next round is.
            self._wake.set()
        states[change.device_id] = (merged(known[0] if known else None, change.state), place)

    def _take_event(self, event: LiveEvent | LiveAlarm, place: DevicePlace) -> None:
        if len(self._events) >= EVENTS_WAITING_MAX:
            self._events.popleft()
            self._miss(1)
        self._events.append((event, place))
        self._wake.set()

    def _miss(self, num_missed: int | None) -> None:
        self.num_missed_all += num_missed or 1
        self._num_missed = None if self._num_missed is None or num_missed is None else self._num_missed + num_missed

    def _sees_reports(self, place: DevicePlace) -> bool:
        return self._is_seen(self.scope.devices, place) and self._is_seen(self.scope.reports, place)

    def _is_seen(self, reach: Reach, place: DevicePlace) -> bool:
        wanted = self.wanted.establishment_id
        if wanted is not None and wanted != place.establishment_id:
            return False
        return reach.has_site(place.organization_id, place.establishment_id)
