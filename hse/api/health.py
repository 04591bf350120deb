"""Whether the process lives, and whether it can do its work."""

from typing import Any

import sqlalchemy as sa
from litestar import Request, Response, Router, get
from sqlalchemy.exc import SQLAlchemyError


@get("/liveness", opt={"is_public": True, "is_unlimited": True})
async def liveness() -> dict[str, str]:
    """The process serves requests."""
    return {"status": "alive"}


@get("/readiness", opt={"is_public": True, "is_unlimited": True})
async def readiness(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    """The database answers; 503 when it does not."""
    try:
        async with request.app.state.database.engine.connect() as connection:
            await connection.execute(sa.text("select 1"))
    except (SQLAlchemyError, OSError):
        return Response(content={"status": "not_ready", "database": "away"}, status_code=503)
    return Response(content={"status": "ready", "database": "up"})


router = Router(path="/health", route_handlers=[liveness, readiness], tags=["health"])
