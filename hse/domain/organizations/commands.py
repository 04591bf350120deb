"""What may be done to partner companies, organisations, establishments and areas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hse.domain.errors import Forbidden, Invalid
from hse.domain.metadata import check_metadata
from hse.domain.organizations.model import (
    AREA_DEPTH_MAX,
    Area,
    AreaInItself,
    AreasTooDeep,
    Establishment,
    Organization,
    PartnerCompany,
    check_location,
    check_timezone,
)
from hse.domain.organizations.ports import OrganizationsWork
from hse.domain.policy import Level
from hse.domain.work import UNCHANGED, Unchanged, changes_of, seen, values_of, within_act


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePartnerCompany:
    """A new partner company."""

    name: str
    contact_email: str | None = None
    contact_phone: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePartnerCompany:
    """What changes of a partner company."""

    name: str | Unchanged = UNCHANGED
    contact_email: str | Unchanged | None = UNCHANGED
    contact_phone: str | Unchanged | None = UNCHANGED
    address: str | Unchanged | None = UNCHANGED
    is_active: bool | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateOrganization:
    """A new organisation. A partner makes them for its own company, whether it says so or not."""

    name: str
    partner_company_id: UUID | None = None
    industry: str | None = None
    contact_email: str | None = None
    contact_phone: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOrganization:
    """What changes of an organisation. Who looks after it does not: devices and people hang on that."""

    name: str | Unchanged = UNCHANGED
    industry: str | Unchanged | None = UNCHANGED
    contact_email: str | Unchanged | None = UNCHANGED
    contact_phone: str | Unchanged | None = UNCHANGED
    address: str | Unchanged | None = UNCHANGED
    is_active: bool | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateEstablishment:
    """A new establishment."""

    organization_id: UUID
    name: str
    timezone: str
    address: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEstablishment:
    """What changes of an establishment."""

    name: str | Unchanged = UNCHANGED
    timezone: str | Unchanged = UNCHANGED
    address: str | Unchanged | None = UNCHANGED
    latitude: float | Unchanged | None = UNCHANGED
    longitude: float | Unchanged | None = UNCHANGED
    is_active: bool | Unchanged = UNCHANGED
    metadata: Mapping[str, Any] | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateArea:
    """A new area of an establishment, or of an area of it."""

    establishment_id: UUID
    name: str
    type: str
    parent_area_id: UUID | None = None
    floor: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeArea:
    """What changes of an area; another parent moves it, with all that lies in it."""

    name: str | Unchanged = UNCHANGED
    type: str | Unchanged = UNCHANGED
    parent_area_id: UUID | Unchanged | None = UNCHANGED
    floor: int | Unchanged | None = UNCHANGED
    metadata: Mapping[str, Any] | Unchanged = UNCHANGED


async def create_partner_company(work: OrganizationsWork, command: CreatePartnerCompany) -> PartnerCompany:
    """Make a partner company. Raises `Forbidden`, `Taken`."""
    work.actor.require("create_partner_company")
    return await work.partner_companies.add(values_of(command))


async def change_partner_company(
    work: OrganizationsWork, partner_company_id: UUID, command: ChangePartnerCompany, *, version: int | None = None
) -> PartnerCompany:
    """Change a partner company. Disabling it is for root, and ends the sessions and keys of its people and its organisations'.

    Raises `NotFound`, `Forbidden`, `Taken`, `Stale`.
    """
    before = await within_act(
        work, work.partner_companies, partner_company_id, see="read_partner_company", act="update_partner_company"
    )
    if command.is_active is not UNCHANGED and work.actor.level is not Level.ROOT:
        raise Forbidden("delete_partner_company")
    after = await work.partner_companies.change(before, changes_of(command), version=version)
    if before.is_active and not after.is_active:
        await work.people.end_access(partner_company_id=after.id)
    return after


async def delete_partner_company(work: OrganizationsWork, partner_company_id: UUID) -> None:
    """Delete a partner company that nothing hangs on. Raises `NotFound`, `Forbidden`, `InUse`."""
    before = await within_act(
        work, work.partner_companies, partner_company_id, see="read_partner_company", act="delete_partner_company"
    )
    await work.partner_companies.remove(before)


async def create_organization(work: OrganizationsWork, command: CreateOrganization) -> Organization:
    """Make an organisation. Raises `NotFound` for a foreign partner company, `Forbidden`, `Taken`."""
    actor = work.actor
    reach = actor.require("create_organization")
    partner_company_id = command.partner_company_id
    if actor.level is Level.PARTNER and partner_company_id is None:
        partner_company_id = actor.partner_company_id
    if partner_company_id is not None:
        await seen(work.partner_companies, reach, partner_company_id)
    return await work.organizations.add({**values_of(command), "partner_company_id": partner_company_id})


async def change_organization(
    work: OrganizationsWork, organization_id: UUID, command: ChangeOrganization, *, version: int | None = None
) -> Organization:
    """Change an organisation. Disabling it is for those who look after it, and ends the sessions and keys of its people.

    Raises `NotFound`, `Forbidden`, `Taken`, `Stale`.
    """
    before = await within_act(
        work, work.organizations, organization_id, see="read_organization", act="update_organization"
    )
    if command.is_active is not UNCHANGED and work.actor.level > Level.PARTNER:
        raise Forbidden("delete_organization")
    after = await work.organizations.change(before, changes_of(command), version=version)
    if before.is_active and not after.is_active:
        await work.people.end_access(organization_id=after.id)
    return after


async def delete_organization(work: OrganizationsWork, organization_id: UUID) -> None:
    """Delete an organisation that nothing hangs on. Raises `NotFound`, `Forbidden`, `InUse`."""
    before = await within_act(
        work, work.organizations, organization_id, see="read_organization", act="delete_organization"
    )
    await work.organizations.remove(before)


async def create_establishment(work: OrganizationsWork, command: CreateEstablishment) -> Establishment:
    """Make an establishment. An admin who does not reach the whole organisation is assigned to what he made.

    Raises `NotFound`, `Forbidden`, `Invalid`, `Taken`.
    """
    actor = work.actor
    organization = await within_act(
        work, work.organizations, command.organization_id, see="read_organization", act="create_establishment"
    )
    check_timezone(command.timezone)
    check_location(command.latitude, command.longitude)
    check_metadata(command.metadata)
    establishment_id = work.new_id()
    is_reached = actor.reach("create_establishment").has_site(organization.id, None)
    if not is_reached:
        await work.establishments.expect(establishment_id)
    made = await work.establishments.add({"id": establishment_id, **values_of(command)})
    if not is_reached:
        await work.people.assign(actor.user_id, establishment_id)
    return made


async def change_establishment(
    work: OrganizationsWork, establishment_id: UUID, command: ChangeEstablishment, *, version: int | None = None
) -> Establishment:
    """Change an establishment. Raises `NotFound`, `Forbidden`, `Invalid`, `Taken`, `Stale`."""
    before = await within_act(
        work, work.establishments, establishment_id, see="read_establishment", act="update_establishment"
    )
    if command.timezone is not UNCHANGED:
        check_timezone(command.timezone)
    if command.metadata is not UNCHANGED:
        check_metadata(command.metadata)
    check_location(
        before.latitude if command.latitude is UNCHANGED else command.latitude,
        before.longitude if command.longitude is UNCHANGED else command.longitude,
    )
    return await work.establishments.change(before, changes_of(command), version=version)


async def delete_establishment(work: OrganizationsWork, establishment_id: UUID) -> None:
    """Delete an establishment without areas and devices. Raises `NotFound`, `Forbidden`, `InUse`."""
    before = await within_act(
        work, work.establishments, establishment_id, see="read_establishment", act="delete_establishment"
    )
    await work.establishments.remove(before)


async def create_area(work: OrganizationsWork, command: CreateArea) -> Area:
    """Make an area. Raises `NotFound`, `Forbidden`, `Invalid`, `AreasTooDeep`, `Taken`."""
    establishment = await within_act(
        work, work.establishments, command.establishment_id, see="read_establishment", act="create_area"
    )
    check_metadata(command.metadata)
    tree = await work.areas.lock_tree(establishment.id)
    _check_parent(tree, command.parent_area_id)
    if _depth(tree, command.parent_area_id) >= AREA_DEPTH_MAX:
        raise AreasTooDeep
    return await work.areas.add({**values_of(command), "organization_id": establishment.organization_id})


async def change_area(
    work: OrganizationsWork, area_id: UUID, command: ChangeArea, *, version: int | None = None
) -> Area:
    """Change or move an area. Raises `NotFound`, `Forbidden`, `Invalid`, `AreaInItself`, `AreasTooDeep`, `Taken`, `Stale`."""
    before = await within_act(work, work.areas, area_id, see="read_area", act="update_area")
    if command.metadata is not UNCHANGED:
        check_metadata(command.metadata)
    if command.parent_area_id is not UNCHANGED and command.parent_area_id is not None:
        tree = await work.areas.lock_tree(before.establishment_id)
        _check_parent(tree, command.parent_area_id)
        if area_id in _ancestry(tree, command.parent_area_id):
            raise AreaInItself(area_id, command.parent_area_id)
        if _depth(tree, command.parent_area_id) + _height(tree, area_id) > AREA_DEPTH_MAX:
            raise AreasTooDeep
    return await work.areas.change(before, changes_of(command), version=version)


async def delete_area(work: OrganizationsWork, area_id: UUID) -> None:
    """Delete an area without parts and devices. Raises `NotFound`, `Forbidden`, `InUse`."""
    before = await within_act(work, work.areas, area_id, see="read_area", act="delete_area")
    await work.areas.remove(before)


def _check_parent(tree: Mapping[UUID, UUID | None], parent_area_id: UUID | None) -> None:
    if parent_area_id is not None and parent_area_id not in tree:
        raise Invalid("parent_area_id", "is no area of this establishment")


def _ancestry(tree: Mapping[UUID, UUID | None], area_id: UUID | None) -> list[UUID]:
    """The area and all that it lies in, from within outwards."""
    found: list[UUID] = []
    while area_id is not None:
        found.append(area_id)
        area_id = tree[area_id]
    return found


def _depth(tree: Mapping[UUID, UUID | None], area_id: UUID | None) -> int:
    return len(_ancestry(tree, area_id))


def _height(tree: Mapping[UUID, UUID | None], area_id: UUID) -> int:
    """How many levels an area and its parts take."""
    below = [_height(tree, child) for child, parent in tree.items() if parent == area_id]
    return 1 + max(below, default=0)
