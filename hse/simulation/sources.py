"""What simulated devices have to report, by sequence number."""

import collections
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from hse.simulation.meters import ShiftedSeries

# [time_us, type, value, unit, metadata], the positional event of PROTOCOL.md.
EventArray = list[int | float | str | Mapping[str, Any] | None]

KEPT_EVENTS_MAX = 100_000
MICROSECONDS = 1_000_000


class Source(Protocol):
    """The events of one device in one epoch, numbered from 1."""

    def due(self, first_seq: int, limit: int) -> list[EventArray]:
        """Return the events from `first_seq` on that have happened, at most `limit`; the same ones when asked again."""

    def forget(self, seq: int) -> None:
        """Events up to `seq` are acknowledged and not asked for again."""


@dataclass(slots=True)
class Replay:
    """Recorded readings, `speed` times as fast as they were recorded until the replay has reached now, then as they come.

    Everything follows from the number of a reading, so nothing is kept.
    """

    series: ShiftedSeries
    speed: float
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    # The replay's own clock: at `_clock_set_at` it showed `_clock`.
    _clock: datetime | None = None
    _clock_set_at: datetime | None = None

    def due(self, first_seq: int, limit: int) -> list[EventArray]:
        """Return the readings that the replay's clock has reached."""
        now = self.now()
        if self._clock is None or self._clock_set_at is None:
            # A replay that goes on begins at the reading it stopped before.
            self._clock, self._clock_set_at = min(self.series.reading(first_seq).time, now), now
        clock = min(self._clock + self._since(now), now)
        events: list[EventArray] = []
        for number in range(first_seq, first_seq + limit):
            timed = self.series.reading(number)
            if timed.time > clock:
                break
            reading = timed.reading
            events.append([microseconds(timed.time), reading.event_type, reading.value, reading.unit])
        return events

    def forget(self, seq: int) -> None:
        """Nothing is kept, so nothing is forgotten."""

    def _since(self, now: datetime) -> timedelta:
        if self._clock_set_at is None or self._clock is None:
            return timedelta(0)
        passed = max(now - self._clock_set_at, timedelta(0))
        # Not beyond now, and so never beyond what a timedelta holds.
        return min(passed, (now - self._clock) / self.speed) * self.speed


class Reported:
    """What a device has reported by itself, kept until it is acknowledged."""

    def __init__(self) -> None:
        self._kept: collections.deque[EventArray] = collections.deque()
        self._first_kept_seq = 1

    def report(self, event: EventArray) -> None:
        """Have this sent. A device whose memory is full reports no more until it is heard."""
        if len(self._kept) < KEPT_EVENTS_MAX:
            self._kept.append(event)

    def due(self, first_seq: int, limit: int) -> list[EventArray]:
        """Return what was not acknowledged."""
        start = max(first_seq - self._first_kept_seq, 0)
        return [self._kept[index] for index in range(start, min(start + limit, len(self._kept)))]

    def forget(self, seq: int) -> None:
        """Drop what is acknowledged."""
        while self._kept and self._first_kept_seq <= seq:
            self._kept.popleft()
            self._first_kept_seq += 1


class Synthetic(Reported):
    """A temperature that swings through the day, `events_per_second` of it, in bursts of `batch`.

    Events are made when they are due, as a real device makes them, and kept until they are acknowledged.
    """

    def __init__(
        self, *, events_per_second: float, batch: int, phase: float, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self._events_per_second = events_per_second
        self._batch = batch
        self._clock = clock
        # Bursts of different devices lie apart.
        self._began_at = clock() + phase * batch / events_per_second
        self._num_made = 0

    def due(self, first_seq: int, limit: int) -> list[EventArray]:
        """Return what was made and not acknowledged."""
        self._make()
        return super().due(first_seq, limit)

    def _make(self) -> None:
        """Make what is due by now, whole bursts only. A device whose memory is full measures no more until it is heard."""
        now = self._clock()
        num_due = int(max(0.0, now - self._began_at) * self._events_per_second) // self._batch * self._batch
        while self._num_made < num_due and len(self._kept) < KEPT_EVENTS_MAX:
            at = self._began_at + self._num_made / self._events_per_second
            self.report([int(at * MICROSECONDS), "temperature", daily_temperature(at), "C"])
            self._num_made += 1


def daily_temperature(at: float) -> float:
    """A room's temperature in degrees Celsius at UNIX time `at`: a swing of 4 degrees around 21, warmest at 15:00 UTC."""
    return round(21.0 + 2.0 * math.cos(2 * math.pi * (at / 86_400 - 15 / 24)), 3)


def microseconds(at: datetime) -> int:
    """Return microseconds since 1970-01-01 UTC, exactly."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
