"""What the control plane counts about itself, in Prometheus' format; the names of all of it.

Every label has few values, whatever strangers send: the route is the handler's template, never the path, and an unknown method is
"other". `/metrics` is for this machine and for who has HSE_METRICS_TOKEN: with a token set it is asked of everybody; without one
only callers on loopback are answered, and not those that a proxy on this machine passes on.
"""

import hmac
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from litestar import Request, Response, get
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from hse.adapters.gauges import read_when_asked
from hse.domain.errors import DomainError, Forbidden

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "WEBSOCKET"})
REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0)
PERMISSION_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 5.0)
FORWARDING_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-real-ip")


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "hse_api_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "hse_api_request_seconds",
            "From a request's arrival to the last byte of its answer.",
            ["method", "route"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("hse_api_requests_in_flight", "Requests that wait for their answer.", registry=registry)
        self.rate_limited = Counter(
            "hse_api_rate_limited", "Requests refused because a count was full.", ["limit"], registry=registry
        )
        # `result` is "ok" or the refusal's code, without its noun: wrong-credentials, too-many-attempts, ...
        self.sign_ins = Counter("hse_api_sign_ins", "Tries to sign in.", ["result"], registry=registry)
        self.permission_seconds = Histogram(
            "hse_api_permission_seconds",
            "From a connection of the pool to the actor with his reach: what the permission check costs.",
            buckets=PERMISSION_BUCKETS,
            registry=registry,
        )

    @contextmanager
    def counted_sign_in(self) -> Iterator[None]:
        """Count a try to sign in by how it ends: well, or with a refusal."""
        try:
            yield
        except DomainError as refusal:
            self.sign_ins.labels(refusal.code.rpartition(".")[2]).inc()
            raise
        self.sign_ins.labels("ok").inc()

    def read_when_asked(self, name: str, text: str, read: Callable[[], dict[str, float]], label: str) -> None:
        """A gauge that is read when somebody asks: its values by the value of its one label."""
        read_when_asked(self.registry, name, text, read, label)


@get("/metrics", opt={"is_public": True, "is_unlimited": True}, include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Tell the counters to who may read them."""
    state = request.app.state
    if not may_read(request, state.metrics_token):
        raise Forbidden("HSE_METRICS_TOKEN")
    return Response(content=generate_latest(state.metrics.registry), media_type=CONTENT_TYPE)


def may_read(request: Request[Any, Any, Any], token: str | None) -> bool:
    """Whether the caller has the token; without one, whether he is on this machine."""
    if token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
    if request.client is None or any(name in request.headers for name in FORWARDING_HEADERS):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
