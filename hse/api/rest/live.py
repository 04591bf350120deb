"""Live changes as server-sent events, for screens and programs."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Router, get
from litestar.background_tasks import BackgroundTask
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromQuery, HeaderParameter, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from hse.api.acting import Acts
from hse.api.live import LiveStream, LiveStreams
from hse.domain.telemetry.live import (
    KINDS,
    Ended,
    LiveAlarm,
    LiveEvent,
    LiveFilter,
    LiveState,
    Missed,
    Sources,
    Told,
)

# How long a browser waits before it comes again.
RETRY_MS = 2000
NAMES: dict[type[Told], str] = {
    LiveState: "state",
    LiveEvent: "event",
    LiveAlarm: "alarm",
    Missed: "missed",
    Sources: "sources",
    Ended: "end",
}

Kinds = Annotated[
    list[str] | None,
    QueryParameter(name="kind", description=f"What to tell of: {', '.join(KINDS)}; all of them unless some are named."),
]
DeviceIds = Annotated[list[UUID] | None, QueryParameter(name="device_id", description="Only of these devices.")]
EventTypes = Annotated[list[str] | None, QueryParameter(name="event_type", description="Only events of these types.")]
LastEventId = Annotated[
    str | None,
    HeaderParameter(
        name="Last-Event-ID",
        description="The last `id` that was received: what came behind it is told first, as far as it is remembered.",
        max_length=4000,
    ),
]


@get(
    "/live",
    responses={
        200: ResponseSpec(
            str, description="A stream of server-sent events.", media_type="text/event-stream", generate_examples=False
        )
    },
)
async def follow_live(
    request: Request[Any, Any, Any],
    acting: Acts,
    kinds: Kinds = None,
    device_ids: DeviceIds = None,
    establishment_id: FromQuery[UUID | None] = None,
    event_types: EventTypes = None,
    last_event_id: LastEventId = None,
) -> ServerSentEvent:
    """Follow the devices that you may see: states (twice a second at most), events and alarms as they happen.

    Messages are `state`, `event`, `alarm`; `sources` (how many ingest nodes there are, and how many cannot be heard just now);
    `missed` (you read too slowly, or a node was away: so many changes at most were not told); `end` with its reason. Come back
    with the last `id` as Last-Event-ID to go on; what was told shortly before the break may then be told again. What must not be
    missed is read from the history.
    """
    wanted = LiveFilter(
        kinds=frozenset(kinds or KINDS),
        device_ids=frozenset(device_ids or ()),
        establishment_id=establishment_id,
        event_types=frozenset(event_types or ()),
    )
    streams: LiveStreams = request.app.state.live
    stream = await streams.open(acting, wanted, last_event_id)
    return ServerSentEvent(_messages(stream), background=BackgroundTask(_close, stream))


async def _messages(stream: LiveStream) -> AsyncIterator[ServerSentEventMessage]:
    yield ServerSentEventMessage(data=None, retry=RETRY_MS, comment="open")
    async for batch, position in stream.batches():
        for one in batch.told:
            yield ServerSentEventMessage(data=msgspec.json.encode(one), event=NAMES[type(one)])
        if position:
            # Without data: it is kept by who reads, and shown to nobody.
            yield ServerSentEventMessage(data=None, id=position, comment=None if batch.told else "alive")
        elif not batch.told:
            yield ServerSentEventMessage(data=None, comment="alive")


async def _close(stream: LiveStream) -> None:
    """The reader went away, wherever that left the messages."""
    stream.close()


router = Router(path="/", tags=["live"], route_handlers=[follow_live])
