"""How far somebody is with his first steps, read in one statement."""

from typing import Any

import sqlalchemy as sa

from hse.adapters.postgres.identity_tables import credentials, invitations, users
from hse.adapters.postgres.stores import ActorTransaction
from hse.adapters.postgres.tables import areas, devices, establishments, organizations, partner_companies
from hse.domain.identity.onboarding import Facts


class OnboardingState:
    """What the actor has, and what there is where he belongs."""

    def __init__(self, transaction: ActorTransaction) -> None:
        self._connection = transaction.connection
        self._actor = transaction.actor

    async def facts(self) -> Facts:
        """How far the actor is."""
        actor = self._actor
        organization_id, partner_company_id = actor.organization_id, actor.partner_company_id
        owner, owner_id = (
            (organizations, organization_id) if organization_id is not None else (partner_companies, partner_company_id)
        )
        is_own = credentials.c.user_id == actor.user_id
        is_invited = (invitations.c.invited_by == actor.user_id) & invitations.c.status.in_(("pending", "accepted"))
        has_details = sa.or_(owner.c.contact_email.is_not(None), owner.c.contact_phone.is_not(None))
        facts: dict[str, sa.ColumnElement[Any]] = {
            "has_verified_email": users.c.email_verified,
            "has_password": _exists(is_own),
            "has_second_factor": _exists(is_own, credentials.c.totp_confirmed_at.is_not(None)),
            "onboarded_at": users.c.onboarded_at,
            "has_details": _exists(owner.c.id == owner_id, has_details),
            "has_organizations": _exists(organizations.c.partner_company_id == partner_company_id),
            "has_establishments": _exists(establishments.c.organization_id == organization_id),
            "has_areas": _exists(areas.c.organization_id == organization_id),
            "has_devices": _exists(devices.c.organization_id == organization_id),
            "has_invited": _exists(is_invited),
        }
        statement = sa.select(*(value.label(name) for name, value in facts.items())).where(users.c.id == actor.user_id)
        return Facts(**(await self._connection.execute(statement)).one()._mapping)


def _exists(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.select(sa.literal(1)).where(*conditions).exists()
