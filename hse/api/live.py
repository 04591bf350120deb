"""Live streams of people: how one is opened, what it may tell, and when it ends.

A stream holds no transaction. What its owner may see is read when it is opened, when somebody changed a role, an assignment, a
session or the like, and every half a minute; from the first word of a change until it was read again, a stream tells nothing. While
that cannot be read, streams wait: nobody is shown what he might not see any more.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from hse.adapters.link import NodeLink
from hse.adapters.live.hub import LiveHub, decode_positions
from hse.adapters.live.notices import alarm_of, ids_of
from hse.adapters.live.places import Places
from hse.adapters.live.subscription import Batch, LiveScope, Subscription
from hse.adapters.postgres.database import Database
from hse.adapters.postgres.listening import Listener
from hse.adapters.postgres.work import PostgresWork
from hse.api.acting import Acting
from hse.api.metrics import Metrics
from hse.api.shares import Shares
from hse.domain.errors import Forbidden, Invalid, NotFound
from hse.domain.identity.principals import Principal, Unauthenticated
from hse.domain.policy import Actor
from hse.domain.telemetry.live import SEE_ALARMS, SEE_DEVICES, SEE_REPORTS, LiveFilter, checked_filter
from hse.domain.work import seen

STREAMS_OF_USER_MAX = 20
STREAMS_MAX = 5000
HEARTBEAT_SECONDS = 15.0
SCOPE_SECONDS_MAX = 30.0
# While nobody tells of changes.
SCOPE_UNTOLD_SECONDS_MAX = 5.0
# A scope that could not be read again for so long is in doubt.
SCOPE_TRUSTED_SECONDS = 60.0
LOOK_SECONDS = 1.0
READS_AT_ONCE_MAX = 2

logger = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True, kw_only=True)
class LiveStream:
    """One open stream."""

    acting: Acting
    user_id: UUID
    subscription: Subscription
    scope_read_at: float
    streams: "LiveStreams"

    async def batches(self) -> AsyncIterator[tuple[Batch, str | None]]:
        """What is to be told, and the position to go on from; an empty batch when nothing is for long. Ends with `Ended`."""
        subscription = self.subscription
        try:
            while True:
                batch = await subscription.next_batch(HEARTBEAT_SECONDS) or Batch()
                is_caught_up = batch.is_caught_up and subscription.num_waiting == 0
                yield batch, self.streams.hub.position if is_caught_up else None
                if subscription.has_ended:
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Tell nothing more. Done already, it is done again without harm."""
        self.streams.forget(self)


class LiveStreams:
    """The open streams of this process. `is_told` says whether changes of scopes are heard of just now."""

    def __init__(self, hub: LiveHub, database: Database, is_told: Callable[[], bool]) -> None:
        self.hub = hub
        self._is_told = is_told
        self._num_heard = 0
        self.num_missed_all = 0
        self._database = database
        self._streams: set[LiveStream] = set()
        self._shares = Shares(of_user_max=STREAMS_OF_USER_MAX, all_max=STREAMS_MAX)
        self._has_doubt = asyncio.Event()
        self._is_ending = False

    async def open(self, acting: Acting, wanted: LiveFilter, resume_after: str | None = None) -> LiveStream:
        """Open a stream. Raises `Unauthenticated`, `Forbidden`, `NotFound`, `Invalid`, `TooManyStreams`."""
        checked_filter(wanted)
        try:
            after = None if not resume_after else decode_positions(resume_after)
        except ValueError as error:
            raise Invalid("resume_after", "take it from the stream that broke off") from error
        num_heard = self._num_heard
        actor = await acting.read(lambda work: _admitted(work, wanted))
        self._shares.take(actor.user_id)
        stream = LiveStream(
            acting=acting,
            user_id=actor.user_id,
            subscription=Subscription(wanted, _scope_of(actor)),
            scope_read_at=time.monotonic(),
            streams=self,
        )
        # From here on a change of scope is heard, also while the stream is still catching up.
        self._streams.add(stream)
        if self._num_heard != num_heard:
            stream.subscription.doubt()
            self._has_doubt.set()
        try:
            await self.hub.add(stream.subscription, after)
        except BaseException:
            stream.close()
            raise
        if self._is_ending:
            stream.subscription.end("shutting-down")
        return stream

    def forget(self, stream: LiveStream) -> None:
        """A stream is closed."""
        if stream in self._streams:
            self._streams.remove(stream)
            self.num_missed_all += stream.subscription.num_missed_all
            self._shares.give_back(stream.user_id)
        self.hub.remove(stream.subscription)

    def sizes(self) -> dict[str, float]:
        """How many streams there are, and how much waits for their readers. For metrics."""
        return {
            "streams": len(self._streams),
            "waiting": sum(stream.subscription.num_waiting for stream in self._streams),
        }

    def counts(self) -> dict[str, float]:
        """What became of changes. For metrics."""
        missed = self.num_missed_all + sum(stream.subscription.num_missed_all for stream in self._streams)
        return {"heard": self.hub.num_changes, "lost": self.hub.num_lost, "missed": missed}

    def end_all(self) -> None:
        """The process is about to end: readers are told to come back."""
        self._is_ending = True
        for stream in self._streams:
            stream.subscription.end("shutting-down")

    def hear_scopes(self, payload: str | None) -> None:
        """Users whose scope may have changed; None after a gap in hearing."""
        self._num_heard += 1
        user_ids = None if payload is None else ids_of(payload)
        for stream in self._streams:
            if user_ids is None or stream.user_id in user_ids:
                stream.subscription.doubt()
                self._has_doubt.set()

    def hear_devices(self, payload: str | None) -> None:
        """Devices that changed; None after a gap in hearing."""
        self.hub.places.forget(None if payload is None else ids_of(payload))

    def hear_notice(self, payload: str | None) -> None:
        """A notice of the worker; after a gap nobody knows what it said."""
        if payload is None:
            for stream in self._streams:
                if "alarm" in stream.subscription.wanted.kinds:
                    stream.subscription.offer_missed(None)
        elif (alarm := alarm_of(payload)) is not None:
            self.hub.offer_alarm(alarm)

    async def keep_scopes(self) -> None:
        """Read scopes again, when they are in doubt or old, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._has_doubt.wait()
            self._has_doubt.clear()
            due = self._due(time.monotonic())
            readers = asyncio.Semaphore(READS_AT_ONCE_MAX)
            reading = (self._read_again(streams, readers) for streams in due.values())
            for outcome in await asyncio.gather(*reading, return_exceptions=True):
                if isinstance(outcome, Exception):
                    # These stay as they are, and come into doubt when it lasts.
                    logger.error("the scope of live streams could not be read", exc_info=outcome)

    def _due(self, now: float) -> dict[Principal, list[LiveStream]]:
        """The streams whose scope is to be read again, by who opened them: one reading does for all of his."""
        age_max = SCOPE_SECONDS_MAX if self._is_told() else SCOPE_UNTOLD_SECONDS_MAX
        due: dict[Principal, list[LiveStream]] = {}
        for stream in self._streams:
            age = now - stream.scope_read_at
            if age > SCOPE_TRUSTED_SECONDS:
                stream.subscription.doubt()
            if stream.subscription.is_in_doubt or age > age_max:
                due.setdefault(stream.acting.principal, []).append(stream)
        return due

    async def _read_again(self, streams: list[LiveStream], readers: asyncio.Semaphore) -> None:
        acting = streams[0].acting
        async with readers:
            asked_at, num_doubts = time.monotonic(), [stream.subscription.num_doubts for stream in streams]
            try:
                async with self._database.work(acting.principal, acting.origin, datetime.now(UTC)) as work:
                    scope = _scope_of(work.actor)
            except Unauthenticated:
                for stream in streams:
                    stream.subscription.end("session-ended")
                return
            except (SQLAlchemyError, OSError) as error:
                logger.warning("scopes of live streams wait for the database", error=type(error).__name__)
                return
        for stream, known in zip(streams, num_doubts, strict=True):
            if stream.subscription.num_doubts != known:
                # Changed once more meanwhile.
                self._has_doubt.set()
                continue
            stream.scope_read_at = asked_at
            if scope.reports.is_nowhere and scope.alarms.is_nowhere:
                stream.subscription.end("forbidden")
            else:
                self.hub.rescope(stream.subscription, scope)


@asynccontextmanager
async def live_streams(
    database: Database, listener: Listener | None, link: NodeLink | None, metrics: Metrics
) -> AsyncIterator[LiveStreams]:
    """The streams of a process, for as long as it serves; what is to be heard is subscribed to before `listener` runs."""

    def is_told() -> bool:
        return listener is not None and listener.is_connected

    hub = LiveHub(Places(database.engine, is_told), link)
    streams = LiveStreams(hub, database, is_told)
    if listener is not None:
        listener.subscribe("hse_scopes", streams.hear_scopes)
        listener.subscribe("hse_devices", streams.hear_devices)
        listener.subscribe("hse_notices", streams.hear_notice)
    metrics.read_when_asked("hse_live_streams", "Open live streams, and what they hold.", streams.sizes, "what")
    metrics.read_when_asked(
        "hse_live_changes",
        "Changes heard of nodes, lost on the way, and not told as a reader was slow.",
        streams.counts,
        "what",
    )
    metrics.read_when_asked("hse_live_nodes", "Ingest nodes that streams hear, or cannot hear.", hub.nodes, "state")
    async with AsyncExitStack() as stack:
        if link is not None:
            metrics.read_when_asked(
                "hse_api_ingest_node_circuit",
                "The breaker of each node: 0 closed, 1 half open, 2 open.",
                link.ingest.circuits,
                "node",
            )
            stack.push_async_callback(link.close)
        stack.push_async_callback(hub.close)
        await stack.enter_async_context(running(streams.keep_scopes()))
        yield streams
        streams.end_all()


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on beside the block, and is stopped with it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _admitted(work: PostgresWork, wanted: LiveFilter) -> Actor:
    """The actor, who sees what the stream is to be about. Raises `Forbidden`, `NotFound`."""
    actor = work.actor
    scope = _scope_of(actor)
    needed = SEE_ALARMS if wanted.kinds == {"alarm"} else SEE_REPORTS
    reach = actor.require(needed)
    if wanted.device_ids:
        ids = sorted(wanted.device_ids)
        found = await work.devices.find_many(ids, scope.devices)
        for device_id in ids:
            if device_id not in found:
                raise NotFound("device", device_id)
            if not found[device_id].is_within(reach):
                raise Forbidden(needed)
    if wanted.establishment_id is not None:
        await seen(work.establishments, actor.reach("read_establishment"), wanted.establishment_id)
    return actor


def _scope_of(actor: Actor) -> LiveScope:
    return LiveScope(devices=actor.reach(SEE_DEVICES), reports=actor.reach(SEE_REPORTS), alarms=actor.reach(SEE_ALARMS))
