"""What devices report: how they are now, their events, the newest of each type, and series for charts."""

from datetime import datetime
from typing import Any
from uuid import UUID

import strawberry

from hse.api.graphql.connections import PageInfo, check_first, page_info_of
from hse.api.graphql.context import Asked, context_of
from hse.api.graphql.types import mirrors
from hse.api.history import history_of
from hse.domain.paging import PAGE_LIMIT, Page
from hse.domain.telemetry import model, queries
from hse.domain.telemetry.ports import EventQuery
from hse.domain.telemetry.series import POINTS, SeriesQuery, series


@mirrors(model.Event)
class Event:
    """One thing a device reported, as stored."""


@mirrors(model.LastEvent)
class LastEvent:
    """The newest thing that a device reported."""


@mirrors(model.ConnectionState)
class ConnectionState:
    """How a device is connected, or was last."""


@mirrors(model.DeviceState)
class DeviceState:
    """How a device is now."""

    last_event: LastEvent | None
    connection: ConnectionState | None


@mirrors(model.Series)
class Series:
    """One type of event of one device, a number a bucket and function."""


@mirrors(model.SeriesSet)
class SeriesSet:
    """Several series over the same buckets."""

    series: list[Series]


@strawberry.type(description="An event in a list.")
class EventEdge:
    """An event in a list."""

    node: Event


@strawberry.type(description="A page of a device's events, which nobody counts.")
class EventConnection:
    """A page of a device's events."""

    edges: list[EventEdge]
    page_info: PageInfo


@strawberry.input(description="Which series: `step` and `timezone` as in REST.")
class AskedSeries:
    """Which series are asked for."""

    device_ids: list[UUID]
    types: list[str]
    since: datetime
    until: datetime
    step: str = "auto"
    points: int = POINTS
    functions: list[str] = strawberry.field(default_factory=lambda: ["avg"])
    timezone: str | None = None


async def resolve_events(
    info: Asked,
    id: UUID,  # noqa: A002 (the argument's name)
    types: list[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    first: int = PAGE_LIMIT,
    after: str | None = None,
) -> Any:
    """A page of a device's events."""
    check_first(first)
    query = EventQuery(
        device_id=id,
        event_types=tuple(types or ()),
        since=since,
        until=until,
        cursor=after,
        limit=first,
    )
    page: Page[model.Event] = await _read(info, lambda work: queries.events(work, query))
    edges = [EventEdge(node=event) for event in page.items]  # type: ignore[arg-type]
    return EventConnection(edges=edges, page_info=page_info_of(page))


async def resolve_latest(info: Asked, device_ids: list[UUID], types: list[str] | None = None) -> Any:
    """The newest event of each device and type."""
    return await _read(info, lambda work: queries.latest(work, device_ids, types or ()))


async def resolve_states(info: Asked, device_ids: list[UUID]) -> Any:
    """How devices are now."""
    states = history_of(context_of(info).scope).states
    return await _read(info, lambda work: queries.states(work, states, device_ids))


async def resolve_series(info: Asked, asked: AskedSeries) -> Any:
    """Series for charts."""
    query = SeriesQuery(
        device_ids=tuple(asked.device_ids),
        event_types=tuple(asked.types),
        since=asked.since,
        until=asked.until,
        step=asked.step,
        points=asked.points,
        functions=tuple(asked.functions),
        timezone=asked.timezone,
    )
    cache = history_of(context_of(info).scope).cache
    return await _read(info, lambda work: series(work, cache, query))


@strawberry.type
class TelemetryQuery:
    """What may be read of the noun."""

    device_events = strawberry.field(
        resolver=resolve_events, graphql_type=EventConnection | None, description="A device's events, the newest first."
    )
    latest_events = strawberry.field(
        resolver=resolve_latest,
        graphql_type=list[Event] | None,
        description="The newest event of each device and type, as far as it is not older than a year.",
    )
    device_states = strawberry.field(
        resolver=resolve_states, graphql_type=list[DeviceState] | None, description="How devices are now."
    )
    series = strawberry.field(
        resolver=resolve_series,
        graphql_type=SeriesSet | None,
        description="Numbers a bucket, for charts; a bucket without events is null.",
    )


async def _read(info: Asked, query: Any) -> Any:
    context = context_of(info)
    async with context.connections:
        return await context.acting.read(query)
