"""Invitations: the only way in, beside the operator's command line.

Whether an address has an account somewhere is told to nobody but the holder of a token that was sent to it
(docs/adr/0010-people-come-by-invitation.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind, Invalid
from hse.domain.identity.granting import (
    check_chief,
    check_not_above,
    check_role_for,
    check_within_establishments,
    require_level,
)
from hse.domain.identity.letters import InvitationFacts, invitation_letter
from hse.domain.identity.model import Invitation, OpenInvitation, Role, Tenant
from hse.domain.identity.ports import Doorstep, IdentityWork, OneTimeToken, find_tenant
from hse.domain.identity.users import role_to_give
from hse.domain.paging import Page, PageQuery
from hse.domain.policy import EVERYWHERE, Level
from hse.domain.work import seen, within_act

SENDS_MAX = 10
ESTABLISHMENTS_MAX = 200


class InvitationUnknown(DomainError):
    """No invitation has this token, or it was answered, revoked, sent anew or has expired: one answer for all."""

    kind: ClassVar[ErrorKind] = ErrorKind.NOT_FOUND
    code: ClassVar[str] = "invitations.unknown"

    def __init__(self) -> None:
        super().__init__("this invitation does not hold, or not any more: ask for a new one")


class InvitationVoid(DomainError):
    """What was offered is not there any more: the role, an active organisation, or the right of who invited."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "invitations.void"

    def __init__(self) -> None:
        super().__init__("what this invitation offers is not there any more: ask for a new one")


class AccountExists(DomainError):
    """The address that was invited has an account; one account belongs to one company or organisation."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "invitations.account-exists"

    def __init__(self) -> None:
        super().__init__("this address has an account already: ask to be invited at another address")


class InvitationAnswered(DomainError):
    """The invitation is not pending any more."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "invitations.answered"

    def __init__(self, status: str) -> None:
        super().__init__(f"this invitation was {status}: make a new one")
        self.invitation_status = status


class SentTooOften(DomainError):
    """An invitation is sent ten times at most: who does not answer is left in peace."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "invitations.sent-too-often"

    def __init__(self) -> None:
        super().__init__(f"this invitation was sent {SENDS_MAX} times: revoke it and make a new one if it must be")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """Whom to invite, to what. Without a company or organisation it is the inviter's own."""

    email: str
    first_name: str
    last_name: str
    role_id: UUID
    partner_company_id: UUID | None = None
    organization_id: UUID | None = None
    establishment_ids: tuple[UUID, ...] = ()
    has_all_establishments: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """The answer of somebody who comes; the names that he was invited under stand unless he gives others."""

    password_hash: str
    first_name: str | None = None
    last_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The account that came of an invitation."""

    user_id: UUID
    email: str


async def invitations(work: IdentityWork, query: PageQuery) -> Page[Invitation]:
    """A page of the invitations. Raises `Forbidden`, `Invalid`."""
    page = await work.invitations.page(work.actor.require("read_user"), query)
    return replace(page, items=[_shown(work, one) for one in page.items])


async def invitation(work: IdentityWork, invitation_id: UUID) -> Invitation:
    """One invitation. Raises `Forbidden`, `NotFound`."""
    return _shown(work, await seen(work.invitations, work.actor.require("read_user"), invitation_id))


async def invite(work: IdentityWork, command: Invite) -> Invitation:
    """Invite somebody, by a letter with a link that is good for one use. The inviter does not learn the link.

    Raises `Forbidden`, `NotFound` for a foreign entity or role, `Invalid`, `AboveYou`, `RoleDoesNotFit`, `NotHeld`,
    `ChiefNotYours`, and `Taken` when the address is invited to the same company or organisation already.
    """
    actor = work.actor
    reach = actor.require("create_user")
    require_level(actor, "create_user")
    role = await role_to_give(work, command.role_id)
    tenant = _tenant_of(work, command, role)
    owner = await find_tenant(work, reach, tenant.partner_company_id, tenant.organization_id)
    if owner is not None and not owner.is_active:
        raise Invalid("organization_id", "is disabled: nobody can be invited to it")
    await _check_establishments(work, tenant, command.establishment_ids)
    check_role_for(actor, role, tenant, await work.actions.all(), establishment_ids=command.establishment_ids)
    if command.has_all_establishments:
        check_chief(actor, role)
    token = work.new_token()
    values = {
        "email": command.email,
        "first_name": command.first_name,
        "last_name": command.last_name,
        "role_id": role.id,
        "partner_company_id": tenant.partner_company_id,
        "organization_id": tenant.organization_id,
        "establishment_ids": sorted(command.establishment_ids),
        "has_all_establishments": command.has_all_establishments,
        "token_hash": token.token_hash,
        "invited_by": actor.user_id,
        "expires_at": work.now + work.mail.invitation_lifetime,
    }
    made = await work.invitations.add(values)
    await _send(work, made, role, token)
    return made


async def resend(work: IdentityWork, invitation_id: UUID) -> Invitation:
    """Send an invitation again, with a new link; the old one does not hold any more.

    Raises `NotFound`, `Forbidden`, `AboveYou`, `BeyondYourEstablishments`, `InvitationAnswered`, `InvitationVoid`, `SentTooOften`.
    """
    before = await _pending_within_act(work, invitation_id)
    if before.role_id is None:
        raise InvitationVoid
    if before.sent_count >= SENDS_MAX:
        raise SentTooOften
    role = await role_to_give(work, before.role_id)
    check_not_above(work.actor, "role", role.hierarchy)
    token = work.new_token()
    changes = {
        "token_hash": token.token_hash,
        "expires_at": work.now + work.mail.invitation_lifetime,
        "sent_count": before.sent_count + 1,
    }
    after = await work.invitations.change(before, changes)
    await _send(work, after, role, token)
    return _shown(work, after)


async def revoke(work: IdentityWork, invitation_id: UUID) -> Invitation:
    """Take an invitation back. Raises `NotFound`, `Forbidden`, `BeyondYourEstablishments`, `InvitationAnswered`."""
    before = await _pending_within_act(work, invitation_id)
    changes = {"status": "revoked", "answered_at": work.now}
    return _shown(work, await work.invitations.change(before, changes))


async def preview(doorstep: Doorstep, token_hash: bytes) -> OpenInvitation:
    """What the holder of a token is invited to. Raises `InvitationUnknown`."""
    found = await doorstep.open(token_hash)
    if found is None:
        raise InvitationUnknown
    return found


async def accept(doorstep: Doorstep, token_hash: bytes, command: Accept) -> Admitted:
    """Make the account that was offered. Raises `InvitationUnknown`, `InvitationVoid`, `AccountExists`."""
    found = await preview(doorstep, token_hash)
    if found.is_void:
        raise InvitationVoid
    first_name = command.first_name or found.first_name
    last_name = command.last_name or found.last_name
    user_id = await doorstep.admit(found, first_name, last_name, command.password_hash)
    if user_id is None:
        raise AccountExists
    await doorstep.answer(found, "accepted", user_id)
    return Admitted(user_id=user_id, email=found.email)


async def reject(doorstep: Doorstep, token_hash: bytes) -> None:
    """Say no. Raises `InvitationUnknown`."""
    await doorstep.answer(await preview(doorstep, token_hash), "rejected", None)


def _tenant_of(work: IdentityWork, command: Invite, role: Role) -> Tenant:
    """Whom the invited will belong to. Raises `Invalid` when a partner does not say to which organisation."""
    named = Tenant(partner_company_id=command.partner_company_id, organization_id=command.organization_id)
    actor = work.actor
    if named != Tenant() or role.level is Level.ROOT:
        return named
    if role.level is Level.PARTNER or role.partner_company_id is not None:
        return Tenant(partner_company_id=actor.partner_company_id)
    if actor.organization_id is None:
        raise Invalid("organization_id", "say to which organisation, or partner company, the person will belong")
    return Tenant(organization_id=actor.organization_id)


async def _check_establishments(work: IdentityWork, tenant: Tenant, establishment_ids: Sequence[UUID]) -> None:
    if len(set(establishment_ids)) != len(establishment_ids) or len(establishment_ids) > ESTABLISHMENTS_MAX:
        raise Invalid("establishment_ids", f"each once, and {ESTABLISHMENTS_MAX} at most")
    for establishment_id in establishment_ids:
        site = await seen(work.establishments, work.actor.reach("create_user"), establishment_id)
        if site.organization_id != tenant.organization_id:
            raise Invalid("establishment_ids", "are of another organisation")


async def _pending_within_act(work: IdentityWork, invitation_id: UUID) -> Invitation:
    found = await within_act(work, work.invitations, invitation_id, see="read_user", act="create_user")
    check_within_establishments(
        work.actor,
        "create_user",
        "invitation",
        establishment_ids=found.establishment_ids,
        is_everywhere=found.has_all_establishments,
    )
    if found.status != "pending":
        raise InvitationAnswered(found.status)
    return found


async def _send(work: IdentityWork, made: Invitation, role: Role, token: OneTimeToken) -> None:
    inviter = await work.users.find(work.actor.user_id, EVERYWHERE)
    owner = await find_tenant(work, EVERYWHERE, made.partner_company_id, made.organization_id)
    name = work.actor.email if inviter is None else f"{inviter.first_name} {inviter.last_name} ({inviter.email})"
    facts = InvitationFacts(
        email=made.email,
        first_name=made.first_name,
        invited_by=name,
        role_name=role.name,
        tenant_name=None if owner is None else owner.name,
        # Behind the #, which a browser sends to no server, and so into no log.
        link=work.mail.link(f"invitations#token={token.text}"),
        expires_at=made.expires_at,
    )
    letter = invitation_letter(facts)
    await work.mail.queue(letter.kind, letter.recipient, letter.subject, letter.text)


def _shown(work: IdentityWork, one: Invitation) -> Invitation:
    """The invitation with those of its establishments that the actor may see."""
    reach = work.actor.reach("read_establishment")
    if one.organization_id is None:
        return one
    organization_id = one.organization_id
    shown = [place for place in one.establishment_ids if reach.has_site(organization_id, place)]
    return replace(one, establishment_ids=shown)
