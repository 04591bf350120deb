"""What the actors act on: a world of their own behind an application, what they know of it, and what is known of them."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

import httpx
import psycopg
from hypothesis import event
from litestar.testing import TestClient

from hse.adapters.postgres.database import Database
from hse.api.app import Parts, create_app
from hse.api.limits import RequestLimits
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.conftest import OUTBOX
from tests.api.mailboxes import letters_to, link_in
from tests.api.permissions.standing import USER, RoleStanding, Standing, UserStanding, read_standing
from tests.api.world import Person, World
from tests.conftest import a_database

# They try a lot in a short time, and are not to be told to wait.
UNLIMITED = RequestLimits(address_per_minute=10**9, user_per_minute=10**9)
# How many tries there are while a tenant is disabled; then it is enabled, or soon nobody could do anything.
DEEDS_DISABLED = 3
# How often they reach out for what is not theirs.
FOREIGN = 0.25
CAST = (
    "root",
    "partner",
    "other_partner",
    *("chief", "admin", "other_site_admin") * 3,
    "user",
    "custom",
    "other_chief",
)


@dataclass(frozen=True)
class Deed:
    """What somebody asked for, and what came of it."""

    actor_id: UUID | None
    answer: httpx.Response
    before: Standing
    after: Standing

    @property
    def is_done(self) -> bool:
        """Whether it was not refused."""
        return self.answer.is_success

    @property
    def actor(self) -> UserStanding:
        """Who did it, as he stood then."""
        assert self.actor_id is not None
        return self.before.users[self.actor_id]

    def changed_only(self, *ids: UUID) -> None:
        """Nothing and nobody is otherwise than before but these."""
        assert self.after.changes_since(self.before) <= set(ids)


@dataclass(frozen=True)
class Offer:
    """An invitation that was made, and the token that only its letter holds."""

    email: str
    token: str
    offered: UserStanding
    invited_by: UUID


class Stage:
    """One world, its people with their sessions, and the standing of all as it was read last."""

    def __init__(self, server: EmbeddedPostgres, template: str, parts: Parts, stack: ExitStack) -> None:
        self.url = stack.enter_context(a_database(server, template))
        self.world = World(self.url)
        api_url = server.api_url(self.url.rsplit("/", 1)[1])
        open_database = partial(Database, api_url, pool_size=2, outbox=OUTBOX)
        app = create_app(replace(parts, open_database=open_database, limits=UNLIMITED))
        self._client = stack.enter_context(TestClient(app))
        self.people: dict[UUID, Person] = {getattr(self.world, name).id: getattr(self.world, name) for name in CAST}
        self.newcomers: list[UUID] = []
        self.offers: list[Offer] = []
        # The establishments that were made here, and have nothing in them.
        self.made: list[UUID] = []
        # Those whose sessions were ended when they, or whom they belong to, were disabled.
        self.shut_out: set[UUID] = set()
        self.standing = read_standing(self.url)
        # Whom the last deed was about.
        self.touched: set[UUID] = set()
        self.num_deeds = 0
        self._disabled_until = 0

    def do(self, method: str, path: str, who: UUID | None, body: dict[str, Any] | None = None) -> Deed:
        """Let somebody try something, and look what it did."""
        if self.standing.disabled and self.num_deeds >= self._disabled_until:
            self._enable_tenants()
        before = self.standing
        answer = self.send(method, path, None if who is None else self.people[who], body)
        self.standing = read_standing(self.url)
        self.num_deeds += 1
        changed = self.standing.changes_since(before)
        assert answer.is_success or not changed, "what is refused changes nothing"
        if self.standing.disabled and not before.disabled:
            self._disabled_until = self.num_deeds + DEEDS_DISABLED
        users = self.standing.users
        self.touched = {one for one in self.people if one in changed}
        self.touched |= {one for one in self.people if one in users and _ids_around(users[one]) & changed}
        self._let_in_again()
        return Deed(who, answer, before, self.standing)

    def send(self, method: str, path: str, person: Person | None, body: Any = None) -> httpx.Response:
        """What the application answers somebody over REST."""
        headers = {} if person is None else person.headers
        answer = self._client.request(method, f"/api/v1/{path}", headers=headers, json=_plain(body))
        assert answer.status_code < 500, answer.text
        event(f"{method} {path.split('?')[0].split('/')[0]}: {answer.status_code}")
        return answer

    def ask(self, person: Person, query: str) -> dict[str, Any]:
        """What the application answers somebody over GraphQL."""
        answer: dict[str, Any] = self._client.post("/graphql", headers=person.headers, json={"query": query}).json()
        return answer

    def who(self, chance: Random) -> UUID:
        """One of those who are there, from the beginning or since they came."""
        return chance.choice(self._here())

    def whom(self, chance: Random, actor_id: UUID) -> UUID:
        """One of those whom somebody may act on, mostly: what is foreign is refused at once, and there is little to judge."""
        users = self.standing.users
        here, owner = self._here(), users[actor_id].organization_id
        near = [one for one in here if owner in (None, users[one].organization_id) and one != actor_id]
        return chance.choice(here if not near or chance.random() < FOREIGN else near)

    def role(self, chance: Random) -> RoleStanding:
        """One of the roles; the custom ones, about which there is more to decide, come twice."""
        roles = [*self.standing.roles.values()]
        return chance.choice([*roles, *(role for role in roles if role.hierarchy > USER)])

    def role_of(self, chance: Random, organization_id: UUID | None) -> RoleStanding:
        """One that belongs to this organisation, mostly."""
        own = [
            role
            for role in self.standing.roles.values()
            if organization_id is not None and role.organization_id == organization_id
        ]
        return chance.choice(own) if own and chance.random() >= FOREIGN else self.role(chance)

    def role_for(self, chance: Random, organization_id: UUID | None) -> RoleStanding:
        """One that somebody of this organisation can have, mostly."""
        roles = [*self.standing.roles.values()]
        fitting = [role for role in roles if role.organization_id in (None, organization_id)]
        return chance.choice(roles if chance.random() < FOREIGN else fitting)

    def organization_of(self, chance: Random, user_id: UUID) -> UUID:
        """Mostly his own."""
        own = self.standing.users[user_id].organization_id
        return chance.choice([*self.standing.organizations]) if own is None or chance.random() < FOREIGN else own

    def sites(self, chance: Random, organization_id: UUID | None, actor_id: UUID) -> list[UUID]:
        """None or some establishments of this organisation that somebody reaches; seldom others."""
        standing = self.standing
        near = [
            one for one in standing.reached_sites(standing.users[actor_id]) if standing.sites[one] == organization_id
        ]
        sites = [*standing.sites] if chance.random() < FOREIGN else [one for one in standing.sites if one in near]
        return chance.sample(sites, min(len(sites), chance.choice([0, 1, 1, 2])))

    def tenant(self, chance: Random) -> dict[str, UUID]:
        """Mostly nobody, which is one's own."""
        return chance.choice(self.tenants()) if chance.random() < FOREIGN else {}

    def _here(self) -> list[UUID]:
        ids: list[UUID] = [*(getattr(self.world, name).id for name in CAST), *self.newcomers]
        return [one for one in ids if one in self.standing.users]

    def tenants(self) -> list[dict[str, UUID]]:
        """Nobody, the partner companies and the organisations, as a body names them."""
        world = self.world
        companies = (world.partner_company, world.other_partner_company)
        organizations = (world.tenant.id, world.other_tenant.id, world.direct_tenant.id)
        return [
            {},
            *({"partner_company_id": one} for one in companies),
            *({"organization_id": one} for one in organizations),
        ]

    def owners(self) -> dict[UUID, str]:
        """The path of each partner company and organisation."""
        kinds = {"partner_company_id": "partner-companies", "organization_id": "organizations"}
        return {one: f"{kinds[name]}/{one}" for tenant in self.tenants() for name, one in tenant.items()}

    def expect(self, deed: Deed, email: str, role: RoleStanding) -> Offer:
        """What an invitation that was made offers; its token is read from the letter."""
        made = deed.answer.json()
        offered = UserStanding(
            id=UUID(made["id"]),
            role=role,
            partner_company_id=_id_or_none(made["partner_company_id"]),
            organization_id=_id_or_none(made["organization_id"]),
            is_chief=made["has_all_establishments"],
            is_active=True,
            places={UUID(one): None for one in made["establishment_ids"]},
        )
        token = link_in(letters_to(self.url, email)[-1]).partition("#token=")[2]
        self.offers.append(Offer(email, token, offered, deed.actor.id))
        return self.offers[-1]

    def welcome(self, offer: Offer, user_id: UUID) -> None:
        """Somebody came, and signs in."""
        self.people[user_id] = self.world.sign_in(user_id, offer.email)
        self.newcomers.append(user_id)

    def _enable_tenants(self) -> None:
        """The operator sees to it that there is somebody to go on."""
        with psycopg.connect(self.url) as connection:
            connection.execute("update organizations set is_active = true where not is_active")
            connection.execute("update partner_companies set is_active = true where not is_active")
        self.standing = read_standing(self.url)
        self._let_in_again()

    def _let_in_again(self) -> None:
        """Those who were shut out and are not any more sign in: their sessions were ended."""
        users = self.standing.users
        for person_id in self.shut_out & users.keys() & self.people.keys():
            if self.standing.is_admitted(users[person_id]):
                person = self.people[person_id]
                assert self.send("GET", "me", person).status_code == 401, "a session that was ended stays so"
                self.shut_out.discard(person_id)
                self.people[person_id] = self.world.sign_in(person_id, person.email)


def _ids_around(user: UserStanding) -> set[UUID | None]:
    """What a change of changes what he may do."""
    there = {role.id for role in user.places.values() if role is not None}
    return {user.role.id, user.partner_company_id, user.organization_id, *user.places, *there}


def _id_or_none(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, UUID) else value
