"""Series for charts: numbers a bucket, of several devices at once, with as much of them from the cache as still holds.

What lies before `hours_until` changes only by late events, so it is kept in the cache, a device an entry, and what is found there
counts unless an event came since; the rest, an hour or so, is counted anew each time. Both are parts, which are put together here.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import attrgetter
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from hse.domain.errors import Invalid
from hse.domain.telemetry.buckets import (
    CALENDAR_STEPS,
    HOUR,
    STEPS,
    Pieces,
    Span,
    automatic_step,
    bucket_edges,
    check_range,
    is_counted_from_events,
    plan,
)
from hse.domain.telemetry.model import Series, SeriesSet, TooMuchHistory
from hse.domain.telemetry.partials import FUNCTIONS, Partial
from hse.domain.telemetry.ports import (
    HistoryCache,
    KeptParts,
    Moment,
    NamedDevice,
    Parts,
    PartsQuery,
    TelemetryWork,
)
from hse.domain.telemetry.queries import check_event_types, named

AUTOMATIC = "auto"
POINTS = 300
POINTS_MAX = 2_000
# Devices times types times points.
CELLS_MAX = 100_000
# Devices times hours: what is counted from events, which may come every second, and what is counted from hours.
EVENT_HOURS_MAX = 31 * 24
AGGREGATE_HOURS_MAX = 50 * 366 * 24
UTC_NAME = "UTC"

UNIT_MIN, UNIT_MAX = attrgetter("unit_min"), attrgetter("unit_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesQuery:
    """Which series: `functions` of `event_types` of devices, in buckets of `step`, `points` of them at most.

    The range is widened to whole buckets. `timezone` (IANA) says whose days, weeks, months and years these are; without it those of
    the devices' establishments, which then must lie in one.
    """

    device_ids: tuple[UUID, ...]
    event_types: tuple[str, ...]
    since: datetime
    until: datetime
    step: str = AUTOMATIC
    points: int = POINTS
    functions: tuple[str, ...] = ("avg",)
    timezone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A query, once its buckets are known."""

    devices: tuple[UUID, ...]
    event_types: tuple[str, ...]
    step: str
    zone: ZoneInfo
    edges: Sequence[datetime]
    has_deviation: bool

    def pieces(self, window: Span, moment: Moment, devices: Sequence[UUID]) -> Pieces:
        """From what these devices' parts in the window are counted."""
        if is_counted_from_events(self.step):
            since, until = max(window.since, self.edges[0]), min(window.until, self.edges[-1])
            return Pieces(events=(Span(since, until),) if since < until else ())
        late = [span for one in devices if one in moment.late for span in moment.late[one].hours]
        # No day lies in a bucket that is shorter.
        has_days = self.step in CALENDAR_STEPS and not self.has_deviation
        return plan(self.edges, window, moment.reaches, late, has_days=has_days)

    def parts_query(self, devices: Sequence[UUID], pieces: Pieces) -> PartsQuery:
        """How the store is asked."""
        return PartsQuery(
            device_ids=tuple(devices),
            event_types=self.event_types,
            edges=self.edges,
            pieces=pieces,
            has_deviation=self.has_deviation,
        )

    def cache_name(self, device_id: UUID, until: datetime) -> str:
        """All that a device's parts depend on, beside its events."""
        shape = (self.event_types, self.step, self.zone.key, self.edges[0], self.edges[-1], until, self.has_deviation)
        return f"{device_id}:{hashlib.blake2b(repr(shape).encode(), digest_size=16).hexdigest()}"


async def series(work: TelemetryWork, kept: HistoryCache, query: SeriesQuery) -> SeriesSet:
    """The series. Raises `NotFound`, `Forbidden`, `Invalid`, `TooMuchHistory`."""
    _check(query)
    devices = await named(work, query.device_ids)
    asked = _asked(query, devices)
    whole = Span(asked.edges[0], asked.edges[-1])
    moment = await work.telemetry.moment(asked.devices, whole)
    boundary = min(max(moment.reaches.hours_until, whole.since), whole.until)
    found = await _settled_parts(work, kept, asked, moment, Span(whole.since, boundary))
    opened = asked.pieces(Span(boundary, whole.until), moment, asked.devices)
    open_parts = await work.telemetry.parts(asked.parts_query(asked.devices, opened)) if opened.events else {}
    return SeriesSet(
        step=asked.step,
        timezone=asked.zone.key,
        until=asked.edges[-1],
        times=list(asked.edges[:-1]),
        series=[
            _series(device_id, event_type, parts, len(asked.edges) - 1, query.functions)
            for device_id in asked.devices
            for event_type in asked.event_types
            if (parts := _together(event_type, found.get(device_id, {}), open_parts.get(device_id, {})))
        ],
    )


async def _settled_parts(
    work: TelemetryWork, cache: HistoryCache, asked: _Asked, moment: Moment, window: Span
) -> dict[UUID, Parts]:
    """The parts of what late events alone can change: from the cache, and from the database what is not there, or not any more."""
    if window.since >= window.until:
        return {}
    names = {device_id: asked.cache_name(device_id, window.until) for device_id in asked.devices}
    kept = await cache.find(list(names.values()))
    found: dict[UUID, Parts] = {}
    num_outdated = 0
    for device_id, name in names.items():
        if (one := kept.get(name)) is None:
            continue
        late = moment.late.get(device_id)
        if late is None or work.telemetry.has_seen(one.snapshot, late.marked_by):
            found[device_id] = one.parts
        else:
            num_outdated += 1
    missing = [device_id for device_id in asked.devices if device_id not in found]
    cache.note(hits=len(found), misses=len(missing) - num_outdated, outdated=num_outdated)
    if missing:
        pieces = asked.pieces(window, moment, missing)
        read = await work.telemetry.parts(asked.parts_query(missing, pieces))
        made = {device_id: read.get(device_id, {}) for device_id in missing}
        await cache.keep({names[one]: KeptParts(snapshot=moment.snapshot, parts=parts) for one, parts in made.items()})
        found |= made
    return found


def _check(query: SeriesQuery) -> None:
    check_range(query.since, query.until)
    if not query.event_types:
        raise Invalid("type", "name one at least")
    check_event_types(query.event_types)
    if query.step not in (AUTOMATIC, *STEPS):
        raise Invalid("step", f"one of {AUTOMATIC}, {', '.join(STEPS)}")
    if not 1 <= query.points <= POINTS_MAX:
        raise Invalid("points", f"between 1 and {POINTS_MAX}")
    if not query.functions or not set(query.functions) <= FUNCTIONS.keys():
        raise Invalid("function", f"some of {', '.join(FUNCTIONS)}")
    if query.timezone is not None and query.timezone not in _timezones():
        raise Invalid("timezone", f"{query.timezone[:64]!r} is no IANA time zone, such as America/Santiago")


def _asked(query: SeriesQuery, devices: Sequence[NamedDevice]) -> _Asked:
    event_types = tuple(sorted(set(query.event_types)))
    num_series = len(devices) * len(event_types)
    points_max = min(query.points, CELLS_MAX // num_series)
    device_hours = len(devices) * -((query.since - query.until) // HOUR)
    zone = _zone(query, devices)
    step = query.step
    if step == AUTOMATIC:
        finest = "1s" if device_hours <= EVENT_HOURS_MAX else "1h"
        step = automatic_step(query.since, query.until, zone, points_max, finest=finest)
    edges = bucket_edges(step, query.since, query.until, zone, query.points)
    if num_series * (len(edges) - 1) > CELLS_MAX:
        raise TooMuchHistory("devices times types times points", CELLS_MAX)
    if is_counted_from_events(step) and device_hours > EVENT_HOURS_MAX:
        raise TooMuchHistory("devices times hours, in steps of less than an hour", EVENT_HOURS_MAX)
    has_deviation = "stddev" in query.functions
    if (has_deviation or step.endswith("h")) and device_hours > AGGREGATE_HOURS_MAX:
        raise TooMuchHistory("devices times hours", AGGREGATE_HOURS_MAX)
    return _Asked(
        devices=tuple(one.id for one in devices),
        event_types=event_types,
        step=step,
        zone=zone,
        edges=edges,
        has_deviation=has_deviation,
    )


def _zone(query: SeriesQuery, devices: Sequence[NamedDevice]) -> ZoneInfo:
    """The zone whose calendar counts; UTC for devices that stand nowhere. Raises `Invalid` where there are several."""
    if query.timezone is not None:
        return ZoneInfo(query.timezone)
    zones = {one.timezone or UTC_NAME for one in devices}
    if len(zones) > 1:
        raise Invalid("timezone", "the devices stand in several time zones: name the one whose days are meant")
    return ZoneInfo(zones.pop())


@cache
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def _together(event_type: str, settled: Parts, opened: Parts) -> dict[int, Partial]:
    parts = dict(settled.get(event_type, {}))
    for number, part in opened.get(event_type, {}).items():
        parts[number] = parts[number].with_other(part) if number in parts else part
    return parts


def _series(
    device_id: UUID, event_type: str, parts: Mapping[int, Partial], num_buckets: int, functions: Sequence[str]
) -> Series:
    buckets = [parts.get(number) for number in range(1, num_buckets + 1)]

    def numbers(name: str) -> list[float | None] | None:
        if name not in functions:
            return None
        function = FUNCTIONS[name]
        return [None if part is None else function(part) for part in buckets]

    units = {*map(UNIT_MIN, parts.values()), *map(UNIT_MAX, parts.values())} - {None}
    return Series(
        device_id=device_id,
        event_type=event_type,
        unit=next(iter(units)) if len(units) == 1 else None,
        has_several_units=len(units) > 1,
        avg=numbers("avg"),
        min=numbers("min"),
        max=numbers("max"),
        sum=numbers("sum"),
        count=[0 if part is None else part.samples for part in buckets] if "count" in functions else None,
        stddev=numbers("stddev"),
    )
