"""The first steps of somebody new: which are left is computed from what is there, and nothing is ticked off by hand."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol

from hse.domain.errors import DomainError, ErrorKind
from hse.domain.identity.ports import IdentityWork
from hse.domain.policy import EVERYWHERE, Actor, Level
from hse.domain.work import seen


class StepsLeft(DomainError):
    """Not every step that must be done is done."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "onboarding.steps-left"

    def __init__(self, steps: list[str]) -> None:
        super().__init__(f"these steps are left: {', '.join(steps)}")
        self.steps = steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the actor has, and what there is where he belongs."""

    has_verified_email: bool
    has_password: bool
    has_second_factor: bool
    onboarded_at: datetime | None
    has_details: bool
    has_organizations: bool
    has_establishments: bool
    has_areas: bool
    has_devices: bool
    has_invited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step; `href` is where it is done."""

    name: str
    is_done: bool
    is_optional: bool
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Onboarding:
    """The steps in the order in which they make sense. `is_ready`: none that must be done is left."""

    steps: list[Step]
    is_ready: bool
    onboarded_at: datetime | None


class OnboardingState(Protocol):
    """Sees how far somebody is."""

    async def facts(self) -> Facts:
        """How far the actor is."""


class OnboardingWork(IdentityWork, Protocol):
    """A transaction that sees how far somebody is."""

    @property
    def onboarding(self) -> OnboardingState:
        """How far the actor is."""


async def onboarding(work: OnboardingWork) -> Onboarding:
    """The actor's steps, as they stand now."""
    facts = await work.onboarding.facts()
    steps = [*_own_steps(facts), *_steps_of_level(work.actor, facts)]
    is_ready = all(step.is_done or step.is_optional for step in steps)
    return Onboarding(steps=steps, is_ready=is_ready, onboarded_at=facts.onboarded_at)


async def complete_onboarding(work: OnboardingWork) -> Onboarding:
    """Put the wizard away; a second time changes nothing. Raises `StepsLeft`."""
    found = await onboarding(work)
    if not found.is_ready:
        raise StepsLeft([step.name for step in found.steps if not step.is_done and not step.is_optional])
    if found.onboarded_at is None:
        own = await seen(work.users, EVERYWHERE, work.actor.user_id)
        await work.users.change(own, {"onboarded_at": work.now})
    return await onboarding(work)


def _own_steps(facts: Facts) -> Iterator[Step]:
    yield Step(
        name="verify_email", is_done=facts.has_verified_email, is_optional=False, href="/api/v1/auth/password-reset"
    )
    yield Step(
        name="choose_password", is_done=facts.has_password, is_optional=False, href="/api/v1/auth/password-reset"
    )
    yield Step(name="turn_on_second_factor", is_done=facts.has_second_factor, is_optional=True, href="/api/v1/me/totp")


def _steps_of_level(actor: Actor, facts: Facts) -> Iterator[Step]:
    """The steps of somebody who sets things up, those only that he may do."""
    if actor.level is Level.PARTNER:
        yield from _allowed(
            actor,
            ("update_partner_company", "partner_company_details", facts.has_details, False, _own_record(actor)),
            ("create_organization", "first_organization", facts.has_organizations, False, "/api/v1/organizations"),
            ("create_user", "invite_an_admin", facts.has_invited, False, "/api/v1/invitations"),
        )
    if actor.level is Level.ADMIN:
        yield from _allowed(
            actor,
            ("update_organization", "organization_details", facts.has_details, False, _own_record(actor)),
            ("create_establishment", "first_establishment", facts.has_establishments, False, "/api/v1/establishments"),
            ("create_area", "areas", facts.has_areas, True, "/api/v1/areas"),
            ("create_device", "devices", facts.has_devices, True, "/api/v1/devices"),
            ("create_user", "invite_the_team", facts.has_invited, True, "/api/v1/invitations"),
        )


def _allowed(actor: Actor, *steps: tuple[str, str, bool, bool, str]) -> Iterator[Step]:
    for action, name, is_done, is_optional, href in steps:
        if not actor.reach(action).is_nowhere:
            yield Step(name=name, is_done=is_done, is_optional=is_optional, href=href)


def _own_record(actor: Actor) -> str:
    if actor.level is Level.PARTNER:
        return f"/api/v1/partner-companies/{actor.partner_company_id}"
    return f"/api/v1/organizations/{actor.organization_id}"
