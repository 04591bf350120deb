"""Hears what the ingest nodes tell: one stream a node, opened again where it broke off, and which nodes cannot be heard."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.json_format import MessageToDict

from hse.adapters.ingest import NodeAway, NodeRefused
from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.link import NodeLink
from hse.adapters.live.subscription import Change
from hse.adapters.nodes import Node
from hse.domain.telemetry.live import LiveEvent, LiveState

LOOK_SECONDS = 1.0
FIRST_WAIT_SECONDS, WAIT_SECONDS_MAX = 0.5, 5.0
# A node that is registered no more and cannot be heard is away for so long; after that there is no such node.
FORGOTTEN_SECONDS = 60.0
# How far back a node is asked to begin, so that readers who come from another process can go on.
REMEMBERED_MAX = 5000
# Taken from a node and not handed on yet. A node that must wait tells later how many changes it did not send.
WAITING_MAX = 5000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One thing that is known of a node: a change; that changes were missed (None: nobody knows how many); that it is up or away.

    What `is_past` happened before there was a stream: it is for those only who go on where another one stopped.
    """

    node: str
    run: str = ""
    number: int = 0
    change: Change | None = None
    num_missed: int | None = 0
    is_past: bool = False
    is_up: bool | None = None


class HeardNodes:
    """Follows every node that is there. What they tell goes to `take`, in bunches; that a node comes or goes, to `changed`."""

    def __init__(
        self,
        link: NodeLink,
        *,
        take: Callable[[list[Heard]], Awaitable[None]],
        changed: Callable[[int, int], None],
    ) -> None:
        self._directory = link.directory
        self._ingest = link.ingest
        self._take = take
        self._changed = changed
        self._nodes: dict[str, Node] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._up: set[str] = set()
        # Since when a node is registered no more.
        self._gone_at: dict[str, float] = {}
        self._waiting: asyncio.Queue[Heard] = asyncio.Queue(WAITING_MAX)
        self._told: tuple[int, int] | None = None
        self._began_us = int(time.time() * 1_000_000)

    async def run(self) -> None:
        """Follow the nodes until cancelled."""
        handing_on = asyncio.create_task(self._hand_on())
        try:
            while True:
                try:
                    self._look(await self._directory.nodes())
                except Exception:
                    logger.exception("the ingest nodes could not be looked for")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            tasks = [handing_on, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    def _look(self, nodes: list[Node]) -> None:
        """Begin to follow nodes that are new, and forget those that are gone for long."""
        now = asyncio.get_running_loop().time()
        registered = {node.name: node for node in nodes}
        self._nodes.update(registered)
        for name in list(self._nodes):
            if name in registered or name in self._up:
                self._gone_at.pop(name, None)
            elif now - self._gone_at.setdefault(name, now) > FORGOTTEN_SECONDS:
                del self._nodes[name], self._gone_at[name]
                self._tasks.pop(name).cancel()
        for name in self._nodes:
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._follow(name))
        self._tell()

    async def _follow(self, name: str) -> None:
        position: pb.Position | None = None
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                node = self._nodes[name]
                known = await self._ingest.call(node, lambda stub: stub.GetNode, pb.NodeRequest())
                past_until = known.last_position if position is None else 0
                position = await self._resume(name, known, position)
                await self._waiting.put(Heard(node=name, run=known.run, number=position.number))
                is_up = position.number >= past_until
                if is_up:
                    await self._waiting.put(Heard(node=name, is_up=True))
                async for change in self._ingest.changes(node, _request(position)):
                    wait = FIRST_WAIT_SECONDS
                    position = change.position
                    # A node that comes up while there are streams is new with all that it tells.
                    is_past = not is_up and change.received_us < self._began_us
                    heard = heard_of(name, change, is_past=is_past)
                    if heard is not None:
                        await self._waiting.put(heard)
                    if not is_up and position.number >= past_until:
                        is_up = True
                        await self._waiting.put(Heard(node=name, is_up=True))
            except (NodeAway, NodeRefused) as error:
                logger.warning("live changes of a node are not heard: %s", error)
            except Exception:
                # A defect at one node, such as a message that nobody understands, must not be the end of hearing it.
                logger.exception("live changes of node %s are not heard", name)
            await self._waiting.put(Heard(node=name, is_up=False))
            await asyncio.sleep(wait)
            wait = min(wait * 2, WAIT_SECONDS_MAX)

    async def _resume(self, name: str, known: pb.Node, position: pb.Position | None) -> pb.Position:
        """Where to go on. In another run of the node everything is new, and nobody knows what the last one still told."""
        if position is None:
            oldest = max(1, known.first_position, known.last_position - REMEMBERED_MAX + 1)
            return pb.Position(node_run=known.run, number=min(oldest - 1, known.last_position))
        if position.node_run == known.run:
            return position
        await self._waiting.put(Heard(node=name, run=known.run, number=0, num_missed=None))
        return pb.Position(node_run=known.run, number=max(0, known.first_position - 1))

    async def _hand_on(self) -> None:
        while True:
            bunch = [await self._waiting.get()]
            while not self._waiting.empty():
                bunch.append(self._waiting.get_nowait())
            try:
                await self._take([heard for heard in bunch if heard.is_up is None])
            except Exception:
                # A defect at one bunch must not be the end of all hearing.
                logger.exception("live changes could not be handed on")
            for heard in bunch:
                if heard.is_up is not None:
                    self._set_up(heard.node, is_up=heard.is_up)

    def _set_up(self, name: str, *, is_up: bool) -> None:
        if is_up and name in self._nodes:
            self._up.add(name)
        else:
            self._up.discard(name)
        self._tell()

    def _tell(self) -> None:
        told = (len(self._nodes), len(self._nodes.keys() - self._up))
        if told != self._told:
            self._told = told
            self._changed(*told)


def heard_of(node: str, message: pb.DeviceChangeEvent, *, is_past: bool) -> Heard | None:
    """What a message says; None for a kind that a newer node knows."""
    position = message.position
    run, number = position.node_run, position.number
    if message.kind == pb.MISSED:
        return Heard(node=node, run=run, number=number, num_missed=message.num_missed, is_past=is_past)
    device_id = UUID(message.device_id)
    event = None
    match message.kind:
        case pb.EVENT:
            event = _event(device_id, message)
            state = LiveState(device_id=device_id, last_event=event)
        case pb.CONNECTED | pb.DISCONNECTED:
            state = LiveState(device_id=device_id, is_connected=message.kind == pb.CONNECTED)
        case _:
            return None
    change = Change(device_id=device_id, node=node, number=number, state=state, event=event)
    return Heard(node=node, run=run, number=number, change=change, is_past=is_past)


def _event(device_id: UUID, message: pb.DeviceChangeEvent) -> LiveEvent:
    return LiveEvent(
        device_id=device_id,
        type=message.event_type,
        value=message.exact_value if message.HasField("exact_value") else None,
        unit=message.unit or None,
        time=_time(message.time_us) or EPOCH + timedelta(seconds=message.timestamp),
        received_at=_time(message.received_us),
        metadata=MessageToDict(message.typed_metadata)
        if message.HasField("typed_metadata")
        else dict(message.metadata),
    )


def _time(microseconds: int) -> datetime | None:
    return EPOCH + timedelta(microseconds=microseconds) if microseconds else None


def _request(position: pb.Position) -> pb.SubscriptionRequest:
    return pb.SubscriptionRequest(client_id="api", with_connections=True, resume_after=position)
