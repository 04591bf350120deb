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


def reset_letter(email: str, first_name: str, link: str) -> Letter:
    """The letter with the link for a new password."""
    text = (
        f"Hello {first_name},\n\n"
        f"Somebody asked for a new password for your account. To choose one, open this link:\n\n{link}\n\n"
        "It is good for one use, for one hour. If it was not you who asked, do nothing: your password stays as it is.\n"
    )
    return Letter(kind="password_reset", recipient=email, subject="A new password", text=text)


def new_password_letter(email: str, first_name: str, num_live_keys: int) -> Letter:
    """The letter that says that the password is another now, in case that was somebody else, and how many keys are as they were."""
    text = (
        f"Hello {first_name},\n\n"
        "The password of your account was changed. If it was not you, ask for a new one on the sign-in page at once, "
        "and tell who looks after you.\n"
    )
    if num_live_keys:
        keys = "1 API key" if num_live_keys == 1 else f"{num_live_keys} API keys"
        text += (
            f"\nThe programs that act for you go on with {keys}, which a new password does not end. "
            "Look through the API keys of your account, and revoke each that you do not know.\n"
        )
    return Letter(kind="password_changed", recipient=email, subject="Your password was changed", text=text)
