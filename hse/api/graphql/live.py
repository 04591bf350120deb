"""Live changes as a subscription: the same as REST streams as server-sent events."""

from collections.abc import AsyncGenerator
from enum import Enum
from uuid import UUID

import strawberry

from hse.api.graphql.booking import BookingSubscription
from hse.api.graphql.connections import reference
from hse.api.graphql.context import Asked, context_of
from hse.api.graphql.entities import ALARMS, DEVICES
from hse.api.graphql.types import mirrors
from hse.domain.telemetry import live


@strawberry.enum(description="What a stream may tell of.")
class LiveKind(Enum):
    """What a stream may tell of."""

    STATE = "state"
    EVENT = "event"
    ALARM = "alarm"


@mirrors(live.LiveEvent)
class LiveEvent:
    """An event."""

    device = reference(DEVICES, "device_id")


@mirrors(live.LiveState)
class LiveState:
    """What changed about a device."""

    last_event: LiveEvent | None
    device = reference(DEVICES, "device_id")


@mirrors(live.LiveAlarm)
class LiveAlarm:
    """An alarm."""

    alarm = reference(ALARMS, "alarm_id")
    device = reference(DEVICES, "device_id")


@mirrors(live.Missed)
class Missed:
    """Changes that were not told."""


@mirrors(live.Sources)
class Sources:
    """How many nodes are heard."""


@strawberry.type(
    description="What is told together. Subscribe again with the last `position` as `resumeAfter` to go on behind it."
)
class LiveBatch:
    """What is told together."""

    states: list[LiveState]
    events: list[LiveEvent]
    alarms: list[LiveAlarm]
    missed: Missed | None
    sources: Sources | None
    # Why nothing follows: session-ended, forbidden, shutting-down.
    ended: str | None
    position: str | None


async def _live(
    info: Asked,
    kinds: list[LiveKind] | None = None,
    device_ids: list[UUID] | None = None,
    establishment_id: UUID | None = None,
    event_types: list[str] | None = None,
    resume_after: str | None = None,
) -> AsyncGenerator[LiveBatch, None]:
    context = context_of(info)
    wanted = live.LiveFilter(
        kinds=frozenset(LiveKind(kind).value for kind in kinds) if kinds else frozenset(live.KINDS),
        device_ids=frozenset(device_ids or ()),
        establishment_id=establishment_id,
        event_types=frozenset(event_types or ()),
    )
    stream = await context.live.open(context.acting, wanted, resume_after)
    try:
        async for batch, position in stream.batches():
            if batch.told or position is not None:
                # What fields lead to is read anew each time. An empty batch says where the reader is, and that all is well.
                context.loaders.forget()
                yield _batch_of(batch.told, position)
    finally:
        stream.close()


@strawberry.type(description="What is told as it happens, over graphql-transport-ws.")
class Subscription(BookingSubscription):
    """What is told as it happens."""

    live = strawberry.subscription(
        resolver=_live,
        description="Follow the devices that you may see: states (twice a second at most), events and alarms as they happen.",
    )


def _batch_of(told: list[live.Told], position: str | None) -> LiveBatch:
    # The types mirror the views field by field, so the views themselves stand for them.
    ended = next((one.reason for one in told if isinstance(one, live.Ended)), None)
    return LiveBatch(
        states=[one for one in told if isinstance(one, live.LiveState)],  # type: ignore[misc]
        events=[one for one in told if isinstance(one, live.LiveEvent)],  # type: ignore[misc]
        alarms=[one for one in told if isinstance(one, live.LiveAlarm)],  # type: ignore[misc]
        missed=next((one for one in told if isinstance(one, live.Missed)), None),  # type: ignore[arg-type]
        sources=next((one for one in told if isinstance(one, live.Sources)), None),  # type: ignore[arg-type]
        ended=ended,
        position=position,
    )
