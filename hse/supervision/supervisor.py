"""Children in their order: each is ready before the next starts, and the last started is the first stopped."""

import logging
import time
from collections.abc import Callable

from hse.failure import Failure
from hse.supervision.child import Child, Program
from hse.supervision.interrupts import Interrupts, StopRequested

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
# A child that was never ready and died so often has a cause that no further attempt mends.
FIRST_START_DEATHS_MAX = 4


class ChildDoesNotStart(Failure):
    """A child died again and again before it was ever ready."""


class Supervisor:
    """Starts programs one after the other, restarts what dies, and stops everything in reverse order.

    `on_change` is called after every change of a child's state or process.
    """

    def __init__(self, interrupts: Interrupts, on_change: Callable[[], None]) -> None:
        self.children: list[Child] = []
        self._interrupts = interrupts
        self._on_change = on_change

    @property
    def is_ready(self) -> bool:
        """Whether every child is ready."""
        return all(child.is_ready for child in self.children)

    def pids(self) -> dict[str, int]:
        """The process ids of the children that have a process."""
        return {child.name: child.pid for child in self.children if child.pid is not None}

    def bring_up(self, program: Program) -> None:
        """Start a program and wait until it is ready, as long as it takes while it lives.

        Raises `ChildDoesNotStart` with the end of its log, or `StopRequested`.
        """
        child = Child(program)
        self.children.append(child)
        logger.info("%s starts", child.name)
        child.start(time.monotonic())
        self._on_change()
        while not child.is_ready:
            self.watch()
            if child.fault is not None:
                raise ChildDoesNotStart(f"{child.name}: {child.fault}")
            if child.deaths_in_a_row >= FIRST_START_DEATHS_MAX:
                raise ChildDoesNotStart(f"{child.name} does not start; the end of {program.log}:\n{child.log_tail()}")
            if self._interrupts.requests:
                raise StopRequested
            if not child.is_ready:
                self._interrupts.sleep(POLL_SECONDS)

    def watch(self) -> None:
        """Look once at every child."""
        changed = [child for child in self.children if child.watch(time.monotonic())]
        for child in changed:
            if child.is_ready:
                logger.info("%s is ready (process %d)", child.name, child.pid)
        if changed:
            self._on_change()

    def drain(self) -> None:
        """Stop every child, the last started first. A second stop request ends them by force."""
        insisted_after = max(self._interrupts.requests, 1)
        for child in reversed(self.children):
            logger.info("%s stops", child.name)
            child.stop(time.monotonic())
            self._tell_while_draining()
            while not child.watch_stop(time.monotonic(), is_insisted=self._interrupts.requests > insisted_after):
                self._interrupts.sleep(POLL_SECONDS)
            self._tell_while_draining()

    def _tell_while_draining(self) -> None:
        """Whatever fails in telling, the next child is stopped all the same: else it would be killed with its journal full."""
        try:
            self._on_change()
        except Exception:
            logger.exception("a change of the children could not be told")
