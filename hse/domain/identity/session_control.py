"""Seeing and ending sessions: one's own, and those of people that one looks after."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from hse.domain.errors import NotFound
from hse.domain.identity.own import OwnWork, SessionNeeded
from hse.domain.identity.ports import IdentityWork
from hse.domain.identity.users import person_to_see_to, person_within_act
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import EVERYWHERE, Reach
from hse.domain.work import Record

ACTION = "manage_user_sessions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who is signed in: from where, with what, since when. `is_current` is the one that asks."""

    id: UUID
    user_id: UUID
    address: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_current: bool


class SessionStore(Protocol):
    """The sessions that have not ended."""

    async def find(self, entity_id: UUID, reach: Reach) -> Session | None:
        """The session of somebody within the reach; None when there is none."""

    async def page(self, reach: Reach, query: PageQuery) -> Page[Session]:
        """A page of the sessions of people within the reach. Raises `Invalid`."""


class SessionsWork(IdentityWork, OwnWork, Protocol):
    """A transaction with the sessions."""

    @property
    def sessions(self) -> SessionStore:
        """The sessions that have not ended."""


async def own_sessions(work: SessionsWork, query: PageQuery) -> Page[Session]:
    """A page of one's own sessions. Raises `SessionNeeded`, `Invalid`."""
    if work.actor.session_id is None:
        raise SessionNeeded
    return await work.sessions.page(EVERYWHERE, replace(query, filters={"user_id": work.actor.user_id}))


async def sessions_of(work: SessionsWork, user_id: UUID, query: PageQuery) -> Page[Session]:
    """A page of somebody's sessions. Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`, `Invalid`."""
    person = await person_to_see_to(work, user_id, act=ACTION)
    return await work.sessions.page(work.actor.reach(ACTION), replace(query, filters={"user_id": person.id}))


async def end_session(work: SessionsWork, session_id: UUID) -> None:
    """End a session of one's own, or of somebody that one looks after.

    Raises `NotFound`, `Forbidden`, `SessionNeeded`, `AboveYou`, `BeyondYourEstablishments`.
    """
    actor = work.actor
    found = await work.sessions.find(session_id, EVERYWHERE)
    if found is None:
        raise NotFound("session", session_id)
    if found.user_id == actor.user_id:
        if actor.session_id is None:
            raise SessionNeeded
    else:
        await _check_looks_after(work, found)
    await work.session_keeper.revoke(found.id, "ended")
    await work.record(await _record(work, "session.end", found.user_id, session_id=found.id))


async def end_sessions_of(work: SessionsWork, user_id: UUID) -> None:
    """End all sessions of somebody. Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`."""
    person = await person_within_act(work, user_id, act=ACTION)
    await work.session_keeper.revoke_all_of(person.id, "ended")
    await work.record(await _record(work, "session.end_all", person.id))


async def _check_looks_after(work: SessionsWork, session: Session) -> None:
    """Whose session one may not see has no session, as far as one is told."""
    if await work.users.find(session.user_id, work.actor.reach("read_user")) is None:
        raise NotFound("session", session.id)
    await person_within_act(work, session.user_id, act=ACTION)


async def _record(work: SessionsWork, action: str, user_id: UUID, *, session_id: UUID | None = None) -> Record:
    person = await work.users.find(user_id, EVERYWHERE)
    return Record(
        action=action,
        entity_type="user",
        entity_id=str(user_id),
        partner_company_id=None if person is None else person.partner_company_id,
        organization_id=None if person is None else person.organization_id,
        after=None if session_id is None else {"session_id": str(session_id)},
    )
