"""Actors that make roles and places, grant, assign, invite, demote, disable, delete and try to climb, in any order.

Whatever is refused must change nothing. What succeeds is judged by the tables before and after it, and must have changed nothing
but what it is about: so whatever anybody holds at the end, a chain of permitted grants gave him.
"""

from contextlib import ExitStack
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hse.api.app import Parts
from hse.embedded.postgres import EmbeddedPostgres
from tests.api.permissions.judging import Judge
from tests.api.permissions.stage import Deed, Offer, Stage
from tests.api.permissions.standing import ADMIN, PARTNER, ROOT, USER, RoleStanding
from tests.api.world import PASSWORD, Person

# Each acceptance costs a password's hash.
NEWCOMERS_MAX = 5
# How many people are asked after each step what they see, beside those whom it was about.
LOOKED_AT = 1

# What admins hold no longer, once the world has begun: to give it away would be to climb.
TAKEN_FROM_ADMINS = {"update_device", "create_api_key", "manage_device_token"}
ACTIONS = [
    *("read_device", "read_establishment", "read_user", "update_establishment"),
    *sorted(TAKEN_FROM_ADMINS),
    "read_partner_company",
    # No custom role may hold any of these.
    *("create_role", "assign_role", "create_organization", "create_establishment", "view_all_organizations"),
]
# How often each is done.
DEEDS = {
    "make_role": 2,
    "change_role": 3,
    "take_from_role": 3,
    "delete_role": 1,
    "give_role": 4,
    "give_places": 3,
    "enable_or_disable": 2,
    "delete_person": 1,
    "invite": 5,
    "accept": 4,
    "accept_from_who_was_moved": 2,
    "make_establishment": 1,
    "delete_establishment": 1,
    "disable_tenant": 1,
}
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

    @rule(seed=st.integers(0, 2**64 - 1))
    def try_something(self, seed: int) -> None:
        """Try one thing. All of it follows from one number: rules of their own would be tried in few combinations only."""
        chance = Random(seed)
        (name,) = chance.choices([*DEEDS], [*DEEDS.values()])
        getattr(self, name)(chance)

    # --- roles ---

    def make_role(self, chance: Random) -> None:
        """Make a role, bound to anybody or to an establishment."""
        binding = self.stage.tenant(chance)
        if chance.random() < 0.3:
            binding = {"establishment_id": chance.choice([*self.stage.standing.sites])}
        hierarchy = chance.randint(5, 8)
        body = {
            "name": f"role {self.stage.num_deeds}",
            "actions": _some_actions(chance),
            "hierarchy": hierarchy,
            **binding,
        }
        deed = self.stage.do("POST", "roles", self.stage.who(chance), body)
        if deed.is_done:
            made = deed.after.roles[UUID(deed.answer.json()["id"])]
            deed.changed_only(made.id)
            assert made.hierarchy == hierarchy
            self.judge.grant(deed.before, deed.actor, made, made.actions)

    def change_role(self, chance: Random) -> None:
        """Change what a role holds."""
        self._change(self.stage.who(chance), self.stage.role(chance), _some_actions(chance))

    def take_from_role(self, chance: Random) -> None:
        """Change what a role holds to less: nobody need hold it for that, but he acts on all who have it."""
        actor_id = self.stage.who(chance)
        role = self.stage.role_of(chance, self.stage.standing.users[actor_id].organization_id)
        self._change(actor_id, role, [one for one in sorted(role.actions) if chance.random() < 0.5])

    def _change(self, actor_id: UUID, role: RoleStanding, wanted: list[str]) -> None:
        deed = self.stage.do("PATCH", f"roles/{role.id}", actor_id, {"actions": wanted})
        if deed.is_done:
            deed.changed_only(role.id)
            after = deed.after.roles[role.id]
            self.judge.grant(
                deed.before, deed.actor, after, after.actions - role.actions, places=self._places(deed, role)
            )

    def _places(self, deed: Deed, role: RoleStanding) -> set[UUID]:
        """Where a role counted, or would have for those who were invited to it."""
        offered = [one.offered.places for one in self.stage.offers if one.offered.role.id == role.id]
        return deed.before.places_of(role).union(*offered)

    def delete_role(self, chance: Random) -> None:
        """Delete a role."""
        role = self.stage.role(chance)
        deed = self.stage.do("DELETE", f"roles/{role.id}", self.stage.who(chance))
        if deed.is_done:
            deed.changed_only(role.id)
            self.judge.grant(deed.before, deed.actor, role, (), places=self._places(deed, role))
            self.judge.role_is_nobodys(deed.before, role)

    # --- people ---

    def give_role(self, chance: Random) -> None:
        """Give somebody another role, and perhaps another tenant."""
        actor_id = self.stage.who(chance)
        target = self.stage.whom(chance, actor_id)
        role = self.stage.role_for(chance, self.stage.standing.users[target].organization_id)
        body: dict[str, Any] = {"role_id": role.id, "has_all_establishments": chance.random() < 0.2}
        if chance.random() < 0.3:
            body |= {"partner_company_id": None, "organization_id": None, **self.stage.tenant(chance)}
        self._judge_person(target, self.stage.do("PUT", f"users/{target}/role", actor_id, body))

    def give_places(self, chance: Random) -> None:
        """Say where somebody works, and as what; perhaps nowhere."""
        actor_id = self.stage.who(chance)
        target = self.stage.whom(chance, actor_id)
        organization_id = self.stage.standing.users[target].organization_id
        role_id = self.stage.role_for(chance, organization_id).id if chance.random() < 0.5 else None
        sites = self.stage.sites(chance, organization_id, actor_id)
        body = {"establishments": [{"establishment_id": site, "role_id": role_id} for site in sites]}
        self._judge_person(target, self.stage.do("PUT", f"users/{target}/establishments", actor_id, body))

    def enable_or_disable(self, chance: Random) -> None:
        """Shut somebody out, or let him in again."""
        actor_id = self.stage.who(chance)
        target = self.stage.whom(chance, actor_id)
        is_active = chance.random() < 0.5
        deed = self.stage.do("PATCH", f"users/{target}", actor_id, {"is_active": is_active})
        if deed.is_done:
            deed.changed_only(target)
            was = deed.before.users[target]
            self.judge.person(deed.before, deed.actor, was)
            if was.is_active and not is_active:
                assert deed.actor.id != target, "nobody shuts himself out"
                self.stage.shut_out.add(target)

    def delete_person(self, chance: Random) -> None:
        """Delete somebody."""
        actor_id = self.stage.who(chance)
        target = self.stage.whom(chance, actor_id)
        deed = self.stage.do("DELETE", f"users/{target}", actor_id)
        if deed.is_done:
            deed.changed_only(target)
            assert target not in deed.after.users
            assert deed.actor.id != target, "nobody deletes himself"
            self.judge.person(deed.before, deed.actor, deed.before.users[target])

    # --- those who come ---

    def invite(self, chance: Random) -> None:
        """Invite somebody to anything."""
        actor_id, belongs = self.stage.who(chance), self.stage.tenant(chance)
        organization_id = belongs.get("organization_id", self.stage.standing.users[actor_id].organization_id)
        role = self.stage.role_for(chance, organization_id)
        is_chief = chance.random() < 0.2
        sites = [] if is_chief else self.stage.sites(chance, organization_id, actor_id)
        self._invite(actor_id, role, belongs, sites, is_chief=is_chief)

    def _invite(
        self, actor_id: UUID, role: RoleStanding, belongs: dict[str, UUID], sites: list[UUID], *, is_chief: bool = False
    ) -> Offer | None:
        if len(self.stage.newcomers) + len(self.stage.offers) >= NEWCOMERS_MAX:
            return None
        email = f"newcomer-{self.stage.num_deeds}@example.org"
        body = {
            "email": email,
            "first_name": "Nora",
            "last_name": "Paz",
            "role_id": role.id,
            **belongs,
            "has_all_establishments": is_chief,
            "establishment_ids": sites,
        }
        deed = self.stage.do("POST", "invitations", actor_id, body)
        if not deed.is_done:
            return None
        deed.changed_only()
        offer = self.stage.expect(deed, email, role)
        self.judge.standing(deed.before, deed.actor, None, offer.offered)
        return offer

    def accept(self, chance: Random) -> None:
        """Come, now or much later."""
        if not self.stage.offers:
            return
        self._accept(self.stage.offers.pop(chance.randrange(len(self.stage.offers))))

    def accept_from_who_was_moved(self, chance: Random) -> None:
        """Come when root has just given another role or tenant to who invited; somebody below root, who can be moved."""
        below = [one for one in self.stage.standing.users.values() if one.hierarchy in (PARTNER, ADMIN)]
        inviter = chance.choice([one for one in below if one.id in self.stage.people])
        user = next(role for role in self.stage.standing.roles.values() if role.hierarchy == USER)
        organization_id = inviter.organization_id or self.stage.world.tenant.id
        offer = self._invite(inviter.id, user, {"organization_id": organization_id}, [])
        if offer is None:
            return
        self.stage.offers.remove(offer)
        if offer.invited_by in self.stage.standing.users:
            belongs = chance.choice(self.stage.tenants())
            level = ADMIN if "organization_id" in belongs else PARTNER if belongs else ROOT
            role = next(role for role in self.stage.standing.roles.values() if role.hierarchy == level)
            nobodys = {"partner_company_id": None, "organization_id": None}
            body = {"role_id": role.id, "has_all_establishments": level == ADMIN, **nobodys, **belongs}
            moved = self.stage.do("PUT", f"users/{offer.invited_by}/role", self.stage.world.root.id, body)
            self._judge_person(offer.invited_by, moved)
        self._accept(offer)

    def _accept(self, offer: Offer) -> None:
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

    def make_establishment(self, chance: Random) -> None:
        """Make an establishment anywhere."""
        actor_id = self.stage.who(chance)
        organization_id = self.stage.organization_of(chance, actor_id)
        body = {"organization_id": organization_id, "name": f"site {self.stage.num_deeds}", "timezone": "UTC"}
        deed = self.stage.do("POST", "establishments", actor_id, body)
        if deed.is_done:
            made, maker = UUID(deed.answer.json()["id"]), deed.actor
            self.stage.made.append(made)
            self.judge.site(deed.before, maker, organization_id, "create_establishment")
            deed.changed_only(made, maker.id)
            is_assigned = maker.hierarchy == ADMIN and not maker.is_chief
            expected = replace(maker, places={**maker.places, made: None}) if is_assigned else maker
            assert deed.after.users[maker.id].terms == expected.terms

    def delete_establishment(self, chance: Random) -> None:
        """Delete an establishment; of those with areas nobody can."""
        if not self.stage.made:
            return
        site = chance.choice(self.stage.made)
        deed = self.stage.do("DELETE", f"establishments/{site}", self.stage.who(chance))
        if deed.is_done:
            self.judge.site(deed.before, deed.actor, deed.before.sites[site], "delete_establishment")
            assert site in deed.before.reached_sites(deed.actor)
            self.stage.made.remove(site)
            deed.changed_only(site, *(user.id for user in deed.before.users.values() if site in user.places))

    def disable_tenant(self, chance: Random) -> None:
        """Shut out a whole organisation or partner company, for a while."""
        if self.stage.standing.disabled:
            return
        owner, path = chance.choice([*self.stage.owners().items()])
        deed = self.stage.do("PATCH", path, self.stage.who(chance), {"is_active": False})
        if deed.is_done:
            deed.changed_only(owner)
            self.judge.owner_ended(deed.before, deed.actor, owner)
            if owner not in deed.before.disabled:
                users = deed.before.users.values()
                self.stage.shut_out |= {one.id for one in users if deed.before.belongs_to(one, owner)}

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


def _some_actions(chance: Random) -> list[str]:
    return sorted(chance.sample(ACTIONS, chance.randint(1, 2)))
