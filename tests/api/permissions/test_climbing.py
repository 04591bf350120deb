"""Actors that make roles, grant, assign, invite, demote and try to climb, in any order: nobody ends up with more than a chain of
permitted grants gives him, and nobody sees beyond his reach.

Whatever is refused is none of this test's business. What succeeds is judged by the tables before and after it, by rules that are
written here a second time (source plan §6.1.2).
"""

import os
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from litestar.testing import TestClient

from hse.adapters.postgres.database import Database
from hse.api.app import Parts, create_app
from hse.api.limits import RequestLimits
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.conftest import OUTBOX
from tests.api.permissions.standing import ADMIN, PARTNER, ROOT, RoleStanding, Standing, UserStanding, read_standing
from tests.api.world import Person, World
from tests.conftest import a_database

CUSTOM = 5
NUM_EXAMPLES = int(os.environ.get("HSE_CLIMBING_EXAMPLES", "8"))
# They try a lot in a short time, and are not to be told to wait.
UNLIMITED = RequestLimits(address_per_minute=10**9, user_per_minute=10**9)
NUM_STEPS = 40

# What admins hold no longer, once the world has begun: to give it away would be to climb.
TAKEN_FROM_ADMINS = {"update_device", "create_api_key", "manage_device_token"}
ACTIONS = st.sets(
    st.sampled_from(
        [
            *("read_device", "read_establishment", "read_user", "update_establishment"),
            *sorted(TAKEN_FROM_ADMINS),
            "read_partner_company",
            # No custom role may hold any of these.
            *("create_role", "assign_role", "create_organization", "create_establishment", "view_all_organizations"),
        ]
    ),
    min_size=1,
    max_size=2,
).map(sorted)
WHO = st.sampled_from(
    ["root", "partner", "other_partner", *("chief", "admin", "other_site_admin") * 3, "user", "custom", "other_chief"]
)
WHICH = st.integers(0, 30)


class Climbing(RuleBasedStateMachine):
    """One world, and everything that its people try."""

    server: EmbeddedPostgres
    template: str
    parts: Parts

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()

    @initialize()
    def begin(self) -> None:
        """Make a world of its own."""
        self.url = self._stack.enter_context(a_database(self.server, self.template))
        self.world = World(self.url)
        api_url = self.server.api_url(self.url.rsplit("/", 1)[1])
        open_database = partial(Database, api_url, pool_size=2, outbox=OUTBOX)
        app = create_app(replace(self.parts, open_database=open_database, limits=UNLIMITED))
        self.client = self._stack.enter_context(TestClient(app))
        self.people = [
            *(self.world.root, self.world.partner, self.world.other_partner, self.world.chief, self.world.admin),
            *(self.world.other_site_admin, self.world.user, self.world.custom, self.world.other_chief),
        ]
        self.exclusive = _exclusive_actions(self.url)
        admins = next(role for role in self._standing().roles.values() if role.hierarchy == ADMIN)
        kept = sorted(admins.actions - TAKEN_FROM_ADMINS)
        assert self._send("PATCH", f"roles/{admins.id}", self.world.root, {"actions": kept}).status_code == 200

    def teardown(self) -> None:
        """Leave nothing behind."""
        self._stack.close()

    # --- what they try ---

    @rule(who=WHO, actions=ACTIONS, hierarchy=st.integers(5, 8), bound_to=st.integers(0, 5))
    def make_role(self, who: str, actions: list[str], hierarchy: int, bound_to: int) -> None:
        """Make a role, bound to anybody."""
        actor, before = self._actor(who), self._standing()
        bindings: list[dict[str, UUID]] = [
            {},
            {"partner_company_id": self.world.partner_company},
            {"partner_company_id": self.world.other_partner_company},
            {"organization_id": self.world.tenant.id},
            {"organization_id": self.world.other_tenant.id},
            {"establishment_id": self.world.tenant.sites[0].id},
        ]
        body = {"name": f"role {len(before.roles)}", "actions": actions, "hierarchy": hierarchy, **bindings[bound_to]}
        answer = self._send("POST", "roles", actor, body)
        if answer.status_code == 201:
            maker, made = before.users[actor.id], self._standing().roles[UUID(answer.json()["id"])]
            assert maker.hierarchy <= ADMIN, "only root, partner and admin make roles"
            assert made.hierarchy > maker.hierarchy
            assert made.hierarchy >= CUSTOM
            self._judge_grant(before, maker, made, made.actions)

    @rule(who=WHO, which=WHICH, actions=ACTIONS)
    def change_role(self, who: str, which: int, actions: list[str]) -> None:
        """Change what a role holds."""
        actor, before = self._actor(who), self._standing()
        role = sorted(before.roles.values(), key=lambda one: (one.hierarchy, str(one.id)))[which % len(before.roles)]
        if self._send("PATCH", f"roles/{role.id}", actor, {"actions": actions}).status_code == 200:
            changer, after = before.users[actor.id], self._standing().roles[role.id]
            assert changer.hierarchy <= ADMIN
            assert role.hierarchy != ROOT, "root's role is fixed"
            assert role.hierarchy >= CUSTOM or changer.hierarchy == ROOT
            self._judge_grant(before, changer, after, after.actions - role.actions)

    @rule(who=WHO, whom=WHO, which=WHICH, is_chief=st.booleans(), tenant=st.integers(0, 4))
    def give_role(self, who: str, whom: str, which: int, is_chief: bool, tenant: int) -> None:
        """Give somebody another role, and perhaps another tenant."""
        actor, target, before = self._actor(who), self._actor(whom), self._standing()
        role = sorted(before.roles.values(), key=lambda one: (one.hierarchy, str(one.id)))[which % len(before.roles)]
        tenants: list[dict[str, UUID | None]] = [
            {},
            {"partner_company_id": self.world.partner_company, "organization_id": None},
            {"partner_company_id": None, "organization_id": self.world.tenant.id},
            {"partner_company_id": None, "organization_id": self.world.other_tenant.id},
            {"partner_company_id": None, "organization_id": None},
        ]
        body = {"role_id": role.id, "has_all_establishments": is_chief, **tenants[tenant]}
        if self._send("PUT", f"users/{target.id}/role", actor, body).status_code == 200:
            giver, after = before.users[actor.id], self._standing()
            self._judge_person(before, giver, before.users[target.id])
            self._judge_standing(before, giver, before.users[target.id], after.users[target.id])

    @rule(who=WHO, whom=WHO, which=st.none() | WHICH, chosen=st.sets(st.integers(0, 3)))
    def give_places(self, who: str, whom: str, which: int | None, chosen: set[int]) -> None:
        """Say where somebody works, and as what."""
        actor, target, before = self._actor(who), self._actor(whom), self._standing()
        role = None
        if which is not None:
            role = sorted(before.roles.values(), key=lambda one: str(one.id))[which % len(before.roles)].id
        sites = [*self.world.tenant.sites, *self.world.other_tenant.sites, *self.world.direct_tenant.sites]
        wanted = [{"establishment_id": sites[number].id, "role_id": role} for number in sorted(chosen)]
        answer = self._send("PUT", f"users/{target.id}/establishments", actor, {"establishments": wanted})
        if answer.status_code == 200:
            giver, after = before.users[actor.id], self._standing()
            self._judge_person(before, giver, before.users[target.id])
            self._judge_standing(before, giver, before.users[target.id], after.users[target.id])

    @rule(who=WHO, whom=WHO, is_active=st.booleans())
    def enable_or_disable(self, who: str, whom: str, is_active: bool) -> None:
        """Shut somebody out, or let him in again."""
        actor, target, before = self._actor(who), self._actor(whom), self._standing()
        answer = self._send("PATCH", f"users/{target.id}", actor, {"is_active": is_active})
        if answer.status_code == 200:
            self._judge_person(before, before.users[actor.id], before.users[target.id])
            assert is_active or actor.id != target.id, "nobody shuts himself out"

    # --- what must hold after everything ---

    @invariant()
    def nobody_holds_what_is_exclusive_to_others(self) -> None:
        """Nor what only those above may hold."""
        if not hasattr(self, "url"):
            return
        for role in self._standing().roles.values():
            for action in role.actions if role.hierarchy != ROOT else ():
                exclusive_to, hierarchy_max = self.exclusive[action]
                assert exclusive_to in (None, role.hierarchy), (role, action)
                assert role.hierarchy <= hierarchy_max, (role, action)

    @invariant()
    def there_is_always_a_root(self) -> None:
        """Who else would let anybody in again?"""
        if hasattr(self, "url"):
            users = self._standing().users.values()
            assert any(user.hierarchy == ROOT and user.is_active for user in users)

    @invariant()
    def nobody_sees_beyond_his_reach(self) -> None:
        """Over REST, and each by himself."""
        if not hasattr(self, "url"):
            return
        standing = self._standing()
        for person in self.people:
            user = standing.users[person.id]
            answer = self._send("GET", "establishments?limit=200", person)
            if not user.is_active:
                assert answer.status_code == 401
            elif answer.status_code == 200:
                seen = {UUID(item["id"]) for item in answer.json()["items"]}
                assert seen == standing.reached_sites(user, "read_establishment"), person.email
            elif answer.status_code == 403:
                assert not standing.holds(user, "read_establishment")

    # --- by which rules it is judged ---

    def _judge_grant(self, before: Standing, giver: UserStanding, role: RoleStanding, granted: frozenset[str]) -> None:
        for action in granted:
            assert before.holds(giver, action), f"{action} was granted by somebody who does not hold it"
            exclusive_to, hierarchy_max = self.exclusive[action]
            assert exclusive_to in (None, role.hierarchy), f"{action} is exclusive"
            assert role.hierarchy <= hierarchy_max, f"{action} is not for this hierarchy"
        if role.organization_id is not None:
            assert self._has_organization(before, giver, role.organization_id)
        if role.establishment_id is not None and giver.hierarchy == ADMIN:
            assert role.establishment_id in before.reached_sites(giver)
        if role.partner_company_id is not None and giver.hierarchy != ROOT:
            assert role.partner_company_id == giver.partner_company_id
        is_unbound = role.partner_company_id is None and role.organization_id is None
        assert not is_unbound or giver.hierarchy == ROOT, "what is for everybody is root's to make"

    def _judge_person(self, before: Standing, actor: UserStanding, target: UserStanding) -> None:
        """Whether he may act on this person at all."""
        assert actor.is_active
        assert actor.hierarchy <= ADMIN
        assert actor.hierarchy <= target.hierarchy, "nobody acts on who stands above him"
        if actor.hierarchy == ROOT:
            return
        if target.organization_id is not None:
            assert self._has_organization(before, actor, target.organization_id)
        else:
            assert target.partner_company_id == actor.partner_company_id
        if actor.hierarchy == ADMIN and not actor.is_chief:
            assert not target.is_chief
            assert set(target.places) <= before.reached_sites(actor)

    def _judge_standing(self, before: Standing, giver: UserStanding, was: UserStanding, becomes: UserStanding) -> None:
        """Whether what somebody has now, and had not before, was the giver's to give."""
        if becomes.role != was.role:
            assert becomes.hierarchy >= giver.hierarchy, "nobody makes others higher than himself"
            self._judge_given(before, giver, becomes.role)
        if becomes.is_chief and not was.is_chief:
            assert giver.hierarchy <= PARTNER or giver.is_chief
            assert becomes.hierarchy == ADMIN
        if becomes.organization_id not in (None, was.organization_id):
            assert self._has_organization(before, giver, becomes.organization_id)
        for site, there in becomes.places.items():
            if site in was.places and was.places[site] == there:
                continue
            assert site in before.reached_sites(giver), "nobody gives a place that he does not reach"
            assert before.sites[site] == becomes.organization_id
            if there is not None:
                assert there.hierarchy >= giver.hierarchy
                self._judge_given(before, giver, there)

    def _judge_given(self, before: Standing, giver: UserStanding, role: RoleStanding) -> None:
        """A system role comes with what is its own; of a custom role every action is the giver's to give."""
        for action in role.actions:
            exclusive_to, _ = self.exclusive[action]
            assert exclusive_to == role.hierarchy or before.holds(giver, action), (
                f"{action} was given away, and not held"
            )

    def _has_organization(self, before: Standing, user: UserStanding, organization_id: UUID | None) -> bool:
        if user.hierarchy == ROOT or organization_id is None:
            return True
        if user.hierarchy == PARTNER:
            return before.organizations[organization_id] == user.partner_company_id
        return user.organization_id == organization_id

    # --- the means ---

    def _actor(self, name: str) -> Person:
        person: Person = getattr(self.world, name)
        return person

    def _standing(self) -> Standing:
        return read_standing(self.url)

    def _send(self, method: str, path: str, person: Person, body: Any = None) -> httpx.Response:
        content = None if body is None else {name: _plain(value) for name, value in body.items()}
        answer = self.client.request(method, f"/api/v1/{path}", headers=person.headers, json=content)
        assert answer.status_code < 500, answer.text
        event(f"{method} {path.split('/')[0]}: {answer.status_code}")
        return answer


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [
            {name: None if one is None else str(one) for name, one in item.items()} if isinstance(item, dict) else item
            for item in value
        ]
    return str(value) if isinstance(value, UUID) else value


def _exclusive_actions(database_url: str) -> dict[str, tuple[int | None, int]]:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("select name, exclusive_to, hierarchy_max from actions").fetchall()
    return {name: (exclusive_to, hierarchy_max) for name, exclusive_to, hierarchy_max in rows}


@pytest.fixture
def machine(postgres_server: EmbeddedPostgres, migrated_template: str, parts: Parts) -> type[Climbing]:
    """The state machine, on the session's server."""
    Climbing.server, Climbing.template, Climbing.parts = postgres_server, migrated_template, parts
    return Climbing


@pytest.mark.timeout(900)
def test_nobody_climbs_and_nobody_sees_beyond_his_reach(machine: type[Climbing]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=NUM_EXAMPLES,
            stateful_step_count=NUM_STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize="HSE_CLIMBING_EXAMPLES" not in os.environ,
            print_blob=True,
        ),
    )
