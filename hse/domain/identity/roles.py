"""What may be done to roles: custom ones are made, changed and deleted, of system ones only what they hold is changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from hse.domain.errors import Forbidden, Invalid
from hse.domain.identity.granting import (
    check_held,
    check_holdable,
    check_within_establishments,
    require_level,
)
from hse.domain.identity.model import Action, Role, Tenant
from hse.domain.identity.ports import IdentityWork
from hse.domain.identity.refusals import SystemRoleFixed
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import Level, Reach
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen

HIERARCHY_MAX = 32_767


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRole:
    """A new custom role. Without a binding it belongs to its maker's company or organisation; root's is for everybody."""

    name: str
    actions: tuple[str, ...]
    description: str = ""
    hierarchy: int = int(Level.CUSTOM)
    partner_company_id: UUID | None = None
    organization_id: UUID | None = None
    establishment_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRole:
    """What changes of a role. Its level and whom it belongs to do not: others rely on them."""

    name: str | Unchanged = UNCHANGED
    description: str | Unchanged = UNCHANGED
    actions: tuple[str, ...] | Unchanged = UNCHANGED


async def actions(work: IdentityWork) -> Page[Action]:
    """The catalogue of actions, whole: what can be allowed is no secret."""
    catalogue = await work.actions.all()
    return Page(items=[catalogue[name] for name in sorted(catalogue)], next_cursor=None, total=len(catalogue))


async def roles(work: IdentityWork, query: PageQuery) -> Page[Role]:
    """A page of the roles. Raises `Forbidden`, `Invalid`."""
    return await work.roles.page(work.actor.require("read_role"), query)


async def role(work: IdentityWork, role_id: UUID) -> Role:
    """One role. Raises `Forbidden`, `NotFound`."""
    return await seen(work.roles, work.actor.require("read_role"), role_id)


async def create_role(work: IdentityWork, command: CreateRole) -> Role:
    """Make a custom role.

    Raises `Forbidden`, `NotFound` for a foreign binding, `Invalid`, `Exclusive`, `NotForHierarchy`, `NotHeld`, `Taken`.
    """
    actor = work.actor
    reach = actor.require("create_role")
    require_level(actor, "create_role")
    if not max(Level.CUSTOM, actor.hierarchy + 1) <= command.hierarchy <= HIERARCHY_MAX:
        raise Invalid("hierarchy", f"of a custom role is between {int(Level.CUSTOM)} and {HIERARCHY_MAX}")
    tenant = await _binding(work, reach, command)
    wanted = known_actions(await work.actions.all(), command.actions)
    check_holdable(wanted, command.hierarchy)
    at = [] if command.establishment_id is None else [command.establishment_id]
    check_held(actor, command.actions, tenant, establishment_ids=at, is_site=bool(at))
    values = {
        "name": command.name,
        "description": command.description,
        "type": "custom",
        "hierarchy": command.hierarchy,
        "partner_company_id": tenant.partner_company_id,
        "organization_id": tenant.organization_id,
        "establishment_id": command.establishment_id,
        "created_by": actor.user_id,
        "actions": sorted(set(command.actions)),
    }
    return await work.roles.add(values)


async def change_role(work: IdentityWork, role_id: UUID, command: ChangeRole, *, version: int | None = None) -> Role:
    """Change a role; who has it may do more or less with his next request.

    Raises `NotFound`, `Forbidden`, `SystemRoleFixed`, `Invalid`, `Exclusive`, `NotForHierarchy`, `NotHeld`,
    `BeyondYourEstablishments`, `Taken`, `Stale`.
    """
    actor = work.actor
    await work.roles.lock(role_id)
    before = await seen(work.roles, actor.reach("read_role"), role_id)
    if before.level is Level.CUSTOM:
        _check_custom(work, before, "update_role")
    else:
        _check_system(work, before, command)
    changes = changes_of(command)
    if command.actions is not UNCHANGED:
        changes["actions"] = sorted(set(command.actions))
        await _check_actions(work, before, command.actions)
    return await work.roles.change(before, changes, version=version)


async def delete_role(work: IdentityWork, role_id: UUID) -> None:
    """Delete a custom role that nobody has. Invitations to it can be accepted no more.

    Raises `NotFound`, `Forbidden`, `SystemRoleFixed`, `BeyondYourEstablishments`, `InUse`.
    """
    await work.roles.lock(role_id)
    before = await seen(work.roles, work.actor.reach("read_role"), role_id)
    if before.level is not Level.CUSTOM:
        raise SystemRoleFixed("it stays")
    _check_custom(work, before, "delete_role")
    _check_places(work, "delete_role", await work.roles.places(before.id))
    await work.roles.remove(before)


def known_actions(catalogue: Mapping[str, Action], names: Iterable[str]) -> list[Action]:
    """The actions of these names. Raises `Invalid` for a name that is none."""
    found = []
    for name in names:
        if name not in catalogue:
            raise Invalid("actions", f"there is no action {name[:60]!r}: GET /api/v1/actions lists them")
        found.append(catalogue[name])
    return found


async def _check_actions(work: IdentityWork, before: Role, wanted: tuple[str, ...]) -> None:
    """What is added must be the actor's to give at every place where the role counts; what was there may stay."""
    added = sorted(set(wanted) - set(before.actions))
    check_holdable(known_actions(await work.actions.all(), added), before.hierarchy)
    places = await work.roles.places(before.id)
    if before.level is Level.CUSTOM:
        _check_places(work, "update_role", places)
    if before.establishment_id is not None:
        places |= {before.establishment_id}
    tenant = Tenant(partner_company_id=before.partner_company_id, organization_id=before.organization_id)
    is_site = before.establishment_id is not None
    check_held(work.actor, added, tenant, establishment_ids=places, is_site=is_site)


def _check_custom(work: IdentityWork, before: Role, act: str) -> None:
    """A custom role stands below everybody who may change roles at all. Raises `Forbidden`."""
    require_level(work.actor, act)
    if not before.is_within(work.actor.reach(act)):
        raise Forbidden(act)


def _check_places(work: IdentityWork, act: str, places: frozenset[UUID]) -> None:
    """Also to take away is to act on those who have the role. Raises `BeyondYourEstablishments`."""
    check_within_establishments(work.actor, act, "role", establishment_ids=places, is_everywhere=False)


def _check_system(work: IdentityWork, before: Role, command: ChangeRole) -> None:
    if not work.actor.reach("manage_system_roles").is_everything:
        raise Forbidden("manage_system_roles")
    if before.level is Level.ROOT:
        raise SystemRoleFixed("root holds everything, for good")
    if command.name is not UNCHANGED or command.description is not UNCHANGED:
        raise SystemRoleFixed("only what it holds can be changed")


async def _binding(work: IdentityWork, reach: Reach, command: CreateRole) -> Tenant:
    """Whom a new role belongs to. Raises `NotFound`, `Invalid`."""
    actor = work.actor
    partner_company_id, organization_id = command.partner_company_id, command.organization_id
    if partner_company_id is not None and (organization_id is not None or command.establishment_id is not None):
        raise Invalid("partner_company_id", "bind it to a partner company or to an organisation, not to both")
    if command.establishment_id is not None:
        site = await seen(work.establishments, reach, command.establishment_id)
        if organization_id not in (None, site.organization_id):
            raise Invalid("establishment_id", "is no establishment of this organisation")
        return Tenant(organization_id=site.organization_id)
    if partner_company_id is None and organization_id is None:
        if actor.level is Level.PARTNER:
            return Tenant(partner_company_id=actor.partner_company_id)
        return Tenant(organization_id=actor.organization_id)
    if organization_id is not None:
        await seen(work.organizations, reach, organization_id)
    if partner_company_id is not None:
        await seen(work.partner_companies, reach, partner_company_id)
    return Tenant(partner_company_id=partner_company_id, organization_id=organization_id)
