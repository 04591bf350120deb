"""Actions and roles in the database, each role with what it holds."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from hse.adapters.postgres.identity_tables import actions, invitations, permissions, roles, user_establishments, users
from hse.adapters.postgres.reach import OwnerScope, SiteScope
from hse.adapters.postgres.stores import TableStore
from hse.domain.errors import Stale
from hse.domain.identity.model import Action, Role
from hse.domain.policy import Reach

HELD = sa.func.array(
    sa.select(permissions.c.action_name)
    .where(permissions.c.role_id == roles.c.id)
    .order_by(permissions.c.action_name)
    .correlate(roles)
    .scalar_subquery(),
    type_=ARRAY(sa.Text),
)


class Actions:
    """The catalogue."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def all(self) -> Mapping[str, Action]:
        """Every action, by its name."""
        rows = await self._connection.execute(sa.select(*(actions.c[item.name] for item in fields(Action))))
        return {row.name: Action(**row._mapping) for row in rows}


@dataclass(frozen=True, slots=True)
class RoleScope:
    """Everybody sees the roles that are bound to nobody; those of an establishment, who sees what stands there."""

    def within(self, reach: Reach) -> sa.ColumnElement[bool]:
        """The condition that a row within the reach meets."""
        of_owner = OwnerScope(roles.c.partner_company_id, roles.c.organization_id).within(reach)
        of_site = SiteScope(roles.c.organization_id, roles.c.establishment_id).within(reach)
        return sa.or_(
            sa.and_(roles.c.partner_company_id.is_(None), roles.c.organization_id.is_(None)),
            sa.and_(roles.c.establishment_id.is_(None), of_owner),
            sa.and_(roles.c.establishment_id.is_not(None), of_site),
        )


class Roles(TableStore[Role]):
    """The roles."""

    entity = "role"
    table = roles
    view = Role
    scope = RoleScope()
    sorts = ("hierarchy", "name", "created_at", "updated_at")
    constraints: ClassVar[Mapping[str, str]] = {
        "permissions_exclusive": "actions",
        "permissions_hierarchy": "actions",
    }

    @classmethod
    def columns(cls) -> list[sa.ColumnElement[Any]]:
        """The columns of the view."""
        return [HELD.label("actions") if item.name == "actions" else roles.c[item.name] for item in fields(Role)]

    async def add(self, values: Mapping[str, Any]) -> Role:
        """Add a role with what it holds. Raises `Taken`, `Invalid`."""
        row = {name: value for name, value in values.items() if name != "actions"}
        role_id = (await self._execute(sa.insert(roles).values(**row).returning(roles.c.id))).scalar_one()
        await self._grant(role_id, values["actions"], values["created_by"])
        after = await self._read(role_id)
        await self._record("create", None, after)
        return after

    async def change(self, before: Role, changes: Mapping[str, Any], *, version: int | None = None) -> Role:
        """Change a role, and what it holds. Raises `Taken`, `Stale`, `Invalid`."""
        if version is not None and version != before.version:
            raise Stale(self.entity)
        changes = {name: value for name, value in changes.items() if getattr(before, name) != value}
        if not changes:
            return before
        held: list[str] = changes.pop("actions", before.actions)
        # The name stands for a change that is in another table: the version counts it all the same.
        statement = (
            sa.update(roles)
            .where(roles.c.id == before.id, roles.c.version == before.version)
            .values(**{"name": before.name, **changes})
            .returning(roles.c.id)
        )
        if (await self._execute(statement)).one_or_none() is None:
            raise Stale(self.entity)
        gone = sorted(set(before.actions) - set(held))
        if gone:
            is_gone = (permissions.c.role_id == before.id, permissions.c.action_name.in_(gone))
            await self._execute(sa.delete(permissions).where(*is_gone))
        await self._grant(before.id, sorted(set(held) - set(before.actions)), self._transaction.actor_id)
        after = await self._read(before.id)
        await self._record("update", before, after)
        return after

    async def remove(self, before: Role) -> None:
        """Delete a role. Raises `InUse`."""
        # First those who answer an invitation to it, then the role: they take the two in this order, too.
        answered = sa.select(invitations.c.id).where(invitations.c.role_id == before.id).order_by(invitations.c.id)
        await self._connection.execute(answered.with_for_update())
        await super().remove(before)

    async def lock(self, role_id: UUID, *, is_shared: bool = False) -> None:
        """Until this transaction ends, nobody changes the role, and unless it is shared nobody gives it to anybody.

        By an advisory lock: row-level security lets only root lock the row of a system role.
        """
        lock = sa.func.pg_advisory_xact_lock_shared if is_shared else sa.func.pg_advisory_xact_lock
        await self._connection.execute(sa.select(lock(sa.func.hashtextextended(f"role {role_id}", 0))))

    async def places(self, role_id: UUID) -> frozenset[UUID]:
        """The establishments at which somebody has the role, or will have it once he accepts an invitation."""
        there, pending = user_establishments, invitations
        with_role_there = sa.select(there.c.establishment_id).where(there.c.role_id == role_id)
        with_own_role = (
            sa.select(there.c.establishment_id)
            .join(users, users.c.id == there.c.user_id)
            .where(there.c.role_id.is_(None), users.c.role_id == role_id)
        )
        invited = sa.select(sa.func.unnest(pending.c.establishment_ids)).where(
            pending.c.role_id == role_id, pending.c.status == "pending"
        )
        found = await self._connection.execute(sa.union(with_role_there, with_own_role, invited))
        return frozenset(found.scalars())

    async def _read(self, role_id: UUID) -> Role:
        statement = sa.select(*self.columns()).where(roles.c.id == role_id)
        return self._view((await self._connection.execute(statement)).one())

    async def _grant(self, role_id: UUID, names: list[str], granted_by: UUID | None) -> None:
        if names:
            rows = [{"role_id": role_id, "action_name": name, "granted_by": granted_by} for name in names]
            await self._execute(sa.insert(permissions).values(rows))
