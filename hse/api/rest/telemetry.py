"""What devices report: how they are now, their events, the newest of each type, and series for charts."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, QueryParameter, SkipValidation
from litestar.response import Stream

from hse.api.acting import Acting, Acts
from hse.api.downloads import CSV_RESPONSE, Rows, csv_download
from hse.api.history import Histories, History, provide_history
from hse.api.paging import Cursor, Limit
from hse.domain.errors import Invalid
from hse.domain.paging import PAGE_LIMIT, Page
from hse.domain.telemetry import queries
from hse.domain.telemetry.model import DeviceState, Event, SeriesSet
from hse.domain.telemetry.partials import FUNCTIONS
from hse.domain.telemetry.ports import EventQuery
from hse.domain.telemetry.series import POINTS, SeriesQuery, series

DeviceIds = Annotated[list[UUID], QueryParameter(name="device_id", description="A device; repeat it for several.")]
EventTypes = Annotated[
    list[str] | None, QueryParameter(name="type", description="Only events of this type; repeat it for several.")
]
SeriesTypes = Annotated[list[str], QueryParameter(name="type", description="A type of event; repeat it for several.")]
From = Annotated[datetime | None, QueryParameter(name="from", description="Not before this time.")]
Until = Annotated[datetime | None, QueryParameter(name="to", description="Before this time.")]
DownloadFrom = Annotated[datetime, QueryParameter(name="from", description="Not before this time.")]
DownloadUntil = Annotated[datetime, QueryParameter(name="to", description="Before this time.")]
SeriesFrom = Annotated[datetime, QueryParameter(name="from", description="Widened to the beginning of its bucket.")]
SeriesUntil = Annotated[datetime, QueryParameter(name="to", description="Widened to the end of its bucket.")]
Step = Annotated[
    str,
    QueryParameter(
        description="The length of a bucket: 1s, 5s, 10s, 30s, 1m, 5m, 10m, 15m, 30m, 1h, 3h, 6h, 12h, or of the calendar 1d, 1w,"
        " 1mo, 1y; `auto` chooses the finest that takes no more than `points`.",
        max_length=10,
    ),
]
Points = Annotated[int, QueryParameter(description="Buckets at most.")]
Functions = Annotated[
    list[str] | None,
    QueryParameter(
        name="function", description=f"Some of {', '.join(FUNCTIONS)}; repeat it for several. Without, avg."
    ),
]
Timezone = Annotated[
    str | None,
    QueryParameter(description="Whose days, weeks, months and years (IANA); without it the site's.", max_length=64),
]
Order = Annotated[str, QueryParameter(description="`-time`, the newest first, or `time`.", max_length=10)]

# One of the devices that a query names may be none that the caller sees.
UNSEEN = {"refusals": (404,)}

EVENT_COLUMNS = ("time", "device_id", "event_type", "value", "unit", "source", "metadata")


async def provide_event_query(
    device_id: FromPath[UUID],
    event_types: EventTypes = None,
    at_from: From = None,
    at_until: Until = None,
    sort: Order = "-time",
    limit: Limit = PAGE_LIMIT,
    cursor: Cursor = None,
) -> EventQuery:
    """Which events are asked for. Raises `Invalid`."""
    if sort not in ("time", "-time"):
        raise Invalid("sort", "time or -time")
    return EventQuery(
        device_id=device_id,
        event_types=tuple(event_types or ()),
        since=at_from,
        until=at_until,
        cursor=cursor,
        limit=limit,
        is_ascending=sort == "time",
    )


async def provide_series_query(
    device_ids: DeviceIds,
    event_types: SeriesTypes,
    at_from: SeriesFrom,
    at_until: SeriesUntil,
    step: Step = "auto",
    points: Points = POINTS,
    functions: Functions = None,
) -> SeriesQuery:
    """Which series are asked for."""
    return SeriesQuery(
        device_ids=tuple(device_ids),
        event_types=tuple(event_types),
        since=at_from,
        until=at_until,
        step=step,
        points=points,
        functions=tuple(functions or ("avg",)),
    )


AskedEvents = NamedDependency[SkipValidation[EventQuery]]
AskedSeries = NamedDependency[SkipValidation[SeriesQuery]]


@get("/devices/{device_id:uuid}/events", dependencies={"asked": Provide(provide_event_query)})
async def list_events(acting: Acts, asked: AskedEvents) -> Page[Event]:
    """List what a device reported, page after page."""
    return await acting.read(lambda work: queries.events(work, asked))


@get(
    "/devices/{device_id:uuid}/events.csv",
    responses=CSV_RESPONSE,
    media_type="text/csv",
)
async def download_events(
    acting: Acts,
    device_id: FromPath[UUID],
    at_from: DownloadFrom,
    at_until: DownloadUntil,
    event_types: EventTypes = None,
) -> Stream:
    """Download what a device reported from one time to another, as CSV, the oldest first.

    The file is written while it is read, and has no limit. A text that a spreadsheet would run as a formula has an apostrophe in
    front.
    """
    query = EventQuery(
        device_id=device_id,
        event_types=tuple(event_types or ()),
        since=at_from,
        until=at_until,
        limit=queries.DOWNLOAD_PAGE_LIMIT,
        is_ascending=True,
    )
    if at_from >= at_until:
        raise Invalid("to", "must be after `from`")
    # The first page before the answer begins: what is refused is refused with a problem.
    first = await _download_page(acting, query)
    return csv_download(f"events-{device_id}.csv", EVENT_COLUMNS, _event_rows(acting, query, first))


@get("/devices/{device_id:uuid}/state", dependencies={"history": Provide(provide_history)})
async def get_device_state(acting: Acts, history: Histories, device_id: FromPath[UUID]) -> DeviceState:
    """Read how a device is now: whether it is connected, and what it reported last."""
    (state,) = await acting.read(lambda work: queries.states(work, history.states, [device_id]))
    return state


@get("/telemetry/states", dependencies={"history": Provide(provide_history)}, opt=UNSEEN)
async def list_device_states(acting: Acts, history: Histories, device_ids: DeviceIds) -> list[DeviceState]:
    """Read how devices are now, 200 at most. One that you may not see is refused, and the others with it."""
    return await acting.read(lambda work: queries.states(work, history.states, device_ids))


@get("/telemetry/latest", opt=UNSEEN)
async def list_latest_events(acting: Acts, device_ids: DeviceIds, event_types: EventTypes = None) -> list[Event]:
    """Read the newest event of each device and type, as far as it is not older than a year."""
    return await acting.read(lambda work: queries.latest(work, device_ids, event_types or ()))


@get(
    "/telemetry/series",
    dependencies={"asked": Provide(provide_series_query), "history": Provide(provide_history)},
    opt=UNSEEN,
)
async def get_series(acting: Acts, history: Histories, asked: AskedSeries, timezone: Timezone = None) -> SeriesSet:
    """Read series for charts: of each device and type one number a bucket and function. A bucket without events is null.

    Days, weeks, months and years are those of the site's time zone. A device that reported nothing of a type has no series.
    """
    return await _read_series(acting, history, asked, timezone)


@get(
    "/telemetry/series.csv",
    dependencies={"asked": Provide(provide_series_query), "history": Provide(provide_history)},
    opt=UNSEEN,
    responses=CSV_RESPONSE,
    media_type="text/csv",
)
async def download_series(acting: Acts, history: Histories, asked: AskedSeries, timezone: Timezone = None) -> Stream:
    """Download series as CSV, a line a bucket: those without events are empty."""
    found = await _read_series(acting, history, asked, timezone)
    header = ("time", "device_id", "event_type", "unit", *asked.functions)
    return csv_download("series.csv", header, _series_rows(found, asked.functions))


async def _read_series(acting: Acting, history: History, query: SeriesQuery, timezone: str | None) -> SeriesSet:
    return await acting.read(lambda work: series(work, history.cache, replace(query, timezone=timezone)))


async def _download_page(acting: Acting, query: EventQuery) -> Page[Event]:
    return await acting.read(lambda work: queries.events(work, query, limit_max=queries.DOWNLOAD_PAGE_LIMIT))


async def _event_rows(acting: Acting, query: EventQuery, page: Page[Event]) -> AsyncIterator[Rows]:
    """The rows of page after page. Each is a transaction of its own: none waits for a slow client, and each asks anew who he is."""
    while True:
        yield [_event_row(event) for event in page.items]
        if page.next_cursor is None:
            return
        page = await _download_page(acting, replace(query, cursor=page.next_cursor))


def _event_row(event: Event) -> tuple[Any, ...]:
    metadata = None if event.metadata is None else msgspec.json.encode(event.metadata).decode()
    return (event.time, str(event.device_id), event.event_type, event.value, event.unit, event.source, metadata)


async def _series_rows(found: SeriesSet, functions: tuple[str, ...]) -> AsyncIterator[Rows]:
    for one in found.series:
        columns = [getattr(one, name) for name in functions]
        yield [
            (time, str(one.device_id), one.event_type, one.unit, *numbers)
            for time, numbers in zip(found.times, zip(*columns, strict=True), strict=True)
        ]


router = Router(
    path="/",
    tags=["telemetry"],
    route_handlers=[
        list_events,
        download_events,
        get_device_state,
        list_device_states,
        list_latest_events,
        get_series,
        download_series,
    ],
)
