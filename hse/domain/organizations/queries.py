"""What may be read of partner companies, organisations, establishments and areas."""

from uuid import UUID

from hse.domain.organizations.model import Area, Establishment, Organization, PartnerAnalytics, PartnerCompany
from hse.domain.organizations.ports import OrganizationsWork
from hse.domain.paging import Page, PageQuery
from hse.domain.work import seen, within_act


async def partner_companies(work: OrganizationsWork, query: PageQuery) -> Page[PartnerCompany]:
    """A page of the partner companies. Raises `Forbidden`, `Invalid`."""
    return await work.partner_companies.page(work.actor.require("read_partner_company"), query)


async def partner_company(work: OrganizationsWork, partner_company_id: UUID) -> PartnerCompany:
    """One partner company. Raises `Forbidden`, `NotFound`."""
    return await seen(work.partner_companies, work.actor.require("read_partner_company"), partner_company_id)


async def partner_analytics(work: OrganizationsWork, partner_company_id: UUID) -> PartnerAnalytics:
    """What a partner company looks after. Raises `Forbidden`, `NotFound`."""
    found = await within_act(
        work, work.partner_companies, partner_company_id, see="read_partner_company", act="view_partner_analytics"
    )
    return await work.partner_companies.analytics(found.id)


async def organizations(work: OrganizationsWork, query: PageQuery) -> Page[Organization]:
    """A page of the organisations. Raises `Forbidden`, `Invalid`."""
    return await work.organizations.page(work.actor.require("read_organization"), query)


async def organization(work: OrganizationsWork, organization_id: UUID) -> Organization:
    """One organisation. Raises `Forbidden`, `NotFound`."""
    return await seen(work.organizations, work.actor.require("read_organization"), organization_id)


async def establishments(work: OrganizationsWork, query: PageQuery) -> Page[Establishment]:
    """A page of the establishments. Raises `Forbidden`, `Invalid`."""
    return await work.establishments.page(work.actor.require("read_establishment"), query)


async def establishment(work: OrganizationsWork, establishment_id: UUID) -> Establishment:
    """One establishment. Raises `Forbidden`, `NotFound`."""
    return await seen(work.establishments, work.actor.require("read_establishment"), establishment_id)


async def areas(work: OrganizationsWork, query: PageQuery) -> Page[Area]:
    """A page of the areas. Raises `Forbidden`, `Invalid`."""
    return await work.areas.page(work.actor.require("read_area"), query)


async def area(work: OrganizationsWork, area_id: UUID) -> Area:
    """One area. Raises `Forbidden`, `NotFound`."""
    return await seen(work.areas, work.actor.require("read_area"), area_id)
