"""What every scenario is given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, TaskID

from benches.loadgen import Loadgen


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps of one scenario on the screen."""

    progress: Progress
    task: TaskID

    def next(self, what: str) -> None:
        """Say what is done now; the step before it is over."""
        self.progress.update(self.task, step=what, advance=1)

    def say(self, what: str) -> None:
        """Say more of what is done now."""
        self.progress.update(self.task, step=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Tools and options of one run."""

    loadgen: Loadgen
    data_root: Path
    rounds: int
    # Seconds of one measurement in a round.
    seconds: int
    # Seconds of the long run of the sustained scenario; 0 leaves it out.
    soak_seconds: int
    # Events of the long history.
    history_events: int
    is_quick: bool
    files_max: int
    timescale_url: str | None
    has_profile: bool
    progress: Progress

    @contextmanager
    def task(self, title: str, num_steps: int) -> Iterator[Steps]:
        """Show a line of progress with so many steps."""
        task = self.progress.add_task(title, total=num_steps, step="")
        yield Steps(progress=self.progress, task=task)
        self.progress.update(task, completed=num_steps, step="")
