"""How `hse up` speaks: a live view on a terminal, lines in a pipe, one JSON line for programs."""

import collections
import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.live import Live

from hse.supervision.child import Child
from hse.supervision.published import Published
from hse.supervision.readings import Picture
from hse.supervision.view import draw, rows_of, summary_line, without_password

MESSAGES_SHOWN = 6
SUMMARY_SECONDS = 10.0
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


class Presenter(Protocol):
    """Shows the machine to somebody."""

    def show(self, picture: Picture, children: list[Child], published: Published | None) -> None:
        """Show the present state; called several times a second."""

    def ready(self, published: Published) -> None:
        """Say once that everything runs."""


class Silent:
    """For programs: one line when all is ready; everything else goes to the log on stderr."""

    def show(self, picture: Picture, children: list[Child], published: Published | None) -> None:
        """Show nothing."""

    def ready(self, published: Published) -> None:
        """Print the line."""
        print(published.to_json(), flush=True)


class Lines:
    """For a pipe or a log file: a summary now and then."""

    def __init__(self) -> None:
        self._last_at = time.monotonic()

    def show(self, picture: Picture, children: list[Child], published: Published | None) -> None:
        """Print the summary when it is time."""
        if published is not None and time.monotonic() - self._last_at >= SUMMARY_SECONDS:
            self._last_at = time.monotonic()
            print(summary_line(picture), flush=True)

    def ready(self, published: Published) -> None:
        """Say where everything is."""
        ports = ", ".join(f"{name} {port}" for name, port in published.ports.items())
        print(f"ready: {ports}; {without_password(published.database_url)}; data in {published.data_dir}", flush=True)


class LiveView:
    """For a terminal."""

    def __init__(self, live: Live, messages: "collections.deque[str]") -> None:
        self._live = live
        self._messages = messages

    def show(self, picture: Picture, children: list[Child], published: Published | None) -> None:
        """Draw the picture anew."""
        self._live.update(draw(picture, rows_of(children), published, list(self._messages)), refresh=True)

    def ready(self, published: Published) -> None:
        """The picture says it."""


class _Newest(logging.Handler):
    """Keeps the newest messages, for the foot of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: collections.deque[str] = collections.deque(maxlen=MESSAGES_SHOWN)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


@contextlib.contextmanager
def presenting(*, is_json: bool) -> Iterator[Presenter]:
    """Choose the presenter, and lead the log to where it does not disturb it."""
    logger = logging.getLogger("hse")
    logger.setLevel(logging.INFO)
    if not is_json and sys.stdout.isatty():
        newest = _Newest()
        with _handling(logger, newest), Live(console=Console(), auto_refresh=False) as live:
            yield LiveView(live, newest.messages)
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    with _handling(logger, handler):
        yield Silent() if is_json else Lines()


@contextlib.contextmanager
def _handling(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
