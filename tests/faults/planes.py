"""All processes of both planes, each of which can be killed and frozen, and is started again when it dies by itself."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.cache import Cache
from tests.faults.conditions import until_in_thread
from tests.faults.control_plane import ControlPlane, Program
from tests.faults.core import EXIT_POISONED, Core
from tests.faults.database import Database

LOOK_SECONDS = 0.2
HARMED_SECONDS = (0.2, 2.5)
WHOLE_SECONDS = (0.1, 1.5)
# How many are hurt at once.
AT_ONCE = (1, 1, 2, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A process, or a server with its processes."""

    name: str
    kill: Callable[[], Awaitable[None]]
    start: Callable[[], Awaitable[None]]
    freeze: Callable[[], None]
    thaw: Callable[[], None]


@dataclass
class Planes:
    """A machine room: two servers, nodes, the control plane."""

    database: Database
    cache: Cache
    nodes: Sequence[Core]
    control_plane: ControlPlane
    # Killed on purpose, and to be left so.
    _down: set[str] = field(default_factory=set)
    # What was done, for who must understand a failure.
    log: list[str] = field(default_factory=list)

    def victims(self) -> list[Victim]:
        """Everything that can be hurt."""
        servers = [
            Victim(name=name, kill=one.kill, start=one.start, freeze=one.freeze, thaw=one.thaw)
            for name, one in (("PostgreSQL", self.database), ("Valkey", self.cache))
        ]
        return [*servers, *(victim_of(*one) for one in self._processes())]

    def _processes(self) -> list[tuple[str, Core | Program]]:
        nodes = [(str(node.settings["node_name"]), node) for node in self.nodes]
        programs = [(program.name, program) for program in (self.control_plane.api, self.control_plane.worker)]
        return [*nodes, *programs]

    async def start(self) -> None:
        """Start all, and wait until it works; the servers run already."""
        for node in self.nodes:
            await node.started()
        await self.control_plane.start()

    @contextlib.asynccontextmanager
    async def managed(self) -> AsyncIterator[None]:
        """Start again what dies without being killed, as a process manager does, while the block runs."""
        manager = asyncio.create_task(self._manage())
        try:
            yield
        finally:
            manager.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await manager

    async def _manage(self) -> None:
        while True:
            for name, process in self._processes():
                if name not in self._down and not process.is_running:
                    if isinstance(process, Core):
                        assert process.process.returncode not in (0, EXIT_POISONED), process.tail()
                    self.log.append(f"{name} died by itself, and is started again")
                    process.start()
            await asyncio.sleep(LOOK_SECONDS)

    async def hurt(self, victim: Victim, harm: str) -> None:
        """Kill or freeze one."""
        self.log.append(f"{harm} {victim.name}")
        if harm == "freeze":
            victim.freeze()
        else:
            self._down.add(victim.name)
            await victim.kill()

    async def heal(self, victim: Victim, harm: str) -> None:
        """Undo it."""
        self.log.append(f"undo {harm} {victim.name}")
        if harm == "freeze":
            victim.thaw()
        else:
            await victim.start()
            self._down.discard(victim.name)

    async def torment(self, chance: random.Random, seconds: float) -> None:
        """Kill and freeze everything in turn and together, for so long and until each was killed and frozen once at least."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        cards = deck(self.victims(), chance)
        num_left = 2 * len(self.victims())
        while loop.time() < end or num_left > 0:
            drawn = [next(cards) for _ in range(chance.choice(AT_ONCE))]
            num_left -= len(drawn)
            # One that is drawn twice is hurt once.
            harms = {victim.name: (victim, harm) for victim, harm in drawn}
            for victim, harm in harms.values():
                await self.hurt(victim, harm)
            await asyncio.sleep(chance.uniform(*HARMED_SECONDS))
            for victim, harm in chance.sample(list(harms.values()), len(harms)):
                await self.heal(victim, harm)
            await asyncio.sleep(chance.uniform(*WHOLE_SECONDS))

    async def whole(self) -> None:
        """Wait until everything says that it is ready."""
        await until_in_thread(
            lambda: all('"ready"' in node.get("/health/readiness")[1] for node in self.nodes),
            "the nodes are ready",
            seconds=60,
        )
        await self.control_plane.ready()


def deck(victims: Sequence[Victim], chance: random.Random) -> Iterator[tuple[Victim, str]]:
    """Every victim with every harm in random order, again and again."""
    while True:
        cards = [(victim, harm) for victim in victims for harm in ("kill", "freeze")]
        chance.shuffle(cards)
        yield from cards


def victim_of(name: str, process: Core | Program) -> Victim:
    """A process of ours."""

    async def kill() -> None:
        process.signal(signal.SIGKILL)
        await until_in_thread(lambda: not process.is_running, f"{name} is gone")

    async def start() -> None:
        process.start()

    def freeze() -> None:
        process.signal(signal.SIGSTOP)

    def thaw() -> None:
        process.signal(signal.SIGCONT)

    return Victim(name=name, kill=kill, start=start, freeze=freeze, thaw=thaw)
