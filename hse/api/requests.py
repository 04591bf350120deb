"""Every request is counted, timed, and leaves one line in the log: what, how it ended, who. No query, body or header is in it."""

import time
from typing import Any

import structlog
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from hse.api.metrics import METHODS, Metrics

# What no handler was found for.
NO_ROUTE = "none"
# Asked so often, and by machines, that a line each would bury the others.
QUIET_ROUTES = frozenset({"/health/liveness", "/health/readiness", "/metrics"})
# What a request counts as whose answer was never begun: the caller went away, or a defect outside of every handler.
NOT_ANSWERED = 499

logger = structlog.get_logger(__name__)


class RequestLog(ASGIMiddleware):
    """Counts, times and logs each request. A websocket is one request, from its opening to its end."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on."""
        started = time.perf_counter()
        metrics: Metrics = scope["litestar_app"].state.metrics
        answer = _Answer()

        async def send_counted(message: Message) -> None:
            answer.see(message)
            await send(message)

        try:
            with metrics.in_flight.track_inprogress():
                await next_app(scope, receive, send_counted)
        finally:
            _tell(scope, metrics, answer, time.perf_counter() - started)


class _Answer:
    """What was sent."""

    def __init__(self) -> None:
        self.status = NOT_ANSWERED
        self.num_bytes = 0

    def see(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self.status = message["status"]
            case "http.response.body":
                self.num_bytes += len(message.get("body", b""))
            case "websocket.accept":
                self.status = 101
            case "websocket.close" if self.status == NOT_ANSWERED:
                self.status = 403
            case _:
                pass


def _tell(scope: Scope, metrics: Metrics, answer: _Answer, seconds: float) -> None:
    method = str(scope.get("method", "WEBSOCKET"))
    method = method if method in METHODS else "other"
    route = scope.get("path_template") or NO_ROUTE
    metrics.requests.labels(method, route, str(answer.status)).inc()
    metrics.request_seconds.labels(method, route).observe(seconds)
    state: dict[str, Any] = scope["state"]
    if (limit := state.get("refused_by")) is not None:
        metrics.rate_limited.labels(limit).inc()
    if route in QUIET_ROUTES:
        return
    actor, origin = state.get("actor"), state.get("origin")
    logger.info(
        "request",
        method=method,
        route=route,
        status=answer.status,
        ms=round(seconds * 1000, 1),
        bytes=answer.num_bytes,
        user_id=None if actor is None else str(actor.user_id),
        api_key_id=None if actor is None or actor.api_key_id is None else str(actor.api_key_id),
        address=None if origin is None else origin.address,
    )
