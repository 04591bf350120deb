"""Whether the process lives, and whether it can do its work."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog
from litestar import Request, Response, Router, get
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy.exc import SQLAlchemyError

from hse.adapters.breaker import Circuit
from hse.adapters.limits import Limit, RateLimiter
from hse.adapters.link import NodeLink
from hse.adapters.postgres.database import Database

ANSWER_SECONDS_MAX = 3.0
REMEMBERED_SECONDS = 1.0
PUBLIC = {"is_public": True, "is_unlimited": True}

logger = structlog.get_logger(__name__)


@get("/liveness", opt=PUBLIC)
async def liveness() -> dict[str, str]:
    """Say that the process serves requests."""
    return {"status": "alive"}


@get(
    "/readiness",
    opt=PUBLIC,
    responses={503: ResponseSpec(dict[str, str], description="It cannot, and why.", generate_examples=False)},
)
async def readiness(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    """Say whether it can do its work: 200 `ready`, 200 `degraded` without Redis, 503 `not_ready` with the reason.

    `ingest_nodes` is the worst of the breakers before them: `closed`, `half_open` (nobody has tried since), `open`. It changes no
    status: what devices do is heard later, and commands are sent by the worker.
    """
    state = request.app.state
    readings: Readings = state.readings
    found = await readings.newest(partial(look_at_all, state))
    is_ready = found["database"] == "up"
    status = ("ready" if found["redis"] != "away" else "degraded") if is_ready else "not_ready"
    return Response(content={"status": status, **found}, status_code=200 if is_ready else 503)


class Readings:
    """What was found last, for some moments: who asks more often has nobody look again, and all who ask at once share one look."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._found: dict[str, str] = {}
        self._good_until = float("-inf")

    async def newest(self, look: Callable[[], Awaitable[dict[str, str]]]) -> dict[str, str]:
        """What was found not longer than `REMEMBERED_SECONDS` ago; `look` finds it."""
        async with self._turn:
            if time.monotonic() >= self._good_until:
                self._found = await look()
                self._good_until = time.monotonic() + REMEMBERED_SECONDS
            return self._found


async def look_at_all(state: State) -> dict[str, str]:
    """What everything that the process needs says."""
    return {
        **await look_at_database(state.database),
        "redis": await look_at_redis(state.limiter),
        "ingest_nodes": await look_at_nodes(state.link),
    }


async def look_at_database(database: Database) -> dict[str, str]:
    """What the database says about itself, and what is wrong with that."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            condition = await database.examine()
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        logger.warning("database does not answer", error=type(error).__name__)
        return {"database": "away"}
    if condition.login_passes_row_security:
        reason = "the login is a superuser or has BYPASSRLS, so row-level security does not bind it: give the api one of its own"
        return {"database": "refused", "reason": reason}
    if condition.is_schema_older:
        return {"database": "refused", "reason": "the schema is older than this program: run `hse migrate`"}
    return {"database": "up"}


async def look_at_redis(limiter: RateLimiter) -> str:
    """`up`, `away`, or `not set`."""
    await limiter.look(Limit(name="health", subject="", requests=1))
    return limiter.condition


async def look_at_nodes(link: NodeLink | None) -> str:
    """How the breakers before the nodes that are there stand, as far as this process has called them; or `not set`."""
    if link is None:
        return "not set"
    circuits = [link.ingest.breaker(node).circuit for node in await link.directory.nodes()]
    return max(circuits, key=lambda circuit: circuit.value, default=Circuit.CLOSED).name.lower()


async def warn_at_start(database: Database) -> None:
    """Say in the log at once what keeps the process from being ready; it starts all the same, and is ready once that is mended."""
    found = await look_at_database(database)
    if found["database"] != "up":
        logger.error("not ready", **found)


router = Router(path="/health", route_handlers=[liveness, readiness], tags=["health"])
