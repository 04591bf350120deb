"""Partner companies, organisations, establishments and areas."""

import strawberry

from hse.api.graphql.connections import answer, connection, list_of, reference, single
from hse.api.graphql.entities import AREAS, BOOKINGS, DEVICES, ESTABLISHMENTS, ORGANIZATIONS, PARTNER_COMPANIES, USERS
from hse.api.graphql.mutations import acts, changes, creates
from hse.api.graphql.types import mirrors
from hse.api.rest import organizations as bodies
from hse.domain.organizations import commands, model, queries


@mirrors(model.PartnerAnalytics)
class PartnerAnalytics:
    """What a partner company looks after, in numbers."""


@mirrors(model.PartnerCompany)
class PartnerCompany:
    """A company that looks after organisations for the operator."""

    organizations = list_of(ORGANIZATIONS, "partner_company_id")
    users = list_of(USERS, "partner_company_id")


@mirrors(model.Organization)
class Organization:
    """A customer."""

    partner_company = reference(PARTNER_COMPANIES, "partner_company_id")
    establishments = list_of(ESTABLISHMENTS, "organization_id")
    devices = list_of(DEVICES, "organization_id")
    users = list_of(USERS, "organization_id")


@mirrors(model.Establishment)
class Establishment:
    """A site."""

    organization = reference(ORGANIZATIONS, "organization_id")
    areas = list_of(AREAS, "establishment_id")
    bookings = list_of(BOOKINGS, "establishment_id")
    devices = list_of(DEVICES, "establishment_id")
    users = list_of(USERS, "establishment_id")


@mirrors(model.Area)
class Area:
    """A part of an establishment."""

    organization = reference(ORGANIZATIONS, "organization_id")
    establishment = reference(ESTABLISHMENTS, "establishment_id")
    parent = reference(AREAS, "parent_area_id")
    children = list_of(AREAS, "parent_area_id")
    devices = list_of(DEVICES, "area_id")
    bookings = list_of(BOOKINGS, "area_id")


@strawberry.type
class OrganizationsQuery:
    """What may be read of the noun."""

    partner_company = single(PARTNER_COMPANIES, queries.partner_company)
    partner_companies = connection(PARTNER_COMPANIES)
    organization = single(ORGANIZATIONS, queries.organization)
    organizations = connection(ORGANIZATIONS)
    establishment = single(ESTABLISHMENTS, queries.establishment)
    establishments = connection(ESTABLISHMENTS)
    area = single(AREAS, queries.area)
    areas = connection(AREAS)
    partner_analytics = answer(
        queries.partner_analytics, PartnerAnalytics, "What a partner company looks after, in numbers."
    )


@strawberry.type
class OrganizationsMutation:
    """What may be done to the noun."""

    create_partner_company = creates(
        PARTNER_COMPANIES, bodies.NewPartnerCompany, commands.CreatePartnerCompany, commands.create_partner_company
    )
    change_partner_company = changes(
        PARTNER_COMPANIES, bodies.PartnerCompanyChange, commands.ChangePartnerCompany, commands.change_partner_company
    )
    delete_partner_company = acts(commands.delete_partner_company)
    create_organization = creates(
        ORGANIZATIONS, bodies.NewOrganization, commands.CreateOrganization, commands.create_organization
    )
    change_organization = changes(
        ORGANIZATIONS, bodies.OrganizationChange, commands.ChangeOrganization, commands.change_organization
    )
    delete_organization = acts(commands.delete_organization)
    create_establishment = creates(
        ESTABLISHMENTS, bodies.NewEstablishment, commands.CreateEstablishment, commands.create_establishment
    )
    change_establishment = changes(
        ESTABLISHMENTS, bodies.EstablishmentChange, commands.ChangeEstablishment, commands.change_establishment
    )
    delete_establishment = acts(commands.delete_establishment)
    create_area = creates(AREAS, bodies.NewArea, commands.CreateArea, commands.create_area)
    change_area = changes(AREAS, bodies.AreaChange, commands.ChangeArea, commands.change_area)
    delete_area = acts(commands.delete_area)
