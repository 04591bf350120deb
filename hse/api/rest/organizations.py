"""Partner companies, organisations, establishments and areas."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET, UnsetType

from hse.api.acting import Acts, Version
from hse.api.bodies import LINE, Address, Body, Email, Latitude, Longitude, Metadata, Name, Phone, given
from hse.api.paging import Paged, filtered
from hse.domain.organizations import commands, queries
from hse.domain.organizations.model import Area, Establishment, Organization, PartnerAnalytics, PartnerCompany
from hse.domain.paging import Page

Industry = Annotated[str, msgspec.Meta(max_length=100, pattern=LINE, examples=["retail"])]
Timezone = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=LINE, examples=["America/Santiago"])]
AreaType = Annotated[str, msgspec.Meta(min_length=1, max_length=50, pattern=LINE, examples=["office"])]
Floor = Annotated[int, msgspec.Meta(ge=-100, le=300, examples=[2])]


class NewPartnerCompany(Body):
    """A partner company to be made."""

    name: Name
    contact_email: Email | None = None
    contact_phone: Phone | None = None
    address: Address | None = None


class PartnerCompanyChange(Body):
    """What changes of a partner company."""

    name: Name | UnsetType = UNSET
    contact_email: Email | UnsetType | None = UNSET
    contact_phone: Phone | UnsetType | None = UNSET
    address: Address | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET


class NewOrganization(Body):
    """An organisation to be made; a partner's belongs to its company."""

    name: Name
    partner_company_id: UUID | None = None
    industry: Industry | None = None
    contact_email: Email | None = None
    contact_phone: Phone | None = None
    address: Address | None = None


class OrganizationChange(Body):
    """What changes of an organisation."""

    name: Name | UnsetType = UNSET
    industry: Industry | UnsetType | None = UNSET
    contact_email: Email | UnsetType | None = UNSET
    contact_phone: Phone | UnsetType | None = UNSET
    address: Address | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET


class NewEstablishment(Body):
    """An establishment to be made."""

    organization_id: UUID
    name: Name
    timezone: Timezone
    address: Address | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    metadata: Metadata = msgspec.field(default_factory=dict)


class EstablishmentChange(Body):
    """What changes of an establishment."""

    name: Name | UnsetType = UNSET
    timezone: Timezone | UnsetType = UNSET
    address: Address | UnsetType | None = UNSET
    latitude: Latitude | UnsetType | None = UNSET
    longitude: Longitude | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class NewArea(Body):
    """An area to be made."""

    establishment_id: UUID
    name: Name
    type: AreaType
    parent_area_id: UUID | None = None
    floor: Floor | None = None
    metadata: Metadata = msgspec.field(default_factory=dict)


class AreaChange(Body):
    """What changes of an area."""

    name: Name | UnsetType = UNSET
    type: AreaType | UnsetType = UNSET
    parent_area_id: UUID | UnsetType | None = UNSET
    floor: Floor | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET


@get("/partner-companies")
async def list_partner_companies(
    acting: Acts, page: Paged, is_active: FromQuery[bool | None] = None
) -> Page[PartnerCompany]:
    """List the partner companies that you may see."""
    return await acting.read(lambda work: queries.partner_companies(work, filtered(page, is_active=is_active)))


@post("/partner-companies")
async def create_partner_company(once: Acts, data: JSONBody[NewPartnerCompany]) -> PartnerCompany:
    """Make a partner company."""
    command = commands.CreatePartnerCompany(**given(data))
    return await once.run(lambda work: commands.create_partner_company(work, command), status=201)


@get("/partner-companies/{partner_company_id:uuid}")
async def get_partner_company(acting: Acts, partner_company_id: FromPath[UUID]) -> PartnerCompany:
    """Read a partner company."""
    return await acting.read(lambda work: queries.partner_company(work, partner_company_id))


@get("/partner-companies/{partner_company_id:uuid}/analytics")
async def get_partner_analytics(acting: Acts, partner_company_id: FromPath[UUID]) -> PartnerAnalytics:
    """Read what a partner company looks after, in numbers."""
    return await acting.read(lambda work: queries.partner_analytics(work, partner_company_id))


@patch("/partner-companies/{partner_company_id:uuid}")
async def change_partner_company(
    acting: Acts,
    partner_company_id: FromPath[UUID],
    data: JSONBody[PartnerCompanyChange],
    version: Version,
) -> PartnerCompany:
    """Change a partner company. Disabling it ends the sessions and API keys of its people, and of its organisations'."""
    command = commands.ChangePartnerCompany(**given(data))
    return await acting.run(
        lambda work: commands.change_partner_company(work, partner_company_id, command, version=version)
    )


@delete("/partner-companies/{partner_company_id:uuid}")
async def delete_partner_company(acting: Acts, partner_company_id: FromPath[UUID]) -> None:
    """Delete a partner company that nothing hangs on."""
    await acting.run(lambda work: commands.delete_partner_company(work, partner_company_id))


@get("/organizations")
async def list_organizations(
    acting: Acts,
    page: Paged,
    partner_company_id: FromQuery[UUID | None] = None,
    is_active: FromQuery[bool | None] = None,
) -> Page[Organization]:
    """List the organisations that you may see."""
    query = filtered(page, partner_company_id=partner_company_id, is_active=is_active)
    return await acting.read(lambda work: queries.organizations(work, query))


@post("/organizations")
async def create_organization(once: Acts, data: JSONBody[NewOrganization]) -> Organization:
    """Make an organisation."""
    command = commands.CreateOrganization(**given(data))
    return await once.run(lambda work: commands.create_organization(work, command), status=201)


@get("/organizations/{organization_id:uuid}")
async def get_organization(acting: Acts, organization_id: FromPath[UUID]) -> Organization:
    """Read an organisation."""
    return await acting.read(lambda work: queries.organization(work, organization_id))


@patch("/organizations/{organization_id:uuid}")
async def change_organization(
    acting: Acts,
    organization_id: FromPath[UUID],
    data: JSONBody[OrganizationChange],
    version: Version,
) -> Organization:
    """Change an organisation. Disabling it ends the sessions and API keys of its people."""
    command = commands.ChangeOrganization(**given(data))
    return await acting.run(lambda work: commands.change_organization(work, organization_id, command, version=version))


@delete("/organizations/{organization_id:uuid}")
async def delete_organization(acting: Acts, organization_id: FromPath[UUID]) -> None:
    """Delete an organisation that nothing hangs on."""
    await acting.run(lambda work: commands.delete_organization(work, organization_id))


@get("/establishments")
async def list_establishments(
    acting: Acts,
    page: Paged,
    organization_id: FromQuery[UUID | None] = None,
    is_active: FromQuery[bool | None] = None,
) -> Page[Establishment]:
    """List the establishments that you may see."""
    query = filtered(page, organization_id=organization_id, is_active=is_active)
    return await acting.read(lambda work: queries.establishments(work, query))


@post("/establishments")
async def create_establishment(once: Acts, data: JSONBody[NewEstablishment]) -> Establishment:
    """Make an establishment."""
    command = commands.CreateEstablishment(**given(data))
    return await once.run(lambda work: commands.create_establishment(work, command), status=201)


@get("/establishments/{establishment_id:uuid}")
async def get_establishment(acting: Acts, establishment_id: FromPath[UUID]) -> Establishment:
    """Read an establishment."""
    return await acting.read(lambda work: queries.establishment(work, establishment_id))


@patch("/establishments/{establishment_id:uuid}")
async def change_establishment(
    acting: Acts,
    establishment_id: FromPath[UUID],
    data: JSONBody[EstablishmentChange],
    version: Version,
) -> Establishment:
    """Change an establishment."""
    command = commands.ChangeEstablishment(**given(data))
    return await acting.run(
        lambda work: commands.change_establishment(work, establishment_id, command, version=version)
    )


@delete("/establishments/{establishment_id:uuid}")
async def delete_establishment(acting: Acts, establishment_id: FromPath[UUID]) -> None:
    """Delete an establishment that has neither areas nor devices."""
    await acting.run(lambda work: commands.delete_establishment(work, establishment_id))


@get("/areas")
async def list_areas(
    acting: Acts,
    page: Paged,
    establishment_id: FromQuery[UUID | None] = None,
    parent_area_id: FromQuery[UUID | None] = None,
) -> Page[Area]:
    """List the areas that you may see."""
    query = filtered(page, establishment_id=establishment_id, parent_area_id=parent_area_id)
    return await acting.read(lambda work: queries.areas(work, query))


@post("/areas")
async def create_area(once: Acts, data: JSONBody[NewArea]) -> Area:
    """Make an area."""
    command = commands.CreateArea(**given(data))
    return await once.run(lambda work: commands.create_area(work, command), status=201)


@get("/areas/{area_id:uuid}")
async def get_area(acting: Acts, area_id: FromPath[UUID]) -> Area:
    """Read an area."""
    return await acting.read(lambda work: queries.area(work, area_id))


@patch("/areas/{area_id:uuid}")
async def change_area(
    acting: Acts,
    area_id: FromPath[UUID],
    data: JSONBody[AreaChange],
    version: Version,
) -> Area:
    """Change an area; another parent moves it, with all that lies in it."""
    command = commands.ChangeArea(**given(data))
    return await acting.run(lambda work: commands.change_area(work, area_id, command, version=version))


@delete("/areas/{area_id:uuid}")
async def delete_area(acting: Acts, area_id: FromPath[UUID]) -> None:
    """Delete an area that has neither parts nor devices."""
    await acting.run(lambda work: commands.delete_area(work, area_id))


router = Router(
    path="/",
    tags=["organizations"],
    route_handlers=[
        list_partner_companies,
        create_partner_company,
        get_partner_company,
        get_partner_analytics,
        change_partner_company,
        delete_partner_company,
        list_organizations,
        create_organization,
        get_organization,
        change_organization,
        delete_organization,
        list_establishments,
        create_establishment,
        get_establishment,
        change_establishment,
        delete_establishment,
        list_areas,
        create_area,
        get_area,
        change_area,
        delete_area,
    ],
)
