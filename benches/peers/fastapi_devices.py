"""The list of devices as one writes it with FastAPI, Pydantic and SQLAlchemy: the same token, the same SQL, the same bytes.

    uvicorn benches.peers.fastapi_devices:app

The actor is looked up and the rows are scoped by the very statements of `hse api`, in one transaction, which is committed, so that
psycopg may keep its statements prepared; what differs is what stands around them. With `HSE_BENCH_REDIS_URL` set it also does the
rest of what `hse api` does for each request, as one writes that: the same script in Redis counts it for its address and its user,
the answer has the same headers, and it is counted, timed and logged.
"""

import os
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import jwt
import sqlalchemy as sa
import structlog
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from hse.adapters.limits import TAKE
from hse.adapters.sealing import derived_key
from hse.adapters.tokens import ALGORITHM, AUDIENCE, CLAIMS, ISSUER, TYPE
from hse.api.logs import configure_logs
from hse.api.metrics import REQUEST_BUCKETS
from hse.api.security import CONTENT_POLICY, NO_STORE, SECURITY_HEADERS

KEY = derived_key(os.environ["HSE_SECRET_KEY"], "access tokens")
ENTER = sa.text("select * from hse_enter_session(:session_id)")
LIST = sa.text(os.environ["HSE_BENCH_SQL"])
POOL_SIZE = int(os.environ["HSE_API_POOL_SIZE"])
REDIS_URL = os.environ.get("HSE_BENCH_REDIS_URL")
REQUESTS_PER_MINUTE = 100_000_000

engine = create_async_engine(
    os.environ["HSE_API_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"),
    pool_size=POOL_SIZE,
    max_overflow=0,
)
api = FastAPI()
bearer = HTTPBearer()
redis = None if REDIS_URL is None else Redis.from_url(REDIS_URL)
take = None if redis is None else redis.register_script(TAKE)


@sa.event.listens_for(engine.sync_engine, "connect")
def bind_role(connection: Any, _: Any) -> None:
    """Work under the role that row-level security binds."""
    connection.cursor().execute("set role hse_api")
    connection.commit()


class Device(BaseModel):
    """A device as it is answered."""

    id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    area_id: UUID | None
    gateway_id: UUID | None
    name: str
    device_type: str
    manufacturer: str | None
    model: str | None
    serial_number: str | None
    mac_address: str | None
    ip_address: str | None
    protocol: str
    status: str
    is_enabled: bool
    has_token: bool
    metadata: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


class DevicePage(BaseModel):
    """A page of devices."""

    items: list[Device]
    next_cursor: str | None
    total: int | None


async def connected() -> AsyncIterator[AsyncConnection]:
    """One transaction a request."""
    async with engine.begin() as connection:
        yield connection


async def signed_in(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]
) -> dict[str, Any]:
    """What a valid token says, of somebody who has not asked too often."""
    try:
        decoded = jwt.decode_complete(
            credentials.credentials,
            KEY,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": CLAIMS},
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    if decoded["header"].get("typ") != TYPE:
        raise HTTPException(401)
    claims: dict[str, Any] = decoded["payload"]
    if take is not None:
        address = request.client.host if request.client else "unknown"
        limits = [REQUESTS_PER_MINUTE, 60_000_000] * 2
        keys = [f"bench:{{limits}}:address:{address}", f"bench:{{limits}}:user:{claims['sub']}"]
        answer = await take(keys=keys, args=[1, *limits])
        request.scope["remaining"] = min(answer[1], answer[5])
        if not (answer[0] and answer[4]):
            raise HTTPException(429)
    return claims


async def entered(
    request: Request,
    claims: Annotated[dict[str, Any], Depends(signed_in)],
    connection: Annotated[AsyncConnection, Depends(connected)],
) -> sa.Row[Any]:
    """Whose token it is, as the database has him now."""
    row = (await connection.execute(ENTER, {"session_id": claims["sid"]})).one_or_none()
    if row is None:
        raise HTTPException(401)
    request.scope["user_id"] = row.user_id
    return row


@api.get("/api/v1/devices")
async def list_devices(
    actor: Annotated[sa.Row[Any], Depends(entered)],
    connection: Annotated[AsyncConnection, Depends(connected)],
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> DevicePage:
    """List the devices that the caller may see."""
    rows = await connection.execute(
        LIST,
        {
            "organization_ids": list(actor.organization_ids),
            "establishment_ids": list(actor.establishments),
            "limit": limit + 1,
        },
    )
    items = [Device.model_validate(dict(row)) for row in rows.mappings()]
    return DevicePage(items=items[:limit], next_cursor=None, total=None)


class Around:
    """What stands around every request of `hse api`: its correlation id, its headers, its numbers, its line in the log."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._requests = Counter("requests", "Requests answered.", ["method", "route", "status"])
        self._seconds = Histogram("request_seconds", "How long it took.", ["method", "route"], buckets=REQUEST_BUCKETS)
        self._in_flight = Gauge("requests_in_flight", "Requests that wait.")
        self._log = structlog.get_logger("bench")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started, correlation_id = time.perf_counter(), uuid4().hex
        status, num_bytes = 499, 0

        async def send_on(message: Any) -> None:
            nonlocal status, num_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] += [
                    *SECURITY_HEADERS,
                    CONTENT_POLICY,
                    NO_STORE,
                    (b"ratelimit-limit", str(REQUESTS_PER_MINUTE).encode()),
                    (b"ratelimit-remaining", str(scope.get("remaining", 0)).encode()),
                    (b"ratelimit-reset", b"1"),
                    (b"x-correlation-id", correlation_id.encode()),
                ]
            else:
                num_bytes += len(message.get("body", b""))
            await send(message)

        try:
            with (
                self._in_flight.track_inprogress(),
                structlog.contextvars.bound_contextvars(correlation_id=correlation_id),
            ):
                await self._inner(scope, receive, send_on)
        finally:
            seconds, method, route = (
                time.perf_counter() - started,
                scope["method"],
                getattr(scope.get("route"), "path", "none"),
            )
            self._requests.labels(method, route, str(status)).inc()
            self._seconds.labels(method, route).observe(seconds)
            user_id, address = scope.get("user_id"), scope["client"][0]
            self._log.info(
                "request", method=method, route=route, status=status, ms=round(seconds * 1000, 1), bytes=num_bytes,
                user_id=str(user_id), address=address, correlation_id=correlation_id,
            )  # fmt: skip


if REDIS_URL is None:
    app: Any = api
else:
    # For as long as the process lives.
    configure_logs("info", Path(os.environ["HSE_BENCH_LOG"]).open("w", encoding="utf-8"))  # noqa: SIM115
    app = Around(api)
