"""A small world of tenants and people, made by the database's owner, with an access token for each of them.

Two partner companies; an organisation under each, and one that the operator looks after; two establishments in the first, each
with an area and a device; and people of every level.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from argon2 import PasswordHasher

from hse.adapters.passwords import LANES, MEMORY_KIB, PASSES
from hse.adapters.tokens import AccessTokens, new_key

# What everybody's password is who has one.
PASSWORD = "seven otters juggle plums"
SECRET_KEY = "a secret key for tests, long enough to be taken"
TOKENS = AccessTokens(SECRET_KEY)


@functools.cache
def _hash_of_password() -> str:
    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES).hash(PASSWORD)


@dataclass
class Person:
    """Somebody who can act, with a session of his own."""

    id: UUID
    email: str
    session_id: UUID
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What his requests carry."""
        return {"Authorization": f"Bearer {self.token}"}


@dataclass
class Site:
    """An establishment with one area and one device in it."""

    id: UUID
    area_id: UUID
    device_id: UUID
    name: str


@dataclass
class Tenant:
    """An organisation."""

    id: UUID
    sites: list[Site]


class World:
    """Makes tenants and people; the attributes are the world that every test finds."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        with psycopg.connect(database_url) as connection:
            self._connection = connection
            self.partner_company = self.add_partner_company("Alpha")
            self.other_partner_company = self.add_partner_company("Beta")
            self.tenant = self.add_tenant("Acme", self.partner_company, num_sites=2)
            self.other_tenant = self.add_tenant("Bolt", self.other_partner_company)
            self.direct_tenant = self.add_tenant("Core", None)
            self.root = self.add_person("root@example.com", "root")
            self.partner = self.add_person("partner@example.com", "partner", partner_company_id=self.partner_company)
            self.other_partner = self.add_person(
                "other-partner@example.com", "partner", partner_company_id=self.other_partner_company
            )
            own = self.tenant.id
            self.chief = self.add_person("chief@example.com", "admin", organization_id=own, is_chief=True)
            first, second = self.tenant.sites
            self.admin = self.add_person("admin@example.com", "admin", organization_id=own, sites=[first])
            self.other_site_admin = self.add_person("second@example.com", "admin", organization_id=own, sites=[second])
            self.user = self.add_person("user@example.com", "user", organization_id=own, sites=[first])
            self.second_user = self.add_person("user-2@example.com", "user", organization_id=own, sites=[first])
            self.custom_role = self.add_role(
                "device keeper", ["read_establishment", "read_device", "update_device"], organization_id=own
            )
            self.custom = self.add_person("custom@example.com", self.custom_role, organization_id=own, sites=[first])
            self.second_site_role = self.add_role(
                "second keeper", ["read_device"], organization_id=own, establishment_id=second.id
            )
            self.foreign_role = self.add_role("foreign keeper", [], organization_id=self.other_tenant.id)
            self.user_role = self._insert("select id from roles where type = 'system' and name = 'user'")
            self.direct_role = self.add_role("direct keeper", [], organization_id=self.direct_tenant.id)
            self.other_chief = self.add_person(
                "other-chief@example.com", "admin", organization_id=self.other_tenant.id, is_chief=True
            )
            connection.commit()

    @property
    def people(self) -> list[Person]:
        """Everybody."""
        return [one for one in vars(self).values() if isinstance(one, Person)]

    def add_sites(self, count: int, *, areas_each: int) -> None:
        """Add establishments to the first tenant, "Site 1" and so on, with areas "Area 1" and so on."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "with made as (insert into establishments (organization_id, name, timezone)"
                " select %(tenant)s, 'Site ' || number, 'America/Santiago' from generate_series(1, %(count)s) number returning id)"
                " insert into areas (organization_id, establishment_id, name, type)"
                " select %(tenant)s, made.id, 'Area ' || number, 'office' from made, generate_series(1, %(areas)s) number",
                {"tenant": self.tenant.id, "count": count, "areas": areas_each},
            )

    def rename(self, site: Site, name: str) -> None:
        """Give an establishment another name."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute("update establishments set name = %s where id = %s", [name, site.id])

    def revoke(self, person: Person) -> None:
        """End somebody's session; his token is still good to look at."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute("update sessions set revoked_at = now() where id = %s", [person.session_id])

    def add_partner_company(self, name: str) -> UUID:
        """Add a partner company."""
        return self._insert("insert into partner_companies (name) values (%s) returning id", name)

    def add_tenant(self, name: str, partner_company_id: UUID | None, *, num_sites: int = 1) -> Tenant:
        """Add an organisation with sites."""
        tenant_id = self._insert(
            "insert into organizations (name, partner_company_id) values (%s, %s) returning id",
            name,
            partner_company_id,
        )
        return Tenant(tenant_id, [self.add_site(tenant_id, f"{name} {number + 1}") for number in range(num_sites)])

    def add_site(self, organization_id: UUID, name: str) -> Site:
        """Add an establishment with an area and a device."""
        site = self._insert(
            "insert into establishments (organization_id, name, timezone) values (%s, %s, 'America/Santiago') returning id",
            organization_id,
            name,
        )
        area = self._insert(
            "insert into areas (organization_id, establishment_id, name, type) values (%s, %s, 'Hall', 'office') returning id",
            organization_id,
            site,
        )
        device = self._insert(
            "insert into devices (organization_id, establishment_id, area_id, name) values (%s, %s, %s, %s) returning id",
            organization_id,
            site,
            area,
            f"{name} meter",
        )
        return Site(site, area, device, name)

    def add_role(
        self,
        name: str,
        actions: list[str],
        *,
        partner_company_id: UUID | None = None,
        organization_id: UUID | None = None,
        establishment_id: UUID | None = None,
    ) -> UUID:
        """Add a custom role."""
        role = self._insert(
            "insert into roles (name, type, hierarchy, partner_company_id, organization_id, establishment_id)"
            " values (%s, 'custom', 5, %s, %s, %s) returning id",
            name,
            partner_company_id,
            organization_id,
            establishment_id,
        )
        for action in actions:
            self._connection.execute("insert into permissions (role_id, action_name) values (%s, %s)", [role, action])
        return role

    def add_person(
        self,
        email: str,
        role: str | UUID,
        *,
        partner_company_id: UUID | None = None,
        organization_id: UUID | None = None,
        sites: list[Site] | None = None,
        is_chief: bool = False,
    ) -> Person:
        """Add a user with a session; `role` names a system role or is a custom one's id."""
        role_id = role
        if isinstance(role, str):
            role_id = self._insert("select id from roles where type = 'system' and name = %s", role)
        user_id = self._insert(
            "insert into users (email, first_name, last_name, role_id, partner_company_id, organization_id,"
            " has_all_establishments, email_verified) values (%s, 'Ana', 'Soto', %s, %s, %s, %s, true) returning id",
            email,
            role_id,
            partner_company_id,
            organization_id,
            is_chief,
        )
        for site in sites or []:
            self._connection.execute(
                "insert into user_establishments (user_id, establishment_id) values (%s, %s)", [user_id, site.id]
            )
        return self._signed_in(user_id, email)

    def sign_in(self, user_id: UUID, email: str) -> Person:
        """Begin a session of somebody who is there, while a test runs."""
        with psycopg.connect(self.database_url) as self._connection:
            return self._signed_in(user_id, email)

    def _signed_in(self, user_id: UUID, email: str) -> Person:
        now = datetime.now(UTC)
        session_id = self._insert(
            "insert into sessions (id, user_id, expires_at) values (%s, %s, %s) returning id",
            uuid4(),
            user_id,
            now + timedelta(days=7),
        )
        return Person(user_id, email, session_id, TOKENS.issue(user_id, session_id, now))

    def give_password(self, person: Person) -> None:
        """Let somebody sign in with `PASSWORD`."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "insert into credentials (user_id, password_hash) values (%s, %s)", [person.id, _hash_of_password()]
            )

    def new_api_key(self, person: Person, name: str = "a key") -> UUID:
        """Add an API key that nobody knows the secret of."""
        with psycopg.connect(self.database_url) as self._connection:
            return self._insert(
                "insert into api_keys (user_id, name, prefix, secret_hash, actions, requests_per_minute) values"
                " (%s, %s, %s, decode(repeat('00', 32), 'hex'), '{read_area}', 60) returning id",
                person.id,
                name,
                uuid4().hex,
            )

    def new_invitation(self, tenant: Tenant, site: Site) -> UUID:
        """Add an invitation to a site that nobody has the token of."""
        return self._new_invitation(self.user_role, organization_id=tenant.id, establishment_ids=[site.id])

    def new_invitation_to_company(self, partner_company_id: UUID, role_id: UUID) -> UUID:
        """Add an invitation to a partner company that nobody has the token of."""
        return self._new_invitation(role_id, partner_company_id=partner_company_id)

    def _new_invitation(
        self,
        role_id: UUID,
        *,
        partner_company_id: UUID | None = None,
        organization_id: UUID | None = None,
        establishment_ids: Sequence[UUID] = (),
    ) -> UUID:
        with psycopg.connect(self.database_url) as self._connection:
            return self._insert(
                "insert into invitations (email, first_name, last_name, role_id, partner_company_id, organization_id,"
                " establishment_ids, token_hash, expires_at)"
                " values (%s, 'Nora', 'Paz', %s, %s, %s, %s::uuid[], sha256(%s), now() + interval '7 days') returning id",
                f"{uuid4().hex}@example.org",
                role_id,
                partner_company_id,
                organization_id,
                [*establishment_ids],
                uuid4().bytes,
            )

    def new_command(self, tenant: Tenant, site: Site, *, group_id: UUID | None = None) -> UUID:
        """Add a command that waits for the device of a site."""
        with psycopg.connect(self.database_url) as self._connection:
            return self._insert(
                "insert into device_commands (organization_id, establishment_id, device_id, created_by, type, group_id, deadline)"
                " values (%s, %s, %s, %s, 'ping', %s, now() + interval '1 hour') returning id",
                tenant.id,
                site.id,
                site.device_id,
                self.root.id,
                group_id,
            )

    def new_command_group(self, tenant: Tenant, site: Site, *, kind: str = "ping") -> UUID:
        """Add a command to many that went to the device of one site."""
        group_id = uuid4()
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "insert into device_command_groups (id, organization_id, created_by, type, target, deadline, num_commands)"
                " values (%s, %s, %s, %s, '{}', now() + interval '1 hour', 1)",
                [group_id, tenant.id, self.root.id, kind],
            )
        self.new_command(tenant, site, group_id=group_id)
        return group_id

    def new_alarm(self, tenant: Tenant, site: Site) -> UUID:
        """Add an alarm of a site's device that is on."""
        with psycopg.connect(self.database_url) as self._connection:
            return self._insert(
                "insert into device_alarms (organization_id, establishment_id, device_id, type, severity, state, raised_at,"
                " last_reported_at) values (%s, %s, %s, 'smoke', 'major', 'active', now(), now()) returning id",
                tenant.id,
                site.id,
                site.device_id,
            )

    def add_device_now(self, site: Site) -> UUID:
        """Add a device of a site while a test runs."""
        with psycopg.connect(self.database_url) as self._connection:
            return self._insert(
                "insert into devices (organization_id, establishment_id, name)"
                " select organization_id, id, 'New' from establishments where id = %s returning id",
                site.id,
            )

    def new_audit_entry(self, tenant: Tenant, site: Site, *, actor: Person, partner_company_id: UUID | None) -> str:
        """Add an entry about what somebody did at a site; returns the id of the thing that he did it to."""
        thing = uuid4()
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "insert into audit_entries (actor_kind, actor_id, action, entity_type, entity_id, partner_company_id,"
                " organization_id, establishment_id) values ('user', %s, 'area.update', 'area', %s, %s, %s, %s)",
                [actor.id, str(thing), partner_company_id, tenant.id, site.id],
            )
        return str(thing)

    def add_part(self, tenant: Tenant, site: Site) -> UUID:
        """Add an area in the area of a site."""
        with psycopg.connect(self.database_url) as self._connection:
            return self._insert(
                "insert into areas (organization_id, establishment_id, parent_area_id, name, type)"
                " values (%s, %s, %s, 'Part', 'office') returning id",
                tenant.id,
                site.id,
                site.area_id,
            )

    def add_child(self, tenant: Tenant, site: Site, area_id: UUID) -> UUID:
        """Add a device in this area, for which the site's device speaks."""
        with psycopg.connect(self.database_url) as self._connection:
            return self._insert(
                "insert into devices (organization_id, establishment_id, area_id, gateway_id, name)"
                " values (%s, %s, %s, %s, 'child') returning id",
                tenant.id,
                site.id,
                area_id,
                site.device_id,
            )

    def add_role_now(self, name: str, actions: list[str], **bound_to: UUID) -> UUID:
        """Add a custom role while a test runs."""
        with psycopg.connect(self.database_url) as self._connection:
            return self.add_role(name, actions, **bound_to)

    def give_role_at(self, person: Person, site: Site, role_id: UUID) -> None:
        """Give somebody another role at a site where he works."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "update user_establishments set role_id = %s where user_id = %s and establishment_id = %s",
                [role_id, person.id, site.id],
            )

    def add_tenant_now(self, name: str) -> Tenant:
        """Add an organisation without a partner company and without sites while a test runs."""
        with psycopg.connect(self.database_url) as self._connection:
            return self.add_tenant(name, None, num_sites=0)

    def add_person_now(self, email: str, role: str | UUID, **more: Any) -> Person:
        """Add a user while a test runs."""
        with psycopg.connect(self.database_url) as self._connection:
            return self.add_person(email, role, **more)

    def add_api_key(self, person: Person, actions: list[str], *, requests_per_minute: int = 1000) -> str:
        """Give somebody an API key that holds these actions."""
        key = new_key()
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "insert into api_keys (user_id, name, prefix, secret_hash, actions, requests_per_minute)"
                " values (%s, 'key', %s, %s, %s, %s)",
                [person.id, key.prefix, key.secret_hash, actions, requests_per_minute],
            )
        return key.text

    def _insert(self, statement: str, *values: object) -> UUID:
        row = self._connection.execute(statement.encode(), values).fetchone()
        assert row is not None
        return UUID(str(row[0]))
