"""Who may give what to whom: the rules that keep everybody from climbing. Roles, people and invitations ask here.

Nobody gives what he does not hold at the place that it is for; nobody acts on who stands above him; and an admin of some
establishments acts only where these are all that is touched.
"""

from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from hse.domain.errors import Forbidden, Invalid
from hse.domain.identity.model import Action, Role, Tenant
from hse.domain.identity.refusals import (
    AboveYou,
    BeyondYourEstablishments,
    ChiefNotYours,
    Exclusive,
    NotForHierarchy,
    NotHeld,
    RoleDoesNotFit,
)
from hse.domain.policy import Actor, Level, Reach


def require_level(actor: Actor, action: str) -> None:
    """Roles and people are made by root, partners and admins only, whatever a role below them holds. Raises `Forbidden`."""
    if actor.level > Level.ADMIN:
        raise Forbidden(action)


def check_holdable(actions: Iterable[Action], hierarchy: int) -> None:
    """Whether a role of this hierarchy may hold the actions, whoever grants them. Raises `Exclusive`, `NotForHierarchy`."""
    for action in actions:
        if hierarchy == Level.ROOT:
            continue
        if action.exclusive_to is not None and action.exclusive_to != hierarchy:
            raise Exclusive(action.name)
        if hierarchy > action.hierarchy_max:
            raise NotForHierarchy(action.name)


def check_held(
    actor: Actor,
    actions: Iterable[str],
    tenant: Tenant,
    *,
    establishment_ids: Iterable[UUID] = (),
    is_site: bool = False,
) -> None:
    """Whether the actor holds every action for the tenant and at each of its establishments; raises `NotHeld`.

    With `is_site` only at the establishments: what is given there does not count for the tenant itself.
    """
    places = tuple(establishment_ids)
    for action in actions:
        reach = actor.reach(action)
        if not is_site and not covers(reach, tenant):
            raise NotHeld(action)
        if tenant.organization_id is not None and not all(
            reach.has_site(tenant.organization_id, place) for place in places
        ):
            raise NotHeld(action)


def covers(reach: Reach, tenant: Tenant) -> bool:
    """Whether what belongs to the tenant itself is within reach; what belongs to nobody is within root's only."""
    return reach.has_owner(tenant.partner_company_id, tenant.organization_id)


def granted_by(role: Role, catalogue: Mapping[str, Action]) -> list[str]:
    """What somebody gives away with a role. What is exclusive to its level comes with the level: a partner makes admins."""
    return [name for name in role.actions if catalogue[name].exclusive_to != role.hierarchy]


def check_role_for(
    actor: Actor,
    role: Role,
    tenant: Tenant,
    catalogue: Mapping[str, Action],
    *,
    establishment_ids: Iterable[UUID] = (),
) -> None:
    """Whether the actor may give somebody who belongs to the tenant, and works at these establishments, the role as his own.

    Raises `AboveYou`, `RoleDoesNotFit`, `NotHeld`.
    """
    check_not_above(actor, "role", role.hierarchy)
    check_fits(role, tenant)
    check_held(actor, granted_by(role, catalogue), tenant, establishment_ids=establishment_ids)


def check_role_at(
    actor: Actor, role: Role, organization_id: UUID, establishment_id: UUID, catalogue: Mapping[str, Action]
) -> None:
    """Whether the actor may give somebody the role at one establishment. Raises `AboveYou`, `RoleDoesNotFit`, `NotHeld`."""
    check_not_above(actor, "role", role.hierarchy)
    if role.level < Level.USER:
        raise RoleDoesNotFit("at an establishment somebody is a user or has a custom role")
    if role.partner_company_id is not None or role.organization_id not in (None, organization_id):
        raise RoleDoesNotFit("it is bound to somebody else")
    if role.establishment_id not in (None, establishment_id):
        raise RoleDoesNotFit("it is bound to another establishment")
    here = Tenant(organization_id=organization_id)
    check_held(actor, granted_by(role, catalogue), here, establishment_ids=[establishment_id], is_site=True)


def check_fits(role: Role, tenant: Tenant) -> None:
    """Whether the role is one for somebody who belongs to the tenant. Raises `RoleDoesNotFit`."""
    if tenant.partner_company_id is not None and tenant.organization_id is not None:
        raise Invalid("organization_id", "belong to a partner company or to an organisation, not to both")
    if role.establishment_id is not None:
        raise RoleDoesNotFit("it is bound to an establishment, and is given to people at that establishment")
    is_bound_elsewhere = not role.is_unbound and (role.partner_company_id, role.organization_id) != (
        tenant.partner_company_id,
        tenant.organization_id,
    )
    if is_bound_elsewhere:
        raise RoleDoesNotFit("it is bound to somebody else")
    if role.level is Level.ROOT and tenant != Tenant():
        raise RoleDoesNotFit("root belongs to no partner company and to no organisation")
    if role.level is Level.PARTNER and tenant.partner_company_id is None:
        raise RoleDoesNotFit("a partner belongs to a partner company")
    if role.level in (Level.ADMIN, Level.USER) and tenant.organization_id is None:
        raise RoleDoesNotFit("an admin or a user belongs to an organisation")
    if role.level is Level.CUSTOM and tenant == Tenant():
        raise RoleDoesNotFit("who has a custom role belongs to a partner company or to an organisation")


def check_not_above(actor: Actor, entity: str, hierarchy: int) -> None:
    """Raises `AboveYou` for what stands higher than the actor."""
    if hierarchy < actor.hierarchy:
        raise AboveYou(entity)


def check_chief(actor: Actor, role: Role) -> None:
    """Whether the actor may give somebody with this role all establishments. Raises `Invalid`, `ChiefNotYours`."""
    if role.level is not Level.ADMIN:
        raise Invalid("has_all_establishments", "is for admins")
    if actor.level > Level.PARTNER and not is_chief(actor):
        raise ChiefNotYours


def check_within_establishments(
    actor: Actor, act: str, entity: str, *, establishment_ids: Collection[UUID], is_everywhere: bool
) -> None:
    """An admin who is no chief acts on what counts at his own establishments only. Raises `BeyondYourEstablishments`."""
    if actor.level <= Level.PARTNER or is_chief(actor):
        return
    if is_everywhere or not actor.reach(act).establishment_ids.issuperset(establishment_ids):
        raise BeyondYourEstablishments(entity)


def is_chief(actor: Actor) -> bool:
    """Whether he is a chief administrator."""
    return actor.level is Level.ADMIN and actor.has_all_establishments
