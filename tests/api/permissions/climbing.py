"""Actors that make roles and places, grant, assign, invite, demote, disable, delete and try to climb, in any order.

Whatever is refused must change nothing. What succeeds is judged by the tables before and after it, and must have changed nothing
but what it is about: so whatever anybody holds at the end, a chain of permitted grants gave him.
"""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hse.api.app import Parts
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.permissions.judging import Judge
from tests.api.permissions.stage import CAST, Deed, Stage
from tests.api.permissions.standing import ADMIN, ROOT
from tests.api.world import PASSWORD, Person

# Each acceptance costs a password's hash.
NEWCOMERS_MAX = 5
# How many people are asked after each step what they see, beside those whom it was about.
LOOKED_AT = 2

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
WHO = st.integers(0, len(CAST) + NEWCOMERS_MAX - 1)
WHICH = st.integers(0, 30)
SITES = st.sets(st.integers(0, 5), max_size=3)
BELOW_ESTABLISHMENTS = """
{ establishments(first: 30) { edges { node { id users(first: 30) { edges { node { id } } } } } } }
"""


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
        self.stage = Stage(self.server, self.template, self.parts, self._stack)
        self.judge = Judge.of(self.stage.url)
        admins = next(role for role in self.stage.standing.roles.values() if role.hierarchy == ADMIN)
        kept = sorted(admins.actions - TAKEN_FROM_ADMINS)
        assert self.stage.do("PATCH", f"roles/{admins.id}", self.stage.world.root.id, {"actions": kept}).is_done

    def teardown(self) -> None:
        """Leave nothing behind."""
        self._stack.close()

    # --- roles ---

    @rule(who=WHO, actions=ACTIONS, hierarchy=st.integers(5, 8), bound_to=WHICH)
    def make_role(self, who: int, actions: list[str], hierarchy: int, bound_to: int) -> None:
        """Make a role, bound to anybody."""
        sites = ({"establishment_id": site} for site in self.stage.standing.sites)
        bindings = [*self.stage.tenants(), *sites]
        body = {
            "name": f"role {self.stage.num_deeds}",
            "actions": actions,
            "hierarchy": hierarchy,
            **bindings[bound_to % len(bindings)],
        }
        deed = self.stage.do("POST", "roles", self.stage.who(who), body)
        if deed.is_done:
            made = deed.after.roles[UUID(deed.answer.json()["id"])]
            deed.changed_only(made.id)
            assert made.hierarchy == hierarchy
            self.judge.grant(deed.before, deed.actor, made, made.actions)

    @rule(who=WHO, which=WHICH, actions=ACTIONS)
    def change_role(self, who: int, which: int, actions: list[str]) -> None:
        """Change what a role holds."""
        role = self.stage.role(which)
        deed = self.stage.do("PATCH", f"roles/{role.id}", self.stage.who(who), {"actions": actions})
        if deed.is_done:
            deed.changed_only(role.id)
            after = deed.after.roles[role.id]
            offered = [one.offered.places for one in self.stage.offers if one.offered.role.id == role.id]
            places = deed.before.places_of(role).union(*offered)
            self.judge.grant(deed.before, deed.actor, after, after.actions - role.actions, places=places)

    @rule(who=WHO, which=WHICH)
    def delete_role(self, who: int, which: int) -> None:
        """Delete a role."""
        role = self.stage.role(which)
        deed = self.stage.do("DELETE", f"roles/{role.id}", self.stage.who(who))
        if deed.is_done:
            deed.changed_only(role.id)
            self.judge.role(deed.before, deed.actor, role)
            self.judge.role_is_nobodys(deed.before, role)

    # --- people ---

    @rule(who=WHO, whom=WHO, which=WHICH, is_chief=st.booleans(), tenant=WHICH | st.none())
    def give_role(self, who: int, whom: int, which: int, is_chief: bool, tenant: int | None) -> None:
        """Give somebody another role, and perhaps another tenant."""
        target = self.stage.who(whom)
        body: dict[str, Any] = {"role_id": self.stage.role(which).id, "has_all_establishments": is_chief}
        if tenant is not None:
            body |= {"partner_company_id": None, "organization_id": None, **self.stage.tenant(tenant)}
        self._judge_person(target, self.stage.do("PUT", f"users/{target}/role", self.stage.who(who), body))

    @rule(who=WHO, whom=WHO, which=st.none() | WHICH, chosen=SITES)
    def give_places(self, who: int, whom: int, which: int | None, chosen: set[int]) -> None:
        """Say where somebody works, and as what; perhaps nowhere."""
        target, role_id = self.stage.who(whom), None if which is None else self.stage.role(which).id
        user = self.stage.standing.users.get(target)
        sites = self.stage.sites(chosen, None if user is None else user.organization_id)
        body = {"establishments": [{"establishment_id": site, "role_id": role_id} for site in sites]}
        self._judge_person(target, self.stage.do("PUT", f"users/{target}/establishments", self.stage.who(who), body))

    @rule(who=WHO, whom=WHO, is_active=st.booleans())
    def enable_or_disable(self, who: int, whom: int, is_active: bool) -> None:
        """Shut somebody out, or let him in again."""
        target = self.stage.who(whom)
        deed = self.stage.do("PATCH", f"users/{target}", self.stage.who(who), {"is_active": is_active})
        if deed.is_done:
            deed.changed_only(target)
            was = deed.before.users[target]
            self.judge.person(deed.before, deed.actor, was)
            if was.is_active and not is_active:
                assert deed.actor.id != target, "nobody shuts himself out"
                self.stage.shut_out.add(target)

    @rule(who=WHO, whom=WHO)
    def delete_person(self, who: int, whom: int) -> None:
        """Delete somebody."""
        target = self.stage.who(whom)
        deed = self.stage.do("DELETE", f"users/{target}", self.stage.who(who))
        if deed.is_done:
            deed.changed_only(target)
            assert target not in deed.after.users
            assert deed.actor.id != target, "nobody deletes himself"
            self.judge.person(deed.before, deed.actor, deed.before.users[target])

    # --- those who come ---

    @precondition(lambda self: len(self.stage.newcomers) + len(self.stage.offers) < NEWCOMERS_MAX)
    @rule(who=WHO, which=WHICH, is_chief=st.booleans(), tenant=WHICH, chosen=SITES)
    def invite(self, who: int, which: int, is_chief: bool, tenant: int, chosen: set[int]) -> None:
        """Invite somebody to anything."""
        role, belongs = self.stage.role(which), self.stage.tenant(tenant)
        email = f"newcomer-{self.stage.num_deeds}@example.org"
        body = {
            "email": email,
            "first_name": "Nora",
            "last_name": "Paz",
            "role_id": role.id,
            **belongs,
            "has_all_establishments": is_chief,
            "establishment_ids": self.stage.sites(chosen, belongs.get("organization_id")),
        }
        deed = self.stage.do("POST", "invitations", self.stage.who(who), body)
        if deed.is_done:
            deed.changed_only()
            offer = self.stage.expect(deed, email, role)
            self.judge.standing(deed.before, deed.actor, None, offer.offered)

    @precondition(lambda self: self.stage.offers)
    @rule(which=WHICH)
    def accept(self, which: int) -> None:
        """Come, now or much later."""
        offer = self.stage.offers.pop(which % len(self.stage.offers))
        answer = {"token": offer.token, "password": PASSWORD}
        deed = self.stage.do("POST", "invitations/accept", None, answer)
        if deed.is_done:
            made = deed.after.users[UUID(deed.answer.json()["user_id"])]
            deed.changed_only(made.id)
            self.judge.admission(deed.before, offer.offered, offer.invited_by, made)
            self.stage.welcome(offer, made.id)
            again = self.stage.send("POST", "invitations/accept", None, answer)
            assert again.status_code == 404, "a link is good for one use"

    # --- places, and whom they belong to ---

    @rule(who=WHO, tenant=st.integers(0, 2))
    def make_establishment(self, who: int, tenant: int) -> None:
        """Make an establishment anywhere."""
        organization_id = [*self.stage.standing.organizations][tenant]
        body = {"organization_id": organization_id, "name": f"site {self.stage.num_deeds}", "timezone": "UTC"}
        deed = self.stage.do("POST", "establishments", self.stage.who(who), body)
        if deed.is_done:
            made, maker = UUID(deed.answer.json()["id"]), deed.actor
            self.judge.site(deed.before, maker, organization_id, "create_establishment")
            deed.changed_only(made, maker.id)
            is_assigned = maker.hierarchy == ADMIN and not maker.is_chief
            expected = replace(maker, places={**maker.places, made: None}) if is_assigned else maker
            assert deed.after.users[maker.id].terms == expected.terms

    @rule(who=WHO, which=WHICH)
    def delete_establishment(self, who: int, which: int) -> None:
        """Delete an establishment; those with areas stay."""
        sites = [*self.stage.standing.sites]
        site = sites[which % len(sites)]
        deed = self.stage.do("DELETE", f"establishments/{site}", self.stage.who(who))
        if deed.is_done:
            self.judge.site(deed.before, deed.actor, deed.before.sites[site], "delete_establishment")
            assert site in deed.before.reached_sites(deed.actor)
            deed.changed_only(site, *(user.id for user in deed.before.users.values() if site in user.places))

    @rule(who=WHO, which=st.integers(0, 4))
    def disable_tenant(self, who: int, which: int) -> None:
        """Shut out a whole organisation or partner company."""
        owner, path = [*self.stage.owners().items()][which]
        deed = self.stage.do("PATCH", path, self.stage.who(who), {"is_active": False})
        if deed.is_done:
            deed.changed_only(owner)
            self.judge.owner_ended(deed.before, deed.actor, owner)
            if owner not in deed.before.disabled:
                users = deed.before.users.values()
                self.stage.shut_out |= {one.id for one in users if deed.before.belongs_to(one, owner)}

    @precondition(lambda self: self.stage.standing.disabled)
    @rule(which=WHICH)
    def enable_tenant(self, which: int) -> None:
        """Let them in again; whoever may still do that is root."""
        disabled = [owner for owner in self.stage.owners() if owner in self.stage.standing.disabled]
        owner = disabled[which % len(disabled)]
        users = self.stage.standing.users
        roots = [
            one for one in self.stage.people if one in users and users[one].hierarchy == ROOT and users[one].is_active
        ]
        if roots:
            deed = self.stage.do("PATCH", self.stage.owners()[owner], roots[0], {"is_active": True})
            assert deed.is_done
            deed.changed_only(owner)

    # --- what must hold after everything ---

    @invariant()
    def nobody_holds_what_is_exclusive_to_others(self) -> None:
        """Nor what only those above may hold."""
        for role in self.stage.standing.roles.values():
            self.judge.role_holds_what_it_may(role)

    @invariant()
    def there_is_always_a_root(self) -> None:
        """Who else would let anybody in again?"""
        assert any(user.hierarchy == ROOT and user.is_active for user in self.stage.standing.users.values())

    @invariant()
    def nobody_sees_beyond_his_reach(self) -> None:
        """Those whom the last deed was about, and some of the others: over REST and over GraphQL."""
        people, standing = self.stage.people, self.stage.standing
        turn = self.stage.num_deeds * LOOKED_AT % len(people)
        others = [*people, *people][turn : turn + LOOKED_AT]
        for person_id in dict.fromkeys([*others, *sorted(self.stage.touched)]):
            person, user = people[person_id], standing.users.get(person_id)
            if user is None or not standing.is_admitted(user):
                assert self.stage.send("GET", "establishments", person).status_code == 401, person.email
                continue
            sites = standing.reached_sites(user, "read_establishment")
            self._sees("establishments", person, sites)
            self._sees("users", person, standing.seen_people(user))
            self._sees_below_establishments(person, sites)

    def _sees(self, kind: str, person: Person, expected: set[UUID]) -> None:
        answer = self.stage.send("GET", f"{kind}?limit=200", person)
        assert answer.status_code in (200, 403), answer.text
        seen = {UUID(item["id"]) for item in answer.json()["items"]} if answer.is_success else set()
        assert seen == expected, (kind, person.email)

    def _sees_below_establishments(self, person: Person, sites: set[UUID]) -> None:
        answer = self.stage.ask(person, BELOW_ESTABLISHMENTS)
        if answer.get("errors"):
            assert not sites, answer
            return
        nodes = [edge["node"] for edge in answer["data"]["establishments"]["edges"]]
        assert {UUID(node["id"]) for node in nodes} == sites
        seen = {UUID(edge["node"]["id"]) for node in nodes for edge in node["users"]["edges"]}
        assert seen <= self.stage.standing.seen_people(self.stage.standing.users[person.id])

    def _judge_person(self, target: UUID, deed: Deed) -> None:
        """Somebody gave a person a role or places."""
        if deed.is_done:
            deed.changed_only(target)
            was = deed.before.users[target]
            self.judge.person(deed.before, deed.actor, was)
            self.judge.standing(deed.before, deed.actor, was, deed.after.users[target])
