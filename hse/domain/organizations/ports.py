"""What the noun needs of a transaction."""

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from hse.domain.organizations.model import Area, Establishment, Organization, PartnerAnalytics, PartnerCompany
from hse.domain.work import Store, Work


class AreaStore(Store[Area], Protocol):
    """The areas, and their tree."""

    async def lock_tree(self, establishment_id: UUID) -> Mapping[UUID, UUID | None]:
        """Each area of the establishment and its parent; nobody else moves one until this transaction ends."""


class EstablishmentStore(Store[Establishment], Protocol):
    """The establishments."""

    async def expect(self, establishment_id: UUID) -> None:
        """Bring into reach, for this transaction, an establishment that is about to be made. One that exists stays where it is."""


class PartnerCompanyStore(Store[PartnerCompany], Protocol):
    """The partner companies, and what they look after."""

    async def analytics(self, partner_company_id: UUID) -> PartnerAnalytics:
        """What it looks after, counted now."""


class People(Protocol):
    """What the noun asks of those who keep the users."""

    async def assign(self, user_id: UUID, establishment_id: UUID) -> None:
        """Let a user work at an establishment with his own role."""

    async def end_access(self, *, partner_company_id: UUID | None = None, organization_id: UUID | None = None) -> None:
        """End the sessions and API keys of everybody who belongs there, those of a partner's organisations included."""


class OrganizationsWork(Work, Protocol):
    """A transaction with this noun's stores."""

    @property
    def partner_companies(self) -> PartnerCompanyStore:
        """The partner companies."""

    @property
    def organizations(self) -> Store[Organization]:
        """The organisations."""

    @property
    def establishments(self) -> EstablishmentStore:
        """The establishments."""

    @property
    def areas(self) -> AreaStore:
        """The areas."""

    @property
    def people(self) -> People:
        """The users, as far as this noun is concerned."""
