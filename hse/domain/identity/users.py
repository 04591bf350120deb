"""What may be done to people. They come into being by accepting an invitation (`invitations`), never here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from hse.domain.errors import Invalid
from hse.domain.identity.granting import (
    check_chief,
    check_held,
    check_not_above,
    check_role_at,
    check_role_for,
    check_within_establishments,
    granted_by,
    require_level,
)
from hse.domain.identity.model import Assignment, Role, Tenant, User
from hse.domain.identity.ports import IdentityWork, find_tenant
from hse.domain.identity.refusals import LastRoot, NotYourself
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Level
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen, within_act

ESTABLISHMENTS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeUser:
    """What changes of a person."""

    first_name: str | Unchanged = UNCHANGED
    last_name: str | Unchanged = UNCHANGED
    is_active: bool | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignRole:
    """Another role for a person; with another tenant he leaves the old one, and all its establishments."""

    role_id: UUID
    has_all_establishments: bool = False
    partner_company_id: UUID | Unchanged | None = UNCHANGED
    organization_id: UUID | Unchanged | None = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAt:
    """An establishment that a person is to work at, and the role that he has there in place of his own."""

    establishment_id: UUID
    role_id: UUID | None = None


async def users(work: IdentityWork, query: PageQuery) -> Page[User]:
    """A page of the people. Raises `Forbidden`, `Invalid`."""
    reach = work.actor.require("read_user")
    establishment_id = query.filters.get("establishment_id")
    if isinstance(establishment_id, UUID):
        # Who works at a place that one may not see, one may not learn by asking for it.
        site = await work.establishments.find(establishment_id, work.actor.reach("read_establishment"))
        if site is None:
            return Page(items=[], next_cursor=None, total=0 if query.with_total else None)
    return await work.users.page(reach, query)


async def user(work: IdentityWork, user_id: UUID) -> User:
    """One person. Raises `Forbidden`, `NotFound`."""
    return await seen(work.users, work.actor.require("read_user"), user_id)


async def user_establishments(work: IdentityWork, user_id: UUID) -> Page[Assignment]:
    """Where a person works, as far as the actor sees the establishments. Raises `Forbidden`, `NotFound`."""
    found = await seen(work.users, work.actor.require("read_user"), user_id)
    assignments = await work.assignments.of(user_id)
    reach = work.actor.reach("read_establishment")
    shown = [
        one
        for one in assignments
        if found.organization_id is not None and reach.has_site(found.organization_id, one.establishment_id)
    ]
    return Page(items=shown, next_cursor=None)


async def change_user(work: IdentityWork, user_id: UUID, command: ChangeUser, *, version: int | None = None) -> User:
    """Change a person. Disabling him ends his sessions and API keys at once.

    Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`, `NotYourself`, `LastRoot`, `Stale`.
    """
    before = await person_within_act(work, user_id, act="update_user")
    is_disabled = before.is_active and command.is_active is False
    if is_disabled:
        _check_not_self(work, before)
        await _keep_a_root(work, before)
    after = await work.users.change(before, changes_of(command), version=version)
    if is_disabled:
        await work.users.end_access_of(after.id)
    return after


async def delete_user(work: IdentityWork, user_id: UUID) -> None:
    """Delete a person, with his sessions, keys and assignments; the audit log keeps what he did.

    Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`, `NotYourself`, `LastRoot`.
    """
    before = await person_within_act(work, user_id, act="delete_user")
    _check_not_self(work, before)
    await _keep_a_root(work, before)
    await work.users.remove(before)


async def assign_role(work: IdentityWork, user_id: UUID, command: AssignRole, *, version: int | None = None) -> User:
    """Give a person another role; it counts from his next request on.

    Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`, `NotYourself`, `RoleDoesNotFit`, `NotHeld`,
    `ChiefNotYours`, `Invalid`, `LastRoot`, `Stale`.
    """
    actor = work.actor
    before = await person_within_act(work, user_id, act="assign_role")
    require_level(actor, "assign_role")
    _check_not_self(work, before)
    tenant = await _tenant_after(work, before, command)
    role = await role_to_give(work, command.role_id)
    is_moved = tenant != Tenant(partner_company_id=before.partner_company_id, organization_id=before.organization_id)
    present = [] if is_moved else await work.assignments.of(user_id)
    with_own_role = [one.establishment_id for one in present if one.role_id is None]
    check_role_for(actor, role, tenant, await work.actions.all(), establishment_ids=with_own_role)
    if command.has_all_establishments:
        check_chief(actor, role)
    if role.level is not Level.ROOT:
        await _keep_a_root(work, before)
    if is_moved:
        await work.assignments.replace(before, {}, [])
    changes = {
        "role_id": role.id,
        "has_all_establishments": command.has_all_establishments,
        "partner_company_id": tenant.partner_company_id,
        "organization_id": tenant.organization_id,
    }
    return await work.users.change(before, changes, version=version)


async def assign_establishments(work: IdentityWork, user_id: UUID, wanted: Sequence[WorkAt]) -> Page[Assignment]:
    """Say where a person works, of the establishments that the actor looks after; at others he stays as he is.

    Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`, `NotYourself`, `RoleDoesNotFit`, `NotHeld`, `Invalid`.
    """
    act = "manage_organization_users"
    before = await person_within_act(work, user_id, act=act)
    _check_not_self(work, before)
    if len({one.establishment_id for one in wanted}) != len(wanted) or len(wanted) > ESTABLISHMENTS_MAX:
        raise Invalid("establishments", f"each once, and {ESTABLISHMENTS_MAX} at most")
    organization_id = before.organization_id
    if organization_id is None:
        raise Invalid("establishments", "only people of an organisation work at its establishments")
    own_role = await role_to_give(work, before.role_id)
    assignments = await work.assignments.of(user_id)
    present = {one.establishment_id: one.role_id for one in assignments}
    for one in wanted:
        site = await within_act(work, work.establishments, one.establishment_id, see="read_establishment", act=act)
        if site.organization_id != organization_id:
            raise Invalid("establishments", "are of another organisation")
        if one.establishment_id not in present or present[one.establishment_id] != one.role_id:
            await check_place(work, one, organization_id, own_role)
    reach = work.actor.reach(act)
    kept = [one for one in assignments if not reach.has_site(organization_id, one.establishment_id)]
    await work.assignments.replace(before, {one.establishment_id: one.role_id for one in wanted}, kept)
    return await user_establishments(work, user_id)


async def check_place(work: IdentityWork, place: WorkAt, organization_id: UUID, own_role: Role) -> None:
    """Whether the actor may let somebody with this role work at the place. Raises `RoleDoesNotFit`, `NotHeld`, `AboveYou`."""
    catalogue = await work.actions.all()
    if place.role_id is None:
        here = Tenant(organization_id=organization_id)
        given = granted_by(own_role, catalogue)
        check_held(work.actor, given, here, establishment_ids=[place.establishment_id], is_site=True)
        return
    role = await role_to_give(work, place.role_id)
    check_role_at(work.actor, role, organization_id, place.establishment_id, catalogue)


async def person_within_act(work: IdentityWork, user_id: UUID, *, act: str) -> User:
    """The person who is to be acted on, locked. Also what ends his sessions or keys asks here.

    Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`.
    """
    await work.users.lock(user_id)
    return await person_to_see_to(work, user_id, act=act)


async def person_to_see_to(work: IdentityWork, user_id: UUID, *, act: str) -> User:
    """The same person, for who only reads what belongs to him: not locked."""
    person = await within_act(work, work.users, user_id, see="read_user", act=act)
    check_not_above(work.actor, "user", person.hierarchy)
    check_within_establishments(
        work.actor,
        act,
        "user",
        establishment_ids=[one.establishment_id for one in await work.assignments.of(user_id)],
        is_everywhere=person.has_all_establishments,
    )
    return person


async def role_to_give(work: IdentityWork, role_id: UUID) -> Role:
    """A role that is to be given to somebody, and holds until then what is read here. Raises `NotFound`."""
    await work.roles.lock(role_id, is_shared=True)
    return await seen(work.roles, work.actor.reach("read_role"), role_id)


async def _tenant_after(work: IdentityWork, before: User, command: AssignRole) -> Tenant:
    """Whom a person belongs to after a change of his role. Raises `NotFound`."""
    given: Mapping[str, UUID | None] = {
        name: value for name, value in changes_of(command).items() if name in ("partner_company_id", "organization_id")
    }
    partner_company_id = given.get("partner_company_id", before.partner_company_id)
    organization_id = given.get("organization_id", before.organization_id)
    if (partner_company_id, organization_id) != (before.partner_company_id, before.organization_id):
        await find_tenant(work, work.actor.reach("assign_role"), partner_company_id, organization_id)
    return Tenant(partner_company_id=partner_company_id, organization_id=organization_id)


def _check_not_self(work: IdentityWork, person: User) -> None:
    if person.id == work.actor.user_id:
        raise NotYourself


async def _keep_a_root(work: IdentityWork, person: User) -> None:
    """Raises `LastRoot` when this is an active root, and the only one."""
    if person.hierarchy == Level.ROOT and person.is_active and await work.users.lock_roots(besides=person.id) == 0:
        raise LastRoot
