"""Who holds what, and where: read from the tables by the database's owner, by code that shares nothing with the policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

ROOT, PARTNER, ADMIN = 1, 2, 3


@dataclass(frozen=True)
class RoleStanding:
    """A role as the tables have it."""

    id: UUID
    hierarchy: int
    partner_company_id: UUID | None
    organization_id: UUID | None
    establishment_id: UUID | None
    actions: frozenset[str]


@dataclass(frozen=True)
class UserStanding:
    """A user as the tables have him."""

    id: UUID
    role: RoleStanding
    partner_company_id: UUID | None
    organization_id: UUID | None
    is_chief: bool
    is_active: bool
    # Establishment -> the role that he has there, None where it is his own.
    places: Mapping[UUID, RoleStanding | None]

    @property
    def hierarchy(self) -> int:
        """How high he stands; 1 is highest."""
        return self.role.hierarchy


@dataclass(frozen=True)
class Standing:
    """Everybody and every role at one moment."""

    roles: Mapping[UUID, RoleStanding]
    users: Mapping[UUID, UserStanding]
    # Establishment -> its organisation; organisation -> its partner company.
    sites: Mapping[UUID, UUID]
    organizations: Mapping[UUID, UUID | None]

    def reached_sites(self, user: UserStanding, action: str | None = None) -> set[UUID]:
        """The establishments that he reaches; with `action` those where he may do it."""
        found = set()
        for site, organization in self.sites.items():
            role = self._role_at(user, site, organization)
            if role is not None and (action is None or action in role.actions):
                found.add(site)
        return found

    def _role_at(self, user: UserStanding, site: UUID, organization: UUID) -> RoleStanding | None:
        if user.hierarchy == ROOT:
            return user.role
        if user.hierarchy == PARTNER:
            return user.role if self.organizations[organization] == user.partner_company_id else None
        if user.organization_id != organization:
            return None
        if user.hierarchy == ADMIN and user.is_chief:
            return user.role
        return (user.places[site] or user.role) if site in user.places else None

    def holds(self, user: UserStanding, action: str) -> bool:
        """Whether he may do the action anywhere at all."""
        return action in user.role.actions or bool(self.reached_sites(user, action))


def read_standing(database_url: str) -> Standing:
    """Read it all."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        roles = {
            row["id"]: RoleStanding(**{**row, "actions": frozenset(row["actions"])})
            for row in connection.execute(
                "select id, hierarchy, partner_company_id, organization_id, establishment_id,"
                " array(select action_name from permissions where role_id = roles.id) as actions from roles"
            )
        }
        places: dict[UUID, dict[UUID, RoleStanding | None]] = {}
        for row in connection.execute("select user_id, establishment_id, role_id from user_establishments"):
            there = None if row["role_id"] is None else roles[row["role_id"]]
            places.setdefault(row["user_id"], {})[row["establishment_id"]] = there
        users = {
            row["id"]: UserStanding(
                id=row["id"],
                role=roles[row["role_id"]],
                partner_company_id=row["partner_company_id"],
                organization_id=row["organization_id"],
                is_chief=row["has_all_establishments"],
                is_active=row["is_active"],
                places=places.get(row["id"], {}),
            )
            for row in connection.execute("select * from users")
        }
        sites = {row["id"]: row["organization_id"] for row in connection.execute("select * from establishments")}
        owners = {row["id"]: row["partner_company_id"] for row in connection.execute("select * from organizations")}
    return Standing(roles, users, sites, owners)
