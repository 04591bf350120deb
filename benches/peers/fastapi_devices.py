"""The list of devices as one writes it with FastAPI, Pydantic and SQLAlchemy: the same token, the same SQL, the same bytes.

    uvicorn benches.peers.fastapi_devices:app

The actor is looked up and the rows are scoped by the very statements of `hse api`; what differs is what stands around them.
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import jwt
import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from hse.adapters.sealing import derived_key
from hse.adapters.tokens import ALGORITHM, AUDIENCE, CLAIMS, ISSUER

KEY = derived_key(os.environ["HSE_SECRET_KEY"], "access tokens")
ENTER = sa.text("select * from hse_enter_session(:session_id)")
LIST = sa.text(os.environ["HSE_BENCH_SQL"])
POOL_SIZE = int(os.environ["HSE_API_POOL_SIZE"])

engine = create_async_engine(
    os.environ["HSE_API_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"),
    pool_size=POOL_SIZE,
    max_overflow=0,
)
app = FastAPI()
bearer = HTTPBearer()


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
    async with engine.connect() as connection:
        yield connection


async def entered(
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
    connection: Annotated[AsyncConnection, Depends(connected)],
) -> sa.Row[Any]:
    """Whose token it is, as the database has him now."""
    try:
        claims = jwt.decode(
            credentials.credentials,
            KEY,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": CLAIMS},
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    row = (await connection.execute(ENTER, {"session_id": claims["sid"]})).one_or_none()
    if row is None:
        raise HTTPException(401)
    return row


@app.get("/api/v1/devices")
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
