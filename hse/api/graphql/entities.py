"""The entities of the graph: which rows they are, what lets one see them, and how they are listed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hse.adapters.postgres.devices import Devices
from hse.adapters.postgres.organizations import Areas, Establishments, Organizations, PartnerCompanies
from hse.adapters.postgres.stores import TableStore
from hse.adapters.postgres.work import PostgresWork
from hse.domain.devices import queries as devices
from hse.domain.organizations import queries as organizations
from hse.domain.paging import Page, PageQuery


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entity:
    """One kind of thing. `type_name` and `module` say where its GraphQL type stands; `filters` are the columns that lists take."""

    type_name: str
    module: str
    see: str
    rows: type[TableStore[Any]]
    find: Callable[[PostgresWork, UUID], Awaitable[Any]]
    page: Callable[[PostgresWork, PageQuery], Awaitable[Page[Any]]]
    filters: Mapping[str, type[Any]] = field(default_factory=dict)


ORGANIZATIONS_MODULE = "hse.api.graphql.organizations"

PARTNER_COMPANIES = Entity(
    type_name="PartnerCompany",
    module=ORGANIZATIONS_MODULE,
    see="read_partner_company",
    rows=PartnerCompanies,
    find=organizations.partner_company,
    page=organizations.partner_companies,
    filters={"is_active": bool},
)
ORGANIZATIONS = Entity(
    type_name="Organization",
    module=ORGANIZATIONS_MODULE,
    see="read_organization",
    rows=Organizations,
    find=organizations.organization,
    page=organizations.organizations,
    filters={"partner_company_id": UUID, "is_active": bool},
)
ESTABLISHMENTS = Entity(
    type_name="Establishment",
    module=ORGANIZATIONS_MODULE,
    see="read_establishment",
    rows=Establishments,
    find=organizations.establishment,
    page=organizations.establishments,
    filters={"organization_id": UUID, "is_active": bool},
)
AREAS = Entity(
    type_name="Area",
    module=ORGANIZATIONS_MODULE,
    see="read_area",
    rows=Areas,
    find=organizations.area,
    page=organizations.areas,
    filters={"establishment_id": UUID, "parent_area_id": UUID},
)
DEVICES = Entity(
    type_name="Device",
    module="hse.api.graphql.devices",
    see="read_device",
    rows=Devices,
    find=devices.device,
    page=devices.devices,
    filters={
        "organization_id": UUID,
        "establishment_id": UUID,
        "area_id": UUID,
        "gateway_id": UUID,
        "device_type": str,
        "protocol": str,
        "is_enabled": bool,
    },
)
