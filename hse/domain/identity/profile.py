"""Who somebody is that is signed in, and what he may do."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from hse.domain.identity.model import User
from hse.domain.identity.own import OwnWork, SessionNeeded
from hse.domain.identity.ports import IdentityWork
from hse.domain.policy import EVERYWHERE
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen


class ProfileWork(IdentityWork, OwnWork, Protocol):
    """A transaction of somebody about himself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who acts, and what he may do. At an establishment he may have other actions than elsewhere: then they stand there."""

    id: UUID
    email: str
    first_name: str
    last_name: str
    role_id: UUID
    hierarchy: int
    partner_company_id: UUID | None
    organization_id: UUID | None
    has_all_establishments: bool
    actions: list[str]
    establishments: Mapping[UUID, list[str] | None]
    has_totp: bool
    recovery_codes_left: int
    session_id: UUID | None
    api_key_id: UUID | None
    onboarded_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeProfile:
    """What somebody changes of himself."""

    first_name: str | Unchanged = UNCHANGED
    last_name: str | Unchanged = UNCHANGED


async def me(work: ProfileWork) -> Me:
    """Who acts. It needs no action, and answers API keys, too."""
    return await _me(work, await seen(work.users, EVERYWHERE, work.actor.user_id))


async def change_profile(work: ProfileWork, command: ChangeProfile, *, version: int | None = None) -> Me:
    """Change one's own names. Raises `SessionNeeded`, `Stale`."""
    if work.actor.session_id is None:
        raise SessionNeeded
    before = await seen(work.users, EVERYWHERE, work.actor.user_id)
    return await _me(work, await work.users.change(before, changes_of(command), version=version))


async def _me(work: ProfileWork, user: User) -> Me:
    actor = work.actor
    account = await work.accounts.by_id(user.id)
    return Me(
        id=user.id,
        email=user.email,
        first_name=user.first_name,
        last_name=user.last_name,
        role_id=user.role_id,
        hierarchy=actor.hierarchy,
        partner_company_id=user.partner_company_id,
        organization_id=user.organization_id,
        has_all_establishments=actor.has_all_establishments,
        actions=sorted(actor.actions),
        establishments={
            establishment: None if held is None else sorted(held)
            for establishment, held in sorted(actor.establishments.items())
        },
        has_totp=account is not None and account.totp is not None,
        recovery_codes_left=await work.factors.recovery_codes_left(user.id),
        session_id=actor.session_id,
        api_key_id=actor.api_key_id,
        onboarded_at=user.onboarded_at,
        version=user.version,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )
