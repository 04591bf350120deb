"""Invitations in the database, for those who invite."""

from collections.abc import Mapping
from typing import ClassVar

from hse.adapters.postgres.identity_tables import invitations
from hse.adapters.postgres.reach import OwnerScope
from hse.adapters.postgres.stores import TableStore
from hse.domain.identity.model import Invitation


class Invitations(TableStore[Invitation]):
    """The invitations."""

    entity = "invitation"
    table = invitations
    view = Invitation
    scope = OwnerScope(invitations.c.partner_company_id, invitations.c.organization_id)
    sorts = ("email", "created_at", "expires_at")
    searched = ("first_name", "last_name", "email")
    constraints: ClassVar[Mapping[str, str]] = {"invitations_pending": "email", "invitations_role_id_fkey": "role_id"}
