"""Ctrl-C and SIGTERM as something to look at, instead of an exception in the middle of a step."""

import contextlib
import select
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType


class StopRequested(Exception):
    """The user asked to stop while a step was waiting."""


class Interrupts:
    """Counts stop requests, and sleeps that end early when a signal arrives (a stop request, or a child's death)."""

    def __init__(self) -> None:
        self.requests = 0
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM, SIGHUP and SIGCHLD for the block; main thread only, and once."""
        handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._count)
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._woken.close()
            self._waker.close()

    def sleep(self, seconds: float) -> None:
        """Sleep, or less when a signal arrives."""
        select.select([self._woken], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass

    def sleep_unless_stopped(self, seconds: float) -> None:
        """Sleep for the whole time; raises `StopRequested` when a stop was asked for before or meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            if self.requests:
                raise StopRequested
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.sleep(left)

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.requests += 1
