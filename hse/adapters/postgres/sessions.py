"""The sessions that have not ended, as people see them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import sqlalchemy as sa

from hse.adapters.postgres.identity_tables import sessions, users
from hse.adapters.postgres.reach import OwnerScope
from hse.adapters.postgres.stores import ActorTransaction, TableStore
from hse.domain.identity.session_control import Session
from hse.domain.policy import Reach

OWNER = OwnerScope(users.c.partner_company_id, users.c.organization_id)
IS_ALIVE = sa.and_(sessions.c.revoked_at.is_(None), sessions.c.expires_at > sa.func.now())


@dataclass(frozen=True, slots=True)
class PersonScope:
    """Of what belongs to a person."""

    user_id: sa.Column[Any]

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        if reach.is_everything:
            return IS_ALIVE
        return sa.and_(IS_ALIVE, self.user_id.in_(sa.select(users.c.id).where(OWNER.within(reach))))


class Sessions(TableStore[Session]):
    """The sessions that have not ended."""

    entity = "session"
    table = sessions
    view = Session
    scope = PersonScope(sessions.c.user_id)
    sorts = ("created_at", "last_used_at", "expires_at")
    searched = ("user_agent",)
    constraints: ClassVar[Mapping[str, str]] = {}

    def __init__(self, transaction: ActorTransaction) -> None:
        super().__init__(transaction)
        self._current = transaction.actor.session_id

    @classmethod
    def columns(cls) -> list[sa.ColumnElement[Any]]:
        """The columns of the view, but for which of them is the one that asks."""
        names = [item.name for item in fields(Session) if item.name != "is_current"]
        return [
            sa.func.host(sessions.c.address).label(name) if name == "address" else sessions.c[name] for name in names
        ]

    def _view(self, row: sa.Row[Any]) -> Session:
        return Session(**row._mapping, is_current=row.id == self._current)
