"""Invitations: made by who looks after people, answered by who holds the link, without an account."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Request, Router, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from hse.adapters.postgres.doorstep import PostgresDoorstep
from hse.adapters.tokens import hash_of
from hse.api.acting import Acts
from hse.api.bodies import Body, Email, PersonName, given
from hse.api.paging import Paged, filtered
from hse.api.rest.auth import NewPassword, OpaqueToken
from hse.domain.identity import invitations
from hse.domain.identity.invitations import Accept, Admitted
from hse.domain.identity.model import Invitation
from hse.domain.identity.passwords import hash_new_password
from hse.domain.paging import Page

EstablishmentIds = Annotated[list[UUID], msgspec.Meta(max_length=invitations.ESTABLISHMENTS_MAX)]
Status = Literal["pending", "accepted", "rejected", "revoked"]


class NewInvitation(Body):
    """Whom to invite, to what. Without a company or organisation it is your own."""

    email: Email
    first_name: PersonName
    last_name: PersonName
    role_id: UUID
    partner_company_id: UUID | None = None
    organization_id: UUID | None = None
    establishment_ids: EstablishmentIds = msgspec.field(default_factory=list)
    has_all_establishments: bool = False


class HeldToken(Body):
    """The last part of the link that was sent."""

    token: OpaqueToken


class Acceptance(Body):
    """The last part of the link, the password to sign in with, and other names than those of the invitation."""

    token: OpaqueToken
    password: NewPassword
    first_name: PersonName | None = None
    last_name: PersonName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an invitation offers; `organization` is the organisation or partner company, None for root."""

    email: str
    first_name: str
    last_name: str
    role: str | None
    organization: str | None
    invited_by: str | None
    expires_at: datetime
    is_void: bool


@asynccontextmanager
async def doorstep(request: Request[Any, Any, Any]) -> AsyncIterator[tuple[PostgresDoorstep, Any]]:
    """A transaction of who holds a token, and its connection, which keeps what was done by its commit."""
    async with request.app.state.database.authentication() as connection:
        yield PostgresDoorstep(connection, request.scope["state"]["origin"], datetime.now(UTC)), connection


@get("/invitations")
async def list_invitations(
    acting: Acts,
    page: Paged,
    status: FromQuery[Status | None] = None,
    partner_company_id: FromQuery[UUID | None] = None,
    organization_id: FromQuery[UUID | None] = None,
) -> Page[Invitation]:
    """List the invitations that you may see; `q` looks in names and e-mail addresses."""
    query = filtered(page, status=status, partner_company_id=partner_company_id, organization_id=organization_id)
    return await acting.read(lambda work: invitations.invitations(work, query))


@post("/invitations")
async def create_invitation(once: Acts, data: JSONBody[NewInvitation]) -> Invitation:
    """Invite somebody: a letter with a link, good for one use and some days, goes to the address."""
    command = invitations.Invite(**{**given(data), "establishment_ids": tuple(data.establishment_ids)})
    return await once.run(lambda work: invitations.invite(work, command), status=201)


@get("/invitations/{invitation_id:uuid}")
async def get_invitation(acting: Acts, invitation_id: FromPath[UUID]) -> Invitation:
    """Read an invitation."""
    return await acting.read(lambda work: invitations.invitation(work, invitation_id))


@post("/invitations/{invitation_id:uuid}/resend", status_code=200)
async def resend_invitation(once: Acts, invitation_id: FromPath[UUID]) -> Invitation:
    """Send an invitation again, with a new link; the old one does not hold any more."""
    return await once.run(lambda work: invitations.resend(work, invitation_id))


@post("/invitations/{invitation_id:uuid}/revoke", status_code=200)
async def revoke_invitation(once: Acts, invitation_id: FromPath[UUID]) -> Invitation:
    """Take an invitation back."""
    return await once.run(lambda work: invitations.revoke(work, invitation_id))


@post("/invitations/preview", status_code=200, opt={"is_public": True})
async def preview_invitation(request: Request[Any, Any, Any], data: JSONBody[HeldToken]) -> Offer:
    """Read what you are invited to. A token that does not hold, for whatever reason, has one answer."""
    async with doorstep(request) as (step, _):
        found = await invitations.preview(step, hash_of(data.token))
    return Offer(
        email=found.email,
        first_name=found.first_name,
        last_name=found.last_name,
        role=found.role_name,
        organization=found.tenant_name,
        invited_by=found.invited_by_name,
        expires_at=found.expires_at,
        is_void=found.is_void,
    )


@post("/invitations/accept", status_code=201, opt={"is_public": True})
async def accept_invitation(request: Request[Any, Any, Any], data: JSONBody[Acceptance]) -> Admitted:
    """Come in: makes your account. Sign in then; a second factor can be turned on after that."""
    token_hash = hash_of(data.token)
    async with doorstep(request) as (step, _):
        found = await invitations.preview(step, token_hash)
    # Between two transactions, as a hash takes its time, and only for who holds a token.
    personal = [found.email, data.first_name or found.first_name, data.last_name or found.last_name]
    password_hash = await hash_new_password(request.app.state.doorkeeping.passwords, data.password, personal)
    command = Accept(password_hash=password_hash, first_name=data.first_name, last_name=data.last_name)
    async with doorstep(request) as (step, connection):
        admitted = await invitations.accept(step, token_hash, command)
        await connection.commit()
    return admitted


@post("/invitations/reject", status_code=204, opt={"is_public": True})
async def reject_invitation(request: Request[Any, Any, Any], data: JSONBody[HeldToken]) -> None:
    """Say no."""
    async with doorstep(request) as (step, connection):
        await invitations.reject(step, hash_of(data.token))
        await connection.commit()


router = Router(
    path="/",
    tags=["invitations"],
    route_handlers=[
        list_invitations,
        create_invitation,
        get_invitation,
        resend_invitation,
        revoke_invitation,
        preview_invitation,
        accept_invitation,
        reject_invitation,
    ],
)
