"""Who holds what, and where: read from the tables by the database's owner, by code that shares nothing with the policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

ROOT, PARTNER, ADMIN, USER, CUSTOM = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class RoleStanding:
    """A role as the tables have it."""

    id: UUID
    name: str
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

    @property
    def terms(self) -> tuple[object, ...]:
        """What is his, whatever the roles hold that he has."""
        there = {site: None if role is None else role.id for site, role in self.places.items()}
        return self.role.id, self.partner_company_id, self.organization_id, self.is_chief, self.is_active, there


@dataclass(frozen=True)
class Standing:
    """Everybody and every role at one moment. In an order that does not hang on their ids, which are others in every run."""

    roles: Mapping[UUID, RoleStanding]
    users: Mapping[UUID, UserStanding]
    # Establishment -> its organisation; organisation -> its partner company.
    sites: Mapping[UUID, UUID]
    organizations: Mapping[UUID, UUID | None]
    # The organisations and partner companies that are disabled.
    disabled: frozenset[UUID]

    def is_admitted(self, user: UserStanding) -> bool:
        """Whether he may do anything at all: he is enabled, and so is whom he belongs to."""
        return user.is_active and not any(self.belongs_to(user, owner) for owner in self.disabled)

    def belongs_to(self, user: UserStanding, owner: UUID) -> bool:
        """Whether he is somebody of this organisation, or of this partner company or an organisation that it looks after."""
        organization = user.organization_id
        company = user.partner_company_id if organization is None else self.organizations[organization]
        return owner in (organization, company)

    def belongs_within(self, user: UserStanding, partner_company_id: UUID | None, organization_id: UUID | None) -> bool:
        """Whether what belongs to this company or organisation is his to look after, as far as he may do anything with it."""
        if user.hierarchy == ROOT:
            return True
        if user.hierarchy == PARTNER:
            company = partner_company_id if organization_id is None else self.organizations[organization_id]
            return company == user.partner_company_id
        return organization_id is not None and organization_id == user.organization_id

    def seen_people(self, user: UserStanding) -> set[UUID]:
        """The people that he may see, once he holds `read_user` in his own role: at an establishment it shows nobody."""
        if "read_user" not in user.role.actions:
            return set()
        return {
            other.id
            for other in self.users.values()
            if self.belongs_within(user, other.partner_company_id, other.organization_id)
        }

    def changes_since(self, before: "Standing") -> set[UUID]:
        """The ids of everything that is not as it was: of people, roles, establishments, organisations and companies."""
        kinds: list[tuple[Mapping[UUID, object], Mapping[UUID, object]]] = [
            (before.roles, self.roles),
            ({one.id: one.terms for one in before.users.values()}, {one.id: one.terms for one in self.users.values()}),
            (before.sites, self.sites),
            (before.organizations, self.organizations),
        ]
        found = set(before.disabled ^ self.disabled)
        for was, is_ in kinds:
            found |= {one for one in was.keys() | is_.keys() if was.get(one) != is_.get(one)}
        return found

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

    def holds_for(
        self, user: UserStanding, action: str, partner_company_id: UUID | None, organization_id: UUID | None
    ) -> bool:
        """Whether he may do the action to what belongs to this company or organisation itself."""
        return action in user.role.actions and self.belongs_within(user, partner_company_id, organization_id)

    def places_of(self, role: RoleStanding) -> set[UUID]:
        """The establishments at which somebody has the role."""
        return {
            site
            for user in self.users.values()
            for site, there in user.places.items()
            if role.id == (user.role if there is None else there).id
        }


def read_standing(database_url: str) -> Standing:
    """Read it all."""
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        roles = {
            row["id"]: RoleStanding(**{**row, "actions": frozenset(row["actions"])})
            for row in connection.execute(
                "select id, name, hierarchy, partner_company_id, organization_id, establishment_id,"
                " array(select action_name from permissions where role_id = roles.id) as actions from roles"
                " order by hierarchy, name"
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
        sites = {
            row["id"]: row["organization_id"]
            for row in connection.execute("select * from establishments order by name")
        }
        organizations = connection.execute("select * from organizations order by name")
        owners = {row["id"]: row["partner_company_id"] for row in organizations}
        disabled = connection.execute(
            "select id from organizations where not is_active union select id from partner_companies where not is_active"
        )
        return Standing(roles, users, sites, owners, frozenset(row["id"] for row in disabled))
