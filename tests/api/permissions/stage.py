"""What the actors act on: a world of their own behind an application, what they know of it, and what is known of them."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from hypothesis import event
from litestar.testing import TestClient

from hse.adapters.postgres.database import Database
from hse.api.app import Parts, create_app
from hse.api.limits import RequestLimits
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.conftest import OUTBOX
from tests.api.mailboxes import letters_to, link_in
from tests.api.permissions.standing import RoleStanding, Standing, UserStanding, read_standing
from tests.api.world import Person, World
from tests.conftest import a_database

# They try a lot in a short time, and are not to be told to wait.
UNLIMITED = RequestLimits(address_per_minute=10**9, user_per_minute=10**9)
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
        # Those whose sessions were ended when they, or whom they belong to, were disabled.
        self.shut_out: set[UUID] = set()
        self.standing = read_standing(self.url)
        # Whom the last deed was about.
        self.touched: set[UUID] = set()
        self.num_deeds = 0

    def do(self, method: str, path: str, who: UUID | None, body: dict[str, Any] | None = None) -> Deed:
        """Let somebody try something, and look what it did."""
        before = self.standing
        answer = self.send(method, path, None if who is None else self.people[who], body)
        self.standing = read_standing(self.url)
        self.num_deeds += 1
        changed = self.standing.changes_since(before)
        assert answer.is_success or not changed, "what is refused changes nothing"
        users = self.standing.users
        self.touched = {one for one in self.people if one in changed}
        self.touched |= {one for one in self.people if one in users and _ids_around(users[one]) & changed}
        for person_id in self.shut_out & users.keys() & self.people.keys():
            if self.standing.is_admitted(users[person_id]):
                self._let_in_again(self.people[person_id])
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

    def who(self, number: int) -> UUID:
        """One of those who were there from the beginning, or came."""
        ids: list[UUID] = [*(getattr(self.world, name).id for name in CAST), *self.newcomers]
        return ids[number % len(ids)]

    def role(self, number: int) -> RoleStanding:
        """One of the roles."""
        roles = [*self.standing.roles.values()]
        return roles[number % len(roles)]

    def sites(self, chosen: set[int], organization_id: UUID | None) -> list[UUID]:
        """Some establishments: of this organisation first, then of others."""
        sites = sorted(self.standing.sites, key=lambda one: self.standing.sites[one] != organization_id)
        return [sites[number] for number in sorted(chosen) if number < len(sites)]

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

    def tenant(self, number: int) -> dict[str, UUID]:
        """One of them."""
        tenants = self.tenants()
        return tenants[number % len(tenants)]

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
        token = link_in(letters_to(self.url, email)[-1]).rsplit("/", 1)[1]
        self.offers.append(Offer(email, token, offered, deed.actor.id))
        return self.offers[-1]

    def welcome(self, offer: Offer, user_id: UUID) -> None:
        """Somebody came, and signs in."""
        self.people[user_id] = self.world.sign_in(user_id, offer.email)
        self.newcomers.append(user_id)

    def _let_in_again(self, person: Person) -> None:
        assert self.send("GET", "me", person).status_code == 401, "a session that was ended stays so"
        self.shut_out.discard(person.id)
        self.people[person.id] = self.world.sign_in(person.id, person.email)


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
