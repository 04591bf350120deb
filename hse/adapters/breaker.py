"""A circuit breaker: what fails again and again is left alone for a while, and then tried by one."""

import time
from collections.abc import Callable
from enum import Enum

FAILURES_MAX = 3
FIRST_WAIT_SECONDS, WAIT_SECONDS_MAX = 1.0, 30.0


class Circuit(Enum):
    """How a breaker stands. The value is what metrics show."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after three failures in a row, and lets one caller try again after 1, 2, 4 ... 30 seconds.

    Who was admitted says how it went with `succeeded` or `failed`. `now` is a clock in seconds that never goes back.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._num_failures = 0
        self._wait_seconds = FIRST_WAIT_SECONDS
        self._is_closed = True
        self._next_try_at = 0.0

    @property
    def circuit(self) -> Circuit:
        """How it stands now."""
        if self._is_closed:
            return Circuit.CLOSED
        return Circuit.HALF_OPEN if self._now() >= self._next_try_at else Circuit.OPEN

    @property
    def retry_after_seconds(self) -> float:
        """When to ask again; 0 when one is admitted now."""
        return 0.0 if self._is_closed else max(0.0, self._next_try_at - self._now())

    def admits(self) -> bool:
        """Whether the caller may try; when it is half open he is the only one for as long as the last wait was."""
        if self._is_closed:
            return True
        if self._now() < self._next_try_at:
            return False
        self._next_try_at = self._now() + self._wait_seconds
        return True

    def succeeded(self) -> None:
        """It went well: everybody is admitted again."""
        self._num_failures = 0
        self._wait_seconds = FIRST_WAIT_SECONDS
        self._is_closed = True

    def failed(self) -> None:
        """It failed."""
        self._num_failures += 1
        if self._is_closed:
            if self._num_failures < FAILURES_MAX:
                return
            self._is_closed = False
        else:
            self._wait_seconds = min(self._wait_seconds * 2, WAIT_SECONDS_MAX)
        self._next_try_at = self._now() + self._wait_seconds
