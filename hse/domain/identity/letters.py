"""The letters that people get. A link in one is good for one use, and stands alone on its line."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What is written, and to whom; `kind` says in logs what it is for."""

    kind: str
    recipient: str
    subject: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationFacts:
    """What an invitation's letter tells; `tenant_name` is None for root, who belongs to nobody."""

    email: str
    first_name: str
    invited_by: str
    role_name: str
    tenant_name: str | None
    link: str = field(repr=False)
    expires_at: datetime


def invitation_letter(facts: InvitationFacts) -> Letter:
    """The letter that says who invites, to what, until when, and where to answer."""
    place = "the platform" if facts.tenant_name is None else facts.tenant_name
    text = (
        f"Hello {facts.first_name},\n\n"
        f"{facts.invited_by} invites you to {place} as {facts.role_name}.\n\n"
        f"To accept and choose a password, or to reject, open this link:\n\n{facts.link}\n\n"
        f"It is good for one use, until {facts.expires_at:%d %B %Y, %H:%M} UTC. "
        "If you did not expect it, do nothing, or reject it there.\n"
    )
    return Letter(kind="invitation", recipient=facts.email, subject=f"Invitation to {place}", text=text)
