"""Partner companies, organisations, establishments and areas in the database."""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.identity_tables import user_establishments, users
from hse.adapters.postgres.reach import OwnerScope, SiteScope
from hse.adapters.postgres.stores import TableStore
from hse.adapters.postgres.tables import areas, devices, establishments, organizations, partner_companies
from hse.domain.organizations.model import Area, Establishment, Organization, PartnerAnalytics, PartnerCompany


class PartnerCompanies(TableStore[PartnerCompany]):
    """The partner companies."""

    entity = "partner_company"
    table = partner_companies
    view = PartnerCompany
    scope = OwnerScope(partner_companies.c.id)

    async def analytics(self, partner_company_id: UUID) -> PartnerAnalytics:
        """What it looks after, counted now."""
        own = sa.select(organizations.c.id).where(organizations.c.partner_company_id == partner_company_id)

        def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
            return sa.select(sa.func.count()).select_from(table).where(*where).scalar_subquery()

        is_own = organizations.c.partner_company_id == partner_company_id
        is_of_own = devices.c.organization_id.in_(own)
        row = (
            await self._connection.execute(
                sa.select(
                    count(organizations, is_own).label("organizations"),
                    count(organizations, is_own, organizations.c.is_active).label("active_organizations"),
                    count(establishments, establishments.c.organization_id.in_(own)).label("establishments"),
                    count(devices, is_of_own).label("devices"),
                    count(devices, is_of_own, devices.c.is_enabled).label("enabled_devices"),
                    count(
                        users,
                        sa.or_(users.c.partner_company_id == partner_company_id, users.c.organization_id.in_(own)),
                    ).label("users"),
                )
            )
        ).one()
        return PartnerAnalytics(partner_company_id=partner_company_id, **row._mapping)


class Organizations(TableStore[Organization]):
    """The organisations."""

    entity = "organization"
    table = organizations
    view = Organization
    scope = OwnerScope(organizations.c.partner_company_id, organizations.c.id)


class Establishments(TableStore[Establishment]):
    """The establishments."""

    entity = "establishment"
    table = establishments
    view = Establishment
    scope = SiteScope(establishments.c.organization_id, establishments.c.id)

    def _belongs(self, column: str, parent: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The condition that an establishment belongs to a parent; to a user, that he works there."""
        if column != "user_id":
            return super()._belongs(column, parent)
        assigned = user_establishments.c
        works_there = sa.exists().where(assigned.establishment_id == establishments.c.id, assigned.user_id == parent)
        return works_there.correlate_except(user_establishments)

    async def expect(self, establishment_id: UUID) -> None:
        """Bring into reach, for this transaction, an establishment that is about to be made."""
        await self._connection.execute(sa.select(sa.func.hse_expect_establishment(establishment_id)))


class Areas(TableStore[Area]):
    """The areas."""

    entity = "area"
    table = areas
    view = Area
    scope = SiteScope(areas.c.organization_id, areas.c.establishment_id)
    constraints: ClassVar[Mapping[str, str]] = {"areas_parent_is_of_the_establishment": "parent_area_id"}

    async def lock_tree(self, establishment_id: UUID) -> Mapping[UUID, UUID | None]:
        """Each area of the establishment and its parent, under the establishment's lock.

        NO KEY: whoever adds something that stands in the establishment does not wait for it.
        """
        lock = (
            sa.select(establishments.c.id)
            .where(establishments.c.id == establishment_id)
            .with_for_update(key_share=True)
        )
        await self._connection.execute(lock)
        tree = sa.select(areas.c.id, areas.c.parent_area_id).where(areas.c.establishment_id == establishment_id)
        return {row.id: row.parent_area_id for row in await self._connection.execute(tree)}
