"""People in the database, and where they work."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa

from hse.adapters.postgres.identity_tables import roles, user_establishments, users
from hse.adapters.postgres.people import end_access_of
from hse.adapters.postgres.reach import OwnerScope
from hse.adapters.postgres.stores import TableStore, Transaction
from hse.domain.identity.audit import ASSIGNED_PLACES
from hse.domain.identity.model import Assignment, User
from hse.domain.paging import PageQuery
from hse.domain.policy import Level
from hse.domain.work import Record

HIERARCHY = sa.select(roles.c.hierarchy).where(roles.c.id == users.c.role_id).correlate(users).scalar_subquery()


class Users(TableStore[User]):
    """The people."""

    entity = "user"
    table = users
    view = User
    scope = OwnerScope(users.c.partner_company_id, users.c.organization_id)
    sorts = ("last_name", "first_name", "email", "created_at", "updated_at")
    searched = ("first_name", "last_name", "email")
    constraints: ClassVar[Mapping[str, str]] = {"users_email": "email"}

    @classmethod
    def columns(cls) -> list[sa.ColumnElement[Any]]:
        """The columns of the view."""
        return [
            HIERARCHY.label("hierarchy") if item.name == "hierarchy" else users.c[item.name] for item in fields(User)
        ]

    async def lock(self, user_id: UUID) -> None:
        """Until this transaction ends, nobody else changes this person or where he works."""
        # Not against keys: he may sign in meanwhile.
        lock = sa.select(users.c.id).where(users.c.id == user_id).with_for_update(key_share=True)
        await self._execute(lock)

    async def lock_roots(self, *, besides: UUID) -> int:
        """How many active roots there are beside this one; that stays so until this transaction ends."""
        lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended("the last root", 0))
        await self._connection.execute(sa.select(lock))
        others = (
            sa.select(sa.func.count())
            .select_from(users.join(roles, roles.c.id == users.c.role_id))
            .where(roles.c.hierarchy == Level.ROOT, users.c.is_active, users.c.id != besides)
        )
        return int((await self._connection.execute(others)).scalar_one())

    async def end_access_of(self, user_id: UUID) -> None:
        """End a person's sessions and API keys."""
        await end_access_of(self._connection, sa.select(users.c.id).where(users.c.id == user_id), "disabled")

    def _conditions(self, query: PageQuery) -> list[sa.ColumnElement[bool]]:
        filters = dict(query.filters)
        establishment_id = filters.pop("establishment_id", None)
        conditions = super()._conditions(PageQuery(search=query.search, filters=filters))
        if establishment_id is not None:
            conditions.append(_works_at(sa.literal(establishment_id, sa.Uuid)))
        return conditions

    def _belongs(self, column: str, parent: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The condition that a person belongs to a parent; to an establishment, that he works there."""
        return _works_at(parent) if column == "establishment_id" else super()._belongs(column, parent)


class Assignments:
    """Where people work."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def of(self, user_id: UUID) -> list[Assignment]:
        """Where a person works, wherever that is."""
        statement = (
            sa.select(*(user_establishments.c[item.name] for item in fields(Assignment)))
            .where(user_establishments.c.user_id == user_id)
            .order_by(user_establishments.c.establishment_id)
        )
        return [Assignment(**row._mapping) for row in await self._connection.execute(statement)]

    async def replace(self, user: User, wanted: Mapping[UUID, UUID | None], kept: Sequence[Assignment]) -> None:
        """Let a person work at these establishments, with these roles, and where he is kept; nowhere else."""
        before = {one.establishment_id: one.role_id for one in await self.of(user.id)}
        after = {**{one.establishment_id: one.role_id for one in kept}, **wanted}
        if before == after:
            return
        changed = [place for place, role_id in after.items() if before.get(place, user.id) != role_id]
        gone = [place for place in before if place not in after]
        there = user_establishments.c
        await self._connection.execute(
            sa.delete(user_establishments).where(there.user_id == user.id, there.establishment_id.in_(changed + gone))
        )
        rows = [
            {
                "user_id": user.id,
                "establishment_id": place,
                "role_id": after[place],
                "assigned_by": self._transaction.actor_id,
            }
            for place in changed
        ]
        if rows:
            await self._connection.execute(sa.insert(user_establishments).values(rows))
        await self._transaction.record(
            Record(
                action=ASSIGNED_PLACES,
                entity_type="user",
                entity_id=str(user.id),
                partner_company_id=user.partner_company_id,
                organization_id=user.organization_id,
                before=_as_json(before),
                after=_as_json(after),
            )
        )


def _works_at(establishment_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    assigned = user_establishments.c
    is_there = sa.exists().where(assigned.user_id == users.c.id, assigned.establishment_id == establishment_id)
    return is_there.correlate_except(user_establishments)


def _as_json(places: Mapping[UUID, UUID | None]) -> dict[str, str | None]:
    return {str(place): None if role_id is None else str(role_id) for place, role_id in places.items()}
