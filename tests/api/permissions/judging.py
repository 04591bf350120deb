"""By which rules it is judged what somebody did: those of the policy, written a second time (source plan §6.1.2).

Every judgement takes the standing before the deed. What fails is an assertion that says what should not have been possible.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

import psycopg

from tests.api.permissions.standing import ADMIN, CUSTOM, PARTNER, ROOT, USER, RoleStanding, Standing, UserStanding


@dataclass(frozen=True)
class Judge:
    """Knows which actions are exclusive to which level, and up to which hierarchy each may be held."""

    catalogue: Mapping[str, tuple[int | None, int]]

    @classmethod
    def of(cls, database_url: str) -> "Judge":
        """Learn the catalogue from the tables."""
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("select name, exclusive_to, hierarchy_max from actions").fetchall()
        return cls({name: (exclusive_to, hierarchy_max) for name, exclusive_to, hierarchy_max in rows})

    def role_holds_what_it_may(self, role: RoleStanding) -> None:
        """Nobody holds what is exclusive to others, nor what only those above may hold."""
        for action in role.actions if role.hierarchy != ROOT else ():
            exclusive_to, hierarchy_max = self.catalogue[action]
            assert exclusive_to in (None, role.hierarchy), (role, action)
            assert role.hierarchy <= hierarchy_max, (role, action)

    def grant(
        self,
        before: Standing,
        giver: UserStanding,
        role: RoleStanding,
        granted: Iterable[str],
        *,
        places: Iterable[UUID] = (),
    ) -> None:
        """These actions were put into a role, which counts at these places."""
        self.role(before, giver, role)
        if giver.hierarchy == ADMIN and not giver.is_chief:
            assert before.reached_sites(giver).issuperset(places), "an admin changes what counts at his own places only"
        for action in granted:
            exclusive_to, hierarchy_max = self.catalogue[action]
            assert exclusive_to in (None, role.hierarchy), f"{action} is exclusive"
            assert role.hierarchy <= hierarchy_max, f"{action} is not for this hierarchy"
            if role.establishment_id is None:
                assert before.holds_for(giver, action, role.partner_company_id, role.organization_id), action
            else:
                assert role.establishment_id in before.reached_sites(giver, action), action
            assert before.reached_sites(giver, action).issuperset(places), f"{action} was not his to give everywhere"

    def role(self, before: Standing, actor: UserStanding, role: RoleStanding) -> None:
        """A role was made, changed or deleted."""
        assert before.is_admitted(actor)
        assert actor.hierarchy <= ADMIN
        assert role.hierarchy >= actor.hierarchy
        assert role.hierarchy != ROOT, "root's role is fixed"
        assert role.hierarchy >= CUSTOM or actor.hierarchy == ROOT
        is_unbound = role.partner_company_id is None and role.organization_id is None
        assert not is_unbound or actor.hierarchy == ROOT, "what is for everybody is root's to make"
        assert before.belongs_within(actor, role.partner_company_id, role.organization_id)
        if role.establishment_id is not None and actor.hierarchy == ADMIN:
            assert role.establishment_id in before.reached_sites(actor)

    def role_is_nobodys(self, before: Standing, role: RoleStanding) -> None:
        """A role was deleted: it had been nobody's."""
        assert role.hierarchy >= CUSTOM, "system roles stay"
        for user in before.users.values():
            assert role not in (user.role, *user.places.values())

    def person(self, before: Standing, actor: UserStanding, target: UserStanding) -> None:
        """Somebody acted on this person at all."""
        assert before.is_admitted(actor)
        assert actor.hierarchy <= ADMIN
        assert actor.hierarchy <= target.hierarchy, "nobody acts on who stands above him"
        assert before.belongs_within(actor, target.partner_company_id, target.organization_id)
        if actor.hierarchy == ADMIN and not actor.is_chief:
            assert not target.is_chief
            assert set(target.places) <= before.reached_sites(actor)

    def standing(self, before: Standing, giver: UserStanding, was: UserStanding | None, is_: UserStanding) -> None:
        """What somebody has now, and had not before, was the giver's to give."""
        assert giver.id != is_.id, "nobody gives himself anything"
        tenant = (is_.partner_company_id, is_.organization_id)
        is_moved = was is None or tenant != (was.partner_company_id, was.organization_id)
        assert not is_moved or before.belongs_within(giver, *tenant)
        if was is None or is_.role.id != was.role.id:
            assert is_.hierarchy >= giver.hierarchy, "nobody makes others higher than himself"
            for action in self._given_with(is_.role):
                assert before.holds_for(giver, action, *tenant), f"{action} was given away, and not held"
                places = {site for site, there in is_.places.items() if there is None}
                assert before.reached_sites(giver, action) >= places, f"{action} was not held everywhere"
        if is_.is_chief and not (was and was.is_chief):
            assert giver.hierarchy <= PARTNER or giver.is_chief
            assert is_.hierarchy == ADMIN
        places_before = was.places if was else {}
        for site, there in is_.places.items():
            if site not in places_before or places_before[site] != there:
                self._place_given(before, giver, is_, site)
        if not is_moved:
            lost = places_before.keys() - is_.places.keys()
            assert lost <= before.reached_sites(giver), "nobody takes a place that he does not reach"

    def admission(self, before: Standing, offered: UserStanding, invited_by: UUID, made: UserStanding) -> None:
        """Who was invited came in: to what he was offered, from somebody who may still offer it."""
        inviter = before.users[invited_by]
        tenant = (made.partner_company_id, made.organization_id)
        assert before.is_admitted(inviter)
        assert inviter.hierarchy <= min(ADMIN, made.hierarchy)
        assert before.belongs_within(inviter, *tenant), "who moved elsewhere invites to it no more"
        assert not made.is_chief or inviter.hierarchy <= PARTNER or inviter.is_chief
        there = {site: None for site in offered.places if before.sites.get(site) == offered.organization_id}
        assert before.reached_sites(inviter).issuperset(there)
        for action in self._given_with(made.role):
            assert before.holds_for(inviter, action, *tenant), f"{action} was offered, and is not held any more"
            assert before.reached_sites(inviter, action).issuperset(there)
        assert made.terms == replace(offered, places=there).terms
        assert before.is_admitted(made), "nobody comes to whom nobody may come"

    def site(self, before: Standing, actor: UserStanding, organization_id: UUID, action: str) -> None:
        """An establishment was made or deleted."""
        assert before.is_admitted(actor)
        assert action in actor.role.actions
        assert before.belongs_within(actor, None, organization_id)

    def owner_ended(self, before: Standing, actor: UserStanding, owner: UUID) -> None:
        """An organisation or a partner company was disabled or enabled."""
        assert before.is_admitted(actor)
        if owner in before.organizations:
            assert actor.hierarchy <= PARTNER, "who looks after an organisation disables it"
            assert before.belongs_within(actor, None, owner)
        else:
            assert actor.hierarchy == ROOT, "a partner company is disabled by root"

    def _place_given(self, before: Standing, giver: UserStanding, whom: UserStanding, site: UUID) -> None:
        assert site in before.reached_sites(giver), "nobody gives a place that he does not reach"
        assert before.sites[site] == whom.organization_id
        role = whom.places[site] or whom.role
        assert role is whom.role or role.hierarchy >= max(giver.hierarchy, USER)
        for action in self._given_with(role):
            assert site in before.reached_sites(giver, action), f"{action} was given away there, and not held"

    def _given_with(self, role: RoleStanding) -> list[str]:
        """What somebody gives away with a role: a system role comes with what is its own."""
        return [action for action in role.actions if self.catalogue[action][0] != role.hierarchy]
