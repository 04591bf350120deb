"""One supervised process: started, watched until it is ready, started again when it dies, stopped."""

import contextlib
import enum
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tenacity

from hse.embedded.account import EmbeddedServerError

logger = logging.getLogger(__name__)

RESTART_FIRST_SECONDS = 0.2
RESTART_SECONDS_MAX = 10.0
RESTART_JITTER_SECONDS = 0.2
# A child that was ready for so long has proved itself: its next death counts as the first.
STEADY_SECONDS = 5.0
LOG_TAIL_LINES = 8
LOG_TAIL_BYTES = 16_384

restart_delays = tenacity.wait_exponential_jitter(
    multiplier=RESTART_FIRST_SECONDS, max=RESTART_SECONDS_MAX, jitter=RESTART_JITTER_SECONDS
)


class State(enum.Enum):
    """Where a child stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # it died, and is started again after a delay
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run and how to tell that it works."""

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    log: Path
    is_ready: Callable[[], bool]
    # Runs before each start, for what a predecessor left; raises when it cannot be mended.
    before_start: Callable[[], None] = lambda: None
    stop_signal: signal.Signals = signal.SIGTERM
    # Sent when the user insists, or the patience is over: still the most orderly end that takes no time.
    kill_signal: signal.Signals = signal.SIGKILL
    stop_patience_seconds: float = 10.0


class Child:
    """A program and its present process. Not thread-safe: the supervisor's main thread owns it, for the tether's sake."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.state = State.STOPPED
        self.restarts = 0
        # Why it cannot be started, where that is known better than from its exit.
        self.fault: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths_in_a_row = 0
        self._changed_at = 0.0
        self._start_at = 0.0

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    @property
    def pid(self) -> int | None:
        """The process id while there is a process."""
        return None if self._process is None else self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it answered, and has not died since."""
        return self.state is State.READY

    @property
    def deaths_in_a_row(self) -> int:
        """How often it died without having been ready for a while."""
        return self._deaths_in_a_row

    def start(self, now: float) -> None:
        """Start the process; `now` is the monotonic clock, in seconds."""
        if self._process is not None:
            self._process.wait()
        self.program.before_start()
        self.program.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            # A session of its own keeps the terminal's Ctrl-C away: the supervisor decides who stops when.
            self._process = subprocess.Popen(
                self.program.command(),
                env=dict(self.program.environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._enter(State.STARTING, now)

    def watch(self, now: float) -> bool:
        """Notice a death, a readiness, or that it is time to start again; say whether the state or process changed."""
        try:
            if self.state is State.WAITING and now >= self._start_at:
                self.restarts += 1
                self.start(now)
                return True
            if self.state in (State.STARTING, State.READY) and self._reap():
                self._plan_restart(now)
                return True
            if self.state is State.STARTING and self.program.is_ready():
                self._enter(State.READY, now)
                self.fault = None
                return True
        # No process could be made, or its log not be opened: what a full machine refuses now it may give later.
        except (EmbeddedServerError, OSError) as error:
            self.fault = str(error)
            logger.error("%s: %s", self.name, error)
            self._signal(self.program.kill_signal)
            self._plan_restart(now)
            return True
        return False

    def stop(self, now: float) -> None:
        """Ask the process to end; `watch_stop` tells when it has."""
        if self._process is None or self._reap():
            self._enter(State.STOPPED, now)
            return
        self._signal(self.program.stop_signal)
        self._enter(State.STOPPING, now)

    def watch_stop(self, now: float, *, is_insisted: bool) -> bool:
        """Say whether the process has ended; end it by force when asked to or when the patience is over."""
        if self._process is None or self._reap():
            self._enter(State.STOPPED, now)
            return True
        is_late = now - self._changed_at > self.program.stop_patience_seconds
        if is_insisted or is_late:
            logger.warning("%s did not stop in time and is killed", self.name)
            self._signal(self.program.kill_signal)
        return False

    def log_tail(self) -> str:
        """The last lines of the log, to show why it died."""
        try:
            with self.program.log.open("rb") as log:
                log.seek(max(0, self.program.log.stat().st_size - LOG_TAIL_BYTES))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self._changed_at = now

    def _reap(self) -> bool:
        """Say whether the process has ended, and forget it then."""
        if self._process is None or self._process.poll() is None:
            return False
        code = self._process.returncode
        ending = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if self.state is not State.STOPPING:
            logger.error("%s (process %d) ended %s", self.name, self._process.pid, ending)
        elif code not in (0, -self.program.stop_signal):
            logger.warning("%s (process %d) stopped %s", self.name, self._process.pid, ending)
        self._process = None
        return True

    def _plan_restart(self, now: float) -> None:
        is_proved = self.state is State.READY and now - self._changed_at >= STEADY_SECONDS
        self._deaths_in_a_row = 1 if is_proved else self._deaths_in_a_row + 1
        delay = restart_delay(self._deaths_in_a_row)
        self._start_at = now + delay
        logger.info("%s is started again in %.1f s", self.name, delay)
        self._enter(State.WAITING, now)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def restart_delay(deaths: int) -> float:
    """Return the seconds to wait after the `deaths`-th death in a row: doubled each time, with jitter, up to a limit."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = deaths
    return restart_delays(state)
