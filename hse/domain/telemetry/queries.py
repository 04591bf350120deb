"""What may be read of the events: themselves, the newest of them, and how devices are now.

Whose they are is decided here, before anything is read or looked up in a cache: the devices are named, and the transaction
shows the events of named devices only.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from hse.domain.errors import Forbidden, Invalid, NotFound
from hse.domain.paging import PAGE_LIMIT_MAX, Page
from hse.domain.telemetry.buckets import Span, check_moment
from hse.domain.telemetry.model import DeviceState, Event, LastEvent
from hse.domain.telemetry.overdue import overdue_since
from hse.domain.telemetry.ports import EventQuery, LiveStates, NamedDevice, TelemetryWork

SEE = "read_device"
READ = "read_telemetry"
DEVICES_MAX = 50
EVENT_TYPES_MAX = 10
STATES_MAX = 200
# Of a download, which takes them page after page.
DOWNLOAD_PAGE_LIMIT = 2_000


async def named(
    work: TelemetryWork,
    device_ids: Sequence[UUID],
    most: int = DEVICES_MAX,
    *,
    action: str = READ,
    with_expected: bool = False,
) -> list[NamedDevice]:
    """The devices, in their order, now that what `action` reads of them may be read. Raises `NotFound`, `Forbidden`, `Invalid`."""
    wanted = list(dict.fromkeys(device_ids))
    if not 1 <= len(wanted) <= most:
        raise Invalid("device_id", f"1 to {most} devices")
    found = {one.id: one for one in await _name(work, wanted, action, with_expected=with_expected)}
    for device_id in wanted:
        if device_id not in found:
            raise NotFound("device", device_id)
    if not all(one.is_readable for one in found.values()):
        raise Forbidden(action)
    return [found[device_id] for device_id in wanted]


async def events(work: TelemetryWork, query: EventQuery, *, limit_max: int = PAGE_LIMIT_MAX) -> Page[Event]:
    """A page of a device's events. Raises `NotFound`, `Forbidden`, `Invalid`."""
    check_event_types(query.event_types)
    for name, moment in (("from", query.since), ("to", query.until)):
        if moment is not None:
            check_moment(name, moment)
    if not 1 <= query.limit <= limit_max:
        raise Invalid("limit", f"between 1 and {limit_max}")
    await named(work, [query.device_id])
    return await work.telemetry.events(query, work.now)


async def latest(work: TelemetryWork, device_ids: Sequence[UUID], event_types: Sequence[str] = ()) -> list[Event]:
    """The newest event of each device and type, those of a type named when any is. Raises `NotFound`, `Forbidden`, `Invalid`."""
    check_event_types(event_types)
    devices = [one.id for one in await named(work, device_ids)]
    moment = await work.telemetry.moment(devices, Span(work.now, work.now))
    found = await work.telemetry.latest(devices, list(event_types), moment.reaches)
    order = {device_id: number for number, device_id in enumerate(devices)}
    return sorted(found, key=lambda event: (order[event.device_id], event.event_type))


async def states(work: TelemetryWork, live: LiveStates, device_ids: Sequence[UUID]) -> list[DeviceState]:
    """How devices are now, in their order. Raises `NotFound`, `Forbidden`, `Invalid`."""
    return await _states(work, live, await named(work, device_ids, STATES_MAX, with_expected=True))


async def visible_states(work: TelemetryWork, live: LiveStates, device_ids: Sequence[UUID]) -> list[DeviceState]:
    """The states of those of the devices that the actor may see the state of."""
    return await _states(work, live, await visible(work, device_ids, READ, with_expected=True))


async def visible(
    work: TelemetryWork, device_ids: Sequence[UUID], action: str, *, with_expected: bool = False
) -> list[NamedDevice]:
    """Those of the devices of which the actor may read what `action` reads, now that it may be read."""
    return [one for one in await _name(work, device_ids, action, with_expected=with_expected) if one.is_readable]


async def _name(
    work: TelemetryWork, device_ids: Sequence[UUID], action: str, *, with_expected: bool
) -> list[NamedDevice]:
    see, read = work.actor.reach(SEE), work.actor.reach(action)
    return await work.telemetry.name(device_ids, see=see, read=read, with_expected=with_expected)


async def _states(work: TelemetryWork, live: LiveStates, named_devices: Sequence[NamedDevice]) -> list[DeviceState]:
    devices = [one.id for one in named_devices]
    known = await live.find(devices) if devices else {}
    status = "unknown" if known is None else "offline"
    known = dict(known or {})
    if missing := [device_id for device_id in devices if device_id not in known]:
        moment = await work.telemetry.moment(missing, Span(work.now, work.now))
        newest: dict[UUID, Event] = {}
        for event in await work.telemetry.latest(missing, [], moment.reaches):
            if event.device_id not in newest or event.time > newest[event.device_id].time:
                newest[event.device_id] = event
        known |= {device_id: _stored_state(device_id, status, newest.get(device_id)) for device_id in missing}
    return [_awaited(known[one.id], one.expected_interval_s, work.now) for one in named_devices]


def _awaited(state: DeviceState, expected_interval_s: int | None, now: datetime) -> DeviceState:
    """The state of a device that somebody may wait for."""
    newest = None if state.last_event is None else state.last_event.time
    return replace(state, overdue_since=overdue_since(newest, expected_interval_s, now))


def _stored_state(device_id: UUID, status: str, event: Event | None) -> DeviceState:
    last_event = None
    updated_at: datetime | None = None
    if event is not None:
        updated_at = event.time
        last_event = LastEvent(type=event.event_type, time=event.time, value=event.value, unit=event.unit)
    return DeviceState(
        device_id=device_id,
        status=status,
        is_live=False,
        last_event=last_event,
        connection=None,
        updated_at=updated_at,
        overdue_since=None,
    )


def check_event_types(event_types: Sequence[str]) -> None:
    """Raises `Invalid` for more types than are answered at once, and for what no event has."""
    if len(event_types) > EVENT_TYPES_MAX:
        raise Invalid("type", f"{EVENT_TYPES_MAX} types at most")
    if any(not 1 <= len(one) <= 50 or "\0" in one for one in event_types):
        raise Invalid("type", "has 1 to 50 characters")
