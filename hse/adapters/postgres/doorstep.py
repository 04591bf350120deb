"""The transaction of somebody who holds an invitation's token, and has no account yet."""

from datetime import datetime
from uuid import UUID

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.identity_tables import credentials, invitations, user_establishments, users
from hse.adapters.postgres.work import Origin, add_audit_entry
from hse.domain.identity.invitations import InvitationVoid
from hse.domain.identity.model import OpenInvitation
from hse.domain.work import Record

OPEN = sa.text("select * from hse_open_invitation(:token_hash)")


class PostgresDoorstep:
    """A transaction in the scope of signing in: what it shows of tenants is what the token opens."""

    def __init__(self, connection: AsyncConnection, origin: Origin, now: datetime) -> None:
        self._connection = connection
        self._origin = origin
        self.now = now

    async def open(self, token_hash: bytes) -> OpenInvitation | None:
        """The pending invitation of this token, which nobody else answers meanwhile; None when there is none that holds."""
        row = (await self._connection.execute(OPEN, {"token_hash": token_hash})).one_or_none()
        return None if row is None else OpenInvitation(**row._mapping)

    async def admit(
        self, invitation: OpenInvitation, first_name: str, last_name: str, password_hash: str
    ) -> UUID | None:
        """Make the account that was offered; None when the address has one already. Raises `InvitationVoid`."""
        try:
            return await self._admit(invitation, first_name, last_name, password_hash)
        except sa.exc.IntegrityError as error:
            # The role or an establishment was deleted since the invitation was opened.
            if isinstance(error.orig, psycopg.errors.ForeignKeyViolation):
                raise InvitationVoid from error
            raise

    async def _admit(
        self, invitation: OpenInvitation, first_name: str, last_name: str, password_hash: str
    ) -> UUID | None:
        values = {
            "email": invitation.email,
            "first_name": first_name,
            "last_name": last_name,
            "role_id": invitation.role_id,
            "partner_company_id": invitation.partner_company_id,
            "organization_id": invitation.organization_id,
            "has_all_establishments": invitation.has_all_establishments,
            "email_verified": True,
        }
        made = insert(users).values(**values).on_conflict_do_nothing().returning(users.c.id)
        user_id: UUID | None = (await self._connection.execute(made)).scalar_one_or_none()
        if user_id is None:
            return None
        proof = sa.insert(credentials).values(user_id=user_id, password_hash=password_hash)
        await self._connection.execute(proof)
        places = [{"user_id": user_id, "establishment_id": place} for place in invitation.establishment_ids]
        if places:
            await self._connection.execute(sa.insert(user_establishments).values(places))
        await self._record(invitation, "user.create", "user", user_id, user_id)
        return user_id

    async def answer(self, invitation: OpenInvitation, status: str, user_id: UUID | None) -> None:
        """Write down that the invitation was answered."""
        await self._connection.execute(
            sa.update(invitations)
            .where(invitations.c.id == invitation.id)
            .values(status=status, answered_at=self.now, user_id=user_id)
        )
        await self._record(invitation, f"invitation.{status}", "invitation", invitation.id, user_id)

    async def _record(
        self, invitation: OpenInvitation, action: str, entity: str, entity_id: UUID, user_id: UUID | None
    ) -> None:
        record = Record(
            action=action,
            entity_type=entity,
            entity_id=str(entity_id),
            partner_company_id=invitation.partner_company_id,
            organization_id=invitation.organization_id,
            after={"email": invitation.email, "role": invitation.role_name},
        )
        await add_audit_entry(self._connection, record, self._origin, None, user_id=user_id)
