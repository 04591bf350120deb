"""How often somebody may ask: each address, each user, each API key.

The address and the user of a token are known before the database is asked, so both are counted at the door. A key's limit is known
once its secret has been compared: a stranger who knows a key's prefix cannot use up its limit. What says
`opt={"is_unlimited": True}` (health, metrics) is not counted.
"""

import ipaddress
import math
from dataclasses import dataclass
from typing import Any

from litestar.datastructures import State
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from hse.adapters.limits import Limit, RateLimiter, Verdict
from hse.adapters.postgres.work import PostgresWork
from hse.domain.errors import TooMany
from hse.domain.identity.principals import SessionPrincipal

# Whoever has an IPv6 address has the network of 64 bits that it lies in.
IPV6_NETWORK_BITS = 64
UNKNOWN_ADDRESS = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Requests a minute."""

    address_per_minute: int = 1200
    user_per_minute: int = 1200
    # What a key may be given at most.
    key_per_minute_max: int = 6000


class RateLimits(ASGIMiddleware):
    """Counts each request for its address and its user."""

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)
    exclude_opt_key = "is_unlimited"

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass the request on when each of its counts has room. Raises `TooMany`."""
        state = scope["litestar_app"].state
        await count(scope["state"], state.limiter, state.limits)
        await next_app(scope, receive, send)


async def count(passed: dict[str, Any], limiter: RateLimiter, limits: RequestLimits) -> None:
    """Count a request, or what is as much as one, for its address and its user. Raises `TooMany`."""
    address = subject_of(passed["origin"].address)
    counted = [Limit(name="address", subject=address, requests=limits.address_per_minute)]
    principal = passed["principal"]
    if isinstance(principal, SessionPrincipal) and principal.user_id is not None:
        counted.append(Limit(name="user", subject=str(principal.user_id), requests=limits.user_per_minute))
    keep(passed, await limiter.take(*counted))


def keep(state: dict[str, Any], verdicts: tuple[Verdict, ...]) -> None:
    """Keep the verdict that leaves least, for the answer's headers. Raises `TooMany` when one has no room."""
    known = [state["verdict"]] if "verdict" in state else []
    state["verdict"] = min((*known, *verdicts), key=lambda verdict: (verdict.has_room, verdict.remaining))
    for verdict in verdicts:
        if not verdict.has_room:
            state["refused_by"] = verdict.limit.name
            raise TooMany(verdict.limit.name, max(1, math.ceil(verdict.retry_after_seconds)))


async def admit(passed: dict[str, Any], state: State, work: PostgresWork) -> None:
    """Count a request for the key that it came with, once, however many transactions it takes. Raises `TooMany`."""
    actor = work.actor
    state.metrics.permission_seconds.observe(work.permission_seconds)
    is_first, passed["actor"] = "actor" not in passed, actor
    if actor.api_key_id is None or work.requests_per_minute is None or not is_first:
        return
    limit = Limit(name="key", subject=str(actor.api_key_id), requests=work.requests_per_minute)
    keep(passed, await state.limiter.take(limit))
    state.api_key_uses.note(actor.api_key_id, work.origin.address, work.now)


def rate_limit_headers(state: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """What an answer tells of the count that leaves least; nothing when none was asked."""
    verdict: Verdict | None = state.get("verdict")
    if verdict is None:
        return []
    return [
        (b"ratelimit-limit", str(verdict.limit.requests).encode()),
        (b"ratelimit-remaining", str(verdict.remaining).encode()),
        (b"ratelimit-reset", str(math.ceil(verdict.reset_seconds)).encode()),
    ]


def subject_of(address: str | None) -> str:
    """Under what an address is counted."""
    if address is None:
        return UNKNOWN_ADDRESS
    known = ipaddress.ip_address(address)
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((int(known) >> 64 << 64, IPV6_NETWORK_BITS)).network_address)
    return address
