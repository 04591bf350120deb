"""What other nouns ask of the users: an assignment, and the end of access."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.identity_tables import api_keys, sessions, user_establishments, users
from hse.adapters.postgres.stores import Transaction
from hse.adapters.postgres.tables import organizations
from hse.domain.work import Record


class People:
    """The users, as far as other nouns are concerned."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def assign(self, user_id: UUID, establishment_id: UUID) -> None:
        """Let a user work at an establishment with his own role."""
        await self._connection.execute(
            sa.insert(user_establishments).values(
                user_id=user_id, establishment_id=establishment_id, assigned_by=user_id
            )
        )

    async def end_access(self, *, partner_company_id: UUID | None = None, organization_id: UUID | None = None) -> None:
        """End the sessions and API keys of everybody who belongs there, those of a partner's organisations included."""
        if partner_company_id is not None:
            of_partner = sa.select(organizations.c.id).where(organizations.c.partner_company_id == partner_company_id)
            belongs = sa.or_(users.c.partner_company_id == partner_company_id, users.c.organization_id.in_(of_partner))
        else:
            belongs = users.c.organization_id == organization_id
        await end_access_of(self._connection, sa.select(users.c.id).where(belongs), "disabled")
        await self._transaction.record(
            Record(
                action="access.end",
                entity_type="organization" if partner_company_id is None else "partner_company",
                entity_id=str(partner_company_id or organization_id),
                partner_company_id=partner_company_id,
                organization_id=organization_id,
            )
        )


async def end_access_of(connection: AsyncConnection, user_ids: sa.Select[tuple[UUID]], reason: str) -> None:
    """Revoke the sessions and API keys of these users."""
    await connection.execute(
        sa.update(sessions)
        .where(sessions.c.user_id.in_(user_ids), sessions.c.revoked_at.is_(None))
        .values(revoked_at=sa.func.now(), revoked_reason=reason)
    )
    await connection.execute(
        sa.update(api_keys)
        .where(api_keys.c.user_id.in_(user_ids), api_keys.c.revoked_at.is_(None))
        .values(revoked_at=sa.func.now())
    )
