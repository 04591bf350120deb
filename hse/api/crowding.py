"""How many connections may be open at once, and what is told to those beyond that.

A connection beyond `connections_max` is answered with 503, once it has said what it wants: health and metrics are answered all the
same, so that whoever watches the process sees it alive. What stays open for long, live streams and WebSockets, may take up half
of all, so that requests find room. Further beyond, connections are closed without a word.
"""

import time
from typing import ClassVar
from urllib.parse import unquote

import httptools
import structlog
from litestar.utils import normalize_path

from hse.api.bounds import BoundedHttpProtocol

CONNECTIONS_MAX = 10_000
# That many more may wait for their refusal.
REFUSED_AT_ONCE_MAX = 256
RETRY_AFTER_SECONDS = 5
ALWAYS_ANSWERED = frozenset({"/health/liveness", "/health/readiness", "/metrics"})
LIVE_PATH = "/api/v1/live"
TOLD_EVERY_SECONDS = 10.0

logger = structlog.get_logger(__name__)


class CrowdedHttpProtocol(BoundedHttpProtocol):
    """Refuses connections and streams beyond their number."""

    connections_max: ClassVar[int] = CONNECTIONS_MAX
    _told_at: ClassVar[float] = float("-inf")
    is_long_lived = False

    def connection_made(self, transport: object) -> None:
        """A connection was opened."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self.connections_max + REFUSED_AT_ONCE_MAX:
            self._tell("connections")
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """The head is there: what is wanted is known."""
        # As the router will read it: it passes over slashes at the end, and over those that are doubled.
        path = normalize_path(unquote(httptools.parse_url(self.url).path.decode("ascii", "replace")))
        self.is_long_lived = path == LIVE_PATH
        if path not in ALWAYS_ANSWERED and len(self.connections) > self.connections_max:
            self._refuse_crowd("connections", "too many connections are open: try again in a moment")
        elif self.is_long_lived and self._num_long_lived() > self._long_lived_max:
            self._refuse_crowd("streams", "too many streams are open: try again in a moment")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body; of a request that was refused nothing is wanted."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """A WebSocket is to be opened on this connection."""
        if self.transport.is_closing():
            return
        if self._num_long_lived() >= self._long_lived_max:
            self._refuse_crowd("streams", "too many streams are open: try again in a moment")
        else:
            super().handle_websocket_upgrade()

    @property
    def _long_lived_max(self) -> int:
        return self.connections_max // 2

    def _num_long_lived(self) -> int:
        # Whatever is not of this class has gone on as a WebSocket.
        return sum(getattr(one, "is_long_lived", True) for one in self.connections)

    def _refuse_crowd(self, what: str, detail: str) -> None:
        self._tell(what)
        self._refuse(503, detail, (b"retry-after", str(RETRY_AFTER_SECONDS).encode()))

    def _tell(self, what: str) -> None:
        """Leave a line in the log, and not one for each of a crowd."""
        now = time.monotonic()
        if now - CrowdedHttpProtocol._told_at >= TOLD_EVERY_SECONDS:
            CrowdedHttpProtocol._told_at = now
            logger.warning("too many at once", what=what, connections_max=self.connections_max)


def protocol_for(connections_max: int) -> type[CrowdedHttpProtocol]:
    """The protocol of a server that takes so many connections."""
    return type("CrowdedHttpProtocol", (CrowdedHttpProtocol,), {"connections_max": connections_max})
