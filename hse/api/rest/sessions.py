"""Who is signed in where."""

from uuid import UUID

from litestar import Router, delete, get
from litestar.params import FromPath

from hse.api.acting import Acts
from hse.api.paging import Paged
from hse.domain.identity import session_control
from hse.domain.identity.session_control import Session
from hse.domain.paging import Page


@get("/sessions")
async def list_own_sessions(acting: Acts, page: Paged) -> Page[Session]:
    """List your own sessions."""
    return await acting.read(lambda work: session_control.own_sessions(work, page))


@delete("/sessions/{session_id:uuid}")
async def end_session(acting: Acts, session_id: FromPath[UUID]) -> None:
    """End a session of yours, or of somebody whose sessions you manage."""
    await acting.run(lambda work: session_control.end_session(work, session_id))


@get("/users/{user_id:uuid}/sessions")
async def list_sessions_of_user(acting: Acts, user_id: FromPath[UUID], page: Paged) -> Page[Session]:
    """List somebody's sessions."""
    return await acting.read(lambda work: session_control.sessions_of(work, user_id, page))


@delete("/users/{user_id:uuid}/sessions")
async def end_sessions_of_user(acting: Acts, user_id: FromPath[UUID]) -> None:
    """End all sessions of somebody."""
    await acting.run(lambda work: session_control.end_sessions_of(work, user_id))


router = Router(
    path="/",
    tags=["sessions"],
    route_handlers=[list_own_sessions, end_session, list_sessions_of_user, end_sessions_of_user],
)
