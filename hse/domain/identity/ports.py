"""What the noun needs of a transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from hse.domain.identity.model import Action, Assignment, Invitation, OpenInvitation, Role, User
from hse.domain.policy import Reach
from hse.domain.work import Finds, Placed, Store, Work, seen


class ActionCatalogue(Protocol):
    """What can be allowed at all."""

    async def all(self) -> Mapping[str, Action]:
        """Every action, by its name."""


class RoleStore(Store[Role], Protocol):
    """The roles, each with what it holds."""

    async def lock(self, role_id: UUID, *, is_shared: bool = False) -> None:
        """Until this transaction ends, nobody changes the role, and unless it is shared nobody gives it to anybody."""

    async def places(self, role_id: UUID) -> frozenset[UUID]:
        """The establishments at which somebody has the role, or will have it once he accepts an invitation."""


class UserStore(Store[User], Protocol):
    """The people."""

    async def lock(self, user_id: UUID) -> None:
        """Until this transaction ends, nobody else changes this person or where he works."""

    async def lock_roots(self, *, besides: UUID) -> int:
        """How many active roots there are beside this one; that stays so until this transaction ends."""

    async def end_access_of(self, user_id: UUID) -> None:
        """End a person's sessions and API keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeToken:
    """A secret for a link, as it is told once, and what is kept of it."""

    text: str = field(repr=False)
    token_hash: bytes = field(repr=False)


class Mail(Protocol):
    """Letters that leave when this transaction is committed."""

    @property
    def invitation_lifetime(self) -> timedelta:
        """How long the link of an invitation holds."""

    def link(self, path: str) -> str:
        """The address of a page of the platform."""

    async def queue(self, kind: str, recipient: str, subject: str, text: str) -> None:
        """Have a letter sent."""


class AssignmentStore(Protocol):
    """Where people work."""

    async def of(self, user_id: UUID) -> list[Assignment]:
        """Where a person works, wherever that is."""

    async def replace(self, user: User, wanted: Mapping[UUID, UUID | None], kept: Sequence[Assignment]) -> None:
        """Let a person work at these establishments, with these roles, and where he is kept; nowhere else."""


class Doorstep(Protocol):
    """A transaction of somebody who holds the token of an invitation, and has no account."""

    @property
    def now(self) -> datetime:
        """The time of the transaction, in UTC."""

    async def open(self, token_hash: bytes) -> OpenInvitation | None:
        """The pending invitation of this token, which nobody else answers meanwhile; None when there is none that holds."""

    async def admit(
        self, invitation: OpenInvitation, first_name: str, last_name: str, password_hash: str
    ) -> UUID | None:
        """Make the account that was offered; None when the address has one already. Raises `InvitationVoid`."""

    async def answer(self, invitation: OpenInvitation, status: str, user_id: UUID | None) -> None:
        """Write down that the invitation was answered."""


class Site(Placed, Protocol):
    """An establishment, as far as this noun is concerned."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def organization_id(self) -> UUID:
        """Whose it is."""


class Owner(Placed, Protocol):
    """A partner company or an organisation, as far as this noun is concerned."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def is_active(self) -> bool:
        """Whether its people may do anything."""


class IdentityWork(Work, Protocol):
    """A transaction with this noun's stores, and what it must know of the others'."""

    @property
    def actions(self) -> ActionCatalogue:
        """What can be allowed."""

    @property
    def roles(self) -> RoleStore:
        """The roles."""

    @property
    def users(self) -> UserStore:
        """The people."""

    @property
    def assignments(self) -> AssignmentStore:
        """Where they work."""

    @property
    def invitations(self) -> Store[Invitation]:
        """The invitations."""

    @property
    def mail(self) -> Mail:
        """The letters that this transaction sends."""

    def new_token(self) -> OneTimeToken:
        """A secret that nobody can guess."""

    @property
    def partner_companies(self) -> Finds[Owner]:
        """The partner companies."""

    @property
    def organizations(self) -> Finds[Owner]:
        """The organisations."""

    @property
    def establishments(self) -> Finds[Site]:
        """The establishments."""


async def find_tenant(
    work: IdentityWork, reach: Reach, partner_company_id: UUID | None, organization_id: UUID | None
) -> Owner | None:
    """The partner company or organisation within the reach; None when neither is named. Raises `NotFound`."""
    if organization_id is not None:
        return await seen(work.organizations, reach, organization_id)
    if partner_company_id is not None:
        return await seen(work.partner_companies, reach, partner_company_id)
    return None
