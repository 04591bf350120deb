"""Hands commands to devices: any number of workers may do so at once, and any of them may die anywhere.

A worker claims the queues that are due (one worker a device at a time), finds out which node has the device, and sends what waits
in order over one call a node; nodes are called side by side, so one that is away delays no other's devices. What is told of a
command is written before the claim ends. After that the call stays open for results, for as long as there is room; results come
through the journal, too, whoever listens.
"""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import sqlalchemy as sa

from hse.adapters.dispatch.messages import (
    RESULT_EVENT,
    is_not_taken,
    message_of,
    reason_of,
    report_of,
    result_in,
)
from hse.adapters.dispatch.offers import Offer, Settled, parts_of
from hse.adapters.dispatch.secrets import open_secrets
from hse.adapters.dispatch.writer import Connected, InDatabase, Released, Writer, for_ever
from hse.adapters.ingest import IngestNodes, NodeAway, NodeCredentials, NodeRefused
from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.nodes import Node, NodeDirectory
from hse.adapters.postgres.command_queues import (
    LEASE,
    ClaimedCommand,
    Ended,
    ReportedCommand,
    claim,
    drop_claims,
    keep_claims,
    num_waiting,
    sweep_deadlines,
)
from hse.adapters.postgres.listening import Listener
from hse.adapters.sealing import Sealer
from hse.adapters.worker_metrics import WorkerMetrics
from hse.domain.devices.device_commands import Report, Told

LOOK_SECONDS = 1.0
SWEEP_SECONDS = 0.5
NODES_SECONDS = 2.0
COUNT_SECONDS = 5.0
DEVICES_PER_CLAIM_MAX = 200
# Claims of devices that are not settled yet.
DEVICES_IN_HAND_MAX = 2000
CALLS_PER_NODE_MAX = 64
# So long a call waits for results after everything in it was delivered.
LISTEN_SECONDS = 60.0
MARGIN_SECONDS = 5.0
STOP_SECONDS_MAX = 5.0

logger = logging.getLogger(__name__)


class CommandDispatcher:
    """One worker's part. Made, run and ended inside one event loop."""

    def __init__(
        self,
        engine: sa.Engine,
        listener: Listener,
        directory: NodeDirectory,
        nodes: IngestNodes,
        metrics: WorkerMetrics,
        sealer: Sealer | None = None,
    ) -> None:
        self.id = uuid4()
        self._sealer = sealer
        self._listener = listener
        self._directory = directory
        self._nodes = nodes
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="commands")
        self._database = InDatabase(engine, self._executor)
        self._is_due = asyncio.Event()
        self._writer = Writer(self._database, self.id, ended=self._count, look_again=self._is_due.set)
        self._in_hand: set[UUID] = set()
        self._calls: set[asyncio.Task[None]] = set()
        # Those in which everything is delivered, oldest first, by node.
        self._listening: dict[str, dict[asyncio.Task[None], None]] = {}
        self._watching: dict[Node, asyncio.Task[None]] = {}
        # The commands of the calls that are open: they tell of an answer after what led to it.
        self._heard_in_calls: set[UUID] = set()
        # What the node that Redis named does not have, and why, for one offer to the others.
        self._elsewhere: dict[str, list[tuple[Settled, Sequence[ClaimedCommand]]]] = {}
        listener.subscribe("hse_commands", lambda _: self._is_due.set())

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop; then leave what is claimed to the others."""
        loops = [
            for_ever("hearing of commands", self._listener.run, seconds=LOOK_SECONDS),
            for_ever("writing what became of commands", self._writer.run, seconds=LOOK_SECONDS),
            for_ever("claiming commands", self._claim, seconds=0.0),
            for_ever("watching nodes", self._watch_nodes, seconds=NODES_SECONDS),
            for_ever("command deadlines", self._sweep, seconds=SWEEP_SECONDS),
            for_ever("keeping claims", self._keep, seconds=LEASE.total_seconds() / 3),
            for_ever("counting commands", self._count_queues, seconds=COUNT_SECONDS),
        ]
        tasks = [asyncio.create_task(one) for one in loops]
        try:
            await stopping.wait()
        finally:
            await self._end(tasks)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        writing = tasks.pop(1)
        waiting = [*tasks, *self._calls, *self._watching.values()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        with suppress(TimeoutError, sa.exc.DBAPIError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self._writer.settle()
                await self._database.run(drop_claims, self.id)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await self._nodes.close()
        await self._directory.close()
        self._executor.shutdown(wait=False)

    async def _claim(self) -> None:
        """Wait until something may be due, and take it: until less was due than was asked for, or there is no room."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._is_due.wait()
        self._is_due.clear()
        while (most := min(DEVICES_IN_HAND_MAX - len(self._in_hand), DEVICES_PER_CLAIM_MAX)) > 0:
            claimed = await self._database.run(claim, self.id, devices_max=most)
            if claimed is None:
                return
            self._count(*claimed.ended)
            self._in_hand |= claimed.commands.keys()
            self._metrics.commands_handed_over.inc(sum(len(commands) for commands in claimed.commands.values()))
            self._start(self._deliver(claimed.commands))
            if claimed.num_queues < most:
                return

    async def _deliver(self, claimed: Mapping[UUID, Sequence[ClaimedCommand]]) -> None:
        """Offer what was claimed; a defect on the way gives it back, to be tried again."""
        try:
            opened = open_secrets(claimed, self._sealer, datetime.now(UTC))
            self._writer.note(*opened.refused)
            for outcome in opened.settled:
                self._settle(outcome)
            await self._offer_where_it_is(opened.commands)
        except Exception:
            logger.exception("claimed commands could not be offered")
            for device_id in self._in_hand & claimed.keys():
                in_doubt = frozenset(one.id for one in claimed[device_id])
                self._settle(Settled(device_id=device_id, not_taken={}, in_doubt=in_doubt))

    async def _offer_where_it_is(self, claimed: Mapping[UUID, Sequence[ClaimedCommand]]) -> None:
        """Offer each device's commands to the node that has it; where nobody knows, to all nodes at once."""
        known = {node.name: node for node in await self._directory.nodes()}
        names = await self._directory.names_of(claimed.keys())
        of_node: dict[str | None, dict[UUID, Sequence[ClaimedCommand]]] = {}
        for device_id, commands in claimed.items():
            name = names.get(device_id)
            of_node.setdefault(name if name in known else None, {})[device_id] = commands
        for name, some in of_node.items():
            if name is None:
                self._offer(some, list(known.values()), named=None)
            else:
                self._offer(some, [known[name]], named=name)

    def _offer(
        self,
        by_device: Mapping[UUID, Sequence[ClaimedCommand]],
        nodes: Sequence[Node],
        *,
        named: str | None,
        reasons: Mapping[UUID, str] | None = None,
    ) -> None:
        """Offer commands to nodes. What surely the one that Redis named has not taken is offered to the others then.

        `reasons` say why a node that is asked no more has not taken them.
        """
        if not nodes:
            for device_id, commands in by_device.items():
                nowhere = dict.fromkeys((one.id for one in commands), "no ingest node is known")
                self._settle(Settled(device_id=device_id, not_taken=nowhere, in_doubt=frozenset()))
            return

        def settled(outcome: Settled) -> None:
            commands = by_device[outcome.device_id]
            if named is None or len(outcome.not_taken) < len(commands):
                self._settle(outcome)
                return
            if not self._elsewhere:
                self._start(self._offer_elsewhere())
            self._elsewhere.setdefault(named, []).append((outcome, commands))

        offer = Offer(by_device, [node.name for node in nodes], settled, reasons or {})
        for node in nodes:
            for part in parts_of(by_device):
                self._start(self._call(node, part, offer))

    async def _offer_elsewhere(self) -> None:
        """Offer what was not where Redis had it to the other nodes."""
        nodes = await self._directory.nodes()
        elsewhere, self._elsewhere = self._elsewhere, {}
        for named, refusals in elsewhere.items():
            others = [node for node in nodes if node.name != named]
            if others:
                by_device = {outcome.device_id: commands for outcome, commands in refusals}
                reasons = {one: reason for outcome, _ in refusals for one, reason in outcome.not_taken.items()}
                self._offer(by_device, others, named=None, reasons=reasons)
                continue
            for outcome, _ in refusals:
                self._settle(outcome)

    def _settle(self, outcome: Settled) -> None:
        """It is clear which of a device's commands were taken: the claim may end."""
        if len(self._in_hand) >= DEVICES_IN_HAND_MAX:
            self._is_due.set()
        self._in_hand.discard(outcome.device_id)
        now = datetime.now(UTC)
        for command_id, reason in outcome.not_taken.items():
            report = Report(told=Told.NOT_SENT, at=now, message=reason)
            self._writer.note(ReportedCommand(command_id=command_id, device_id=outcome.device_id, report=report))
        self._metrics.commands_not_taken.inc(len(outcome.not_taken))
        self._writer.note(Released(device_id=outcome.device_id, were_connected=outcome.were_all_taken))

    async def _call(self, node: Node, commands: Mapping[UUID, ClaimedCommand], offer: Offer) -> None:
        """One call to one node, until everything in it has ended, or somebody else needs the room."""
        self._make_room(node)
        unanswered = set(commands)
        self._heard_in_calls |= commands.keys()
        try:
            with self._metrics.command_streams.track_inprogress():
                await self._hear(node, commands, offer, unanswered)
        except NodeAway as error:
            for command_id in list(unanswered) if not error.is_in_doubt else ():
                offer.out_of_reach(command_id, node.name, f"ingest node {node.name} is away")
                unanswered.discard(command_id)
        except NodeRefused as error:
            logger.error("%s", error)
            for command_id in list(unanswered):
                offer.out_of_reach(command_id, node.name, f"ingest node {node.name} refused: {error.code}")
                unanswered.discard(command_id)
        finally:
            self._heard_in_calls -= commands.keys()
            for command_id in unanswered:
                offer.in_doubt(command_id, node.name)

    async def _hear(
        self, node: Node, commands: Mapping[UUID, ClaimedCommand], offer: Offer, unanswered: set[UUID]
    ) -> None:
        now = datetime.now(UTC)
        messages = [message_of(one, now) for one in commands.values()]
        seconds = (max(one.deadline for one in commands.values()) - now).total_seconds() + MARGIN_SECONDS
        undelivered = set(commands)
        this = asyncio.current_task()
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(None) as listening,
                aclosing(self._nodes.send_commands(node, messages, seconds=seconds)) as told,
            ):
                async for progress in told:
                    command = commands.get(UUID(progress.request_id))
                    if command is None:
                        continue
                    unanswered.discard(command.id)
                    self._tell(progress, command, node, offer)
                    if progress.state != pb.SENT:
                        undelivered.discard(command.id)
                    if not undelivered and listening.when() is None and this is not None:
                        listening.reschedule(asyncio.get_running_loop().time() + LISTEN_SECONDS)
                        self._listening.setdefault(node.name, {})[this] = None

    def _tell(self, progress: pb.CommandProgress, command: ClaimedCommand, node: Node, offer: Offer) -> None:
        if is_not_taken(progress):
            offer.not_taken(command.id, node.name, reason_of(progress, node.name))
            return
        # Noted before the offer hears of it, which may end the claim.
        self._writer.note(report_of(progress, command, node.name, datetime.now(UTC)))
        offer.taken(command.id)

    def _make_room(self, node: Node) -> None:
        """End the oldest call to a node that only listens, when there are many: the journal brings its results."""
        listening = self._listening.get(node.name, {})
        while len(listening) >= CALLS_PER_NODE_MAX:
            oldest = next(iter(listening))
            del listening[oldest]
            oldest.cancel()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._ended_call)

    def _ended_call(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        for listening in self._listening.values():
            listening.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The claims that it held run out; what it handed over is handed over again then.
            logger.error("a call to a node failed", exc_info=error)

    async def _watch_nodes(self) -> None:
        """See to it that every node is listened to, and none that is gone."""
        nodes = set(await self._directory.nodes())
        for node in self._watching.keys() - nodes:
            self._watching.pop(node).cancel()
        for node in nodes - self._watching.keys():
            watch = for_ever(f"listening to {node.name}", partial(self._watch, node), seconds=NODES_SECONDS)
            self._watching[node] = asyncio.create_task(watch)

    async def _watch(self, node: Node) -> None:
        """Hear which devices connect, and the results that no call waits for."""
        request = pb.SubscriptionRequest(
            event_types=[RESULT_EVENT], client_id=f"worker {self.id}", with_connections=True
        )
        try:
            async with aclosing(self._nodes.changes(node, request, begun=self._unheard)) as changes:
                async for change in changes:
                    if change.kind == pb.CONNECTED:
                        self._writer.note(Connected(device_id=UUID(change.device_id)))
                    elif change.kind == pb.MISSED:
                        self._unheard()
                    elif (found := result_in(change)) is not None and found.command_id not in self._heard_in_calls:
                        self._writer.note(found)
        except NodeAway:
            # It is logged when its breaker opens.
            return
        except NodeRefused as error:
            logger.error("%s", error)

    def _unheard(self) -> None:
        """Some may have connected while nobody listened."""
        self._writer.note(Connected(device_id=None))

    async def _sweep(self) -> None:
        self._count(*await self._database.run(sweep_deadlines))

    async def _keep(self) -> None:
        await self._database.run(keep_claims, self.id)

    async def _count_queues(self) -> None:
        self._metrics.devices_waited_for.set(await self._database.run(num_waiting))

    def _count(self, *ended: Ended) -> None:
        for one in ended:
            self._metrics.commands_ended.labels(one.state).inc()
            self._metrics.command_seconds.observe(max(0.0, one.seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """What a worker needs to send commands, before there is an event loop."""

    engine: sa.Engine
    database_url: str
    redis_url: str | None
    fixed_nodes: tuple[str, ...]
    credentials: NodeCredentials
    metrics: WorkerMetrics
    # Without it what is sealed is left to other workers.
    sealer: Sealer | None = None

    async def work(self, stopping: asyncio.Event) -> None:
        """Hand commands to devices until told to stop. At most one event loop of a process speaks gRPC well."""
        nodes = IngestNodes(self.credentials)
        self.metrics.read_when_asked(
            "hse_worker_ingest_node_circuit",
            "The breaker of each node: 0 closed, 1 half open, 2 open.",
            nodes.circuits,
            "node",
        )
        directory = NodeDirectory(self.redis_url, fixed=self.fixed_nodes)
        listener = Listener(self.database_url)
        dispatcher = CommandDispatcher(self.engine, listener, directory, nodes, self.metrics, self.sealer)
        await dispatcher.run(stopping)

    def work_until(self, stopping: threading.Event) -> None:
        """The same in an event loop of this thread's own."""

        async def work() -> None:
            told = asyncio.Event()
            loop = asyncio.get_running_loop()
            waiter = threading.Thread(
                target=lambda: (stopping.wait(), loop.call_soon_threadsafe(told.set)), name="commands stop", daemon=True
            )
            waiter.start()
            await self.work(told)

        asyncio.run(work())
