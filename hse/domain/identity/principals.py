"""What a request comes with, before the database has said whose it is."""

from dataclasses import dataclass, field
from typing import ClassVar
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind


class Unauthenticated(DomainError):
    """No token or key, or one that is wrong, expired, revoked, or whose owner is disabled: one answer for all."""

    kind: ClassVar[ErrorKind] = ErrorKind.UNAUTHENTICATED
    code: ClassVar[str] = "identity.unauthenticated"

    def __init__(self) -> None:
        super().__init__("sign in first: send an access token, the session's cookie or an API key that is valid")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPrincipal:
    """Somebody with a valid access token of this session; `user_id` is whom the token was issued to, and proves nothing more."""

    session_id: UUID
    is_cookie: bool = False
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPrincipal:
    """A program with an API key: its public prefix, and the SHA-256 of its secret."""

    prefix: str
    secret_hash: bytes = field(repr=False)


Principal = SessionPrincipal | KeyPrincipal
