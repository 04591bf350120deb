"""What signing in works with, while nobody is an actor yet: accounts, sessions, and what slows guessing down."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind
from hse.domain.identity.passwords import Passwords
from hse.domain.identity.ports import Mail
from hse.domain.work import Record


class TooManyAttempts(DomainError):
    """Too many wrong passwords or codes; a password that is right would be refused now, too."""

    kind: ClassVar[ErrorKind] = ErrorKind.TOO_MANY
    code: ClassVar[str] = "identity.too-many-attempts"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"too many attempts: try again in {retry_after_seconds} seconds")
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Totp:
    """A confirmed second factor; `last_counter` is the 30-second step whose code was used last."""

    sealed: bytes = field(repr=False)
    last_counter: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user as far as he proves who he is. `is_admitted`: neither he nor whom he belongs to is disabled."""

    user_id: UUID
    email: str
    first_name: str
    last_name: str
    partner_company_id: UUID | None
    organization_id: UUID | None
    is_admitted: bool
    password_hash: str | None = field(repr=False)
    totp: Totp | None
    # Whether the address that asks is one from which he signed in before.
    is_address_known: bool = False

    @property
    def personal(self) -> list[str]:
        """What no password of his may be made of."""
        return [self.email, self.first_name, self.last_name]

    def record(self, action: str, reason: str | None = None) -> Record:
        """A line of the audit log about him."""
        return Record(
            action=action,
            entity_type="user",
            entity_id=str(self.user_id),
            partner_company_id=self.partner_company_id,
            organization_id=self.organization_id,
            after=None if reason is None else {"reason": reason},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session that begins."""

    session_id: UUID
    user_id: UUID
    user_agent: str | None
    expires_at: datetime
    token_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshToken:
    """A refresh token and its session as they stand now, locked for this transaction."""

    token_hash: bytes = field(repr=False)
    session_id: UUID
    account: Account
    session_created_at: datetime
    session_expires_at: datetime
    is_session_alive: bool
    used_at: datetime | None
    is_successor_used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Somebody at an address who says that he is this account, which may not exist."""

    email: str
    address: str | None


class AccountStore(Protocol):
    """What users prove themselves with."""

    async def by_email(self, email: str) -> Account | None:
        """The account with this address, however it is spelt."""

    async def by_id(self, user_id: UUID) -> Account | None:
        """The account of this user."""

    async def locked(self, user_id: UUID) -> Account | None:
        """The account; nobody else changes it until this transaction ends."""

    async def set_password(self, user_id: UUID, password_hash: str, *, is_same: bool = False) -> None:
        """Keep a new password, or with `is_same` a new hash of the same one."""

    async def use_totp_counter(self, user_id: UUID, counter: int) -> bool:
        """Whether this step's code, or a later one's, was not used before; it counts as used from now on."""

    async def use_recovery_code(self, user_id: UUID, code_hash: bytes) -> bool:
        """Whether this is one of his codes that was not used before; it counts as used from now on."""

    async def count_live_keys(self, user_id: UUID) -> int:
        """How many API keys act for him."""


class SessionKeeper(Protocol):
    """The sessions, and their refresh tokens."""

    async def begin(self, session: NewSession) -> None:
        """Begin a session with its first refresh token."""

    async def locked_token(self, token_hash: bytes) -> RefreshToken | None:
        """A refresh token; the others of its session wait for this transaction."""

    async def rotate(self, token: RefreshToken, successor_hash: bytes, expires_at: datetime) -> None:
        """Use a token up, and give the session its successor and so long a life."""

    async def revoke(self, session_id: UUID, reason: str) -> UUID | None:
        """End a session; whose it was, None when there is none or it had ended before."""

    async def revoke_all_of(self, user_id: UUID, reason: str, *, kept: UUID | None = None) -> int:
        """End all sessions of a user but the `kept` one; returns how many."""


class ResetStore(Protocol):
    """Links for a new password, each good for one use."""

    async def add(self, token_hash: bytes, user_id: UUID, expires_at: datetime) -> None:
        """Keep a link."""

    async def account_of(self, token_hash: bytes) -> Account | None:
        """Whose link it is; None for one that is not good, or not any more."""

    async def use(self, token_hash: bytes) -> bool:
        """Whether the link was good until now; it and the others of its user are not any more."""


class EntranceWork(Protocol):
    """One transaction of nobody yet."""

    @property
    def now(self) -> datetime:
        """The time of the transaction, in UTC."""

    @property
    def accounts(self) -> AccountStore:
        """What users prove themselves with."""

    @property
    def sessions(self) -> SessionKeeper:
        """The sessions."""

    @property
    def resets(self) -> ResetStore:
        """Links for a new password."""

    @property
    def mail(self) -> Mail:
        """The letters that this transaction sends."""

    def new_id(self) -> UUID:
        """An id that nothing has."""

    async def record(self, record: Record, user_id: UUID | None) -> None:
        """Write to the audit log; `user_id` when it is known who it was."""

    async def commit(self) -> None:
        """Keep what was done."""


class Throttle(Protocol):
    """Slows the guessing of one request down, and lets nobody lock another one out. Raises `TooManyAttempts`."""

    async def begin(self, attempt: Attempt) -> None:
        """Count a try of this account from this address as one that fails; refuse it when there were too many."""

    async def begin_as_stranger(self, attempt: Attempt) -> None:
        """Count a try from an address that the account never came from; refuse it when too many failed from such."""

    async def begin_reset(self, attempt: Attempt) -> None:
        """Count a wish for a new password; refuse it when there were too many."""

    async def spare(self) -> None:
        """It was no failure: it was never judged, or not found wrong."""

    async def succeeded(self, attempt: Attempt) -> None:
        """It was right: the tries of this account from this address are forgotten."""


@asynccontextmanager
async def throttled(throttle: Throttle, attempt: Attempt, *failures: type[DomainError]) -> AsyncIterator[None]:
    """Judge an attempt, which has failed when it ends with one of `failures`, and else counts as none. Raises `TooManyAttempts`."""
    await throttle.begin(attempt)
    try:
        yield
    except failures:
        raise
    except Exception:
        await throttle.spare()
        raise
    await throttle.succeeded(attempt)


class RefreshTokens(Protocol):
    """Makes refresh tokens."""

    def new(self) -> str:
        """The first token of a session."""

    def successor(self, token: str) -> str:
        """The token that follows this one: always the same, and to be known by nobody but this machine."""

    def hash(self, token: str) -> bytes:
        """What is kept of a token."""


class SecondFactor(Protocol):
    """Reads one-time codes."""

    def counter_of(self, sealed: bytes, code: str, now: datetime) -> int | None:
        """The 30-second step that the code belongs to, of this and its two neighbours; None for a wrong code."""

    def recovery_hash(self, code: str) -> bytes:
        """What is kept of a recovery code, however it is spelt."""


class Entrance(Protocol):
    """Where one request signs in."""

    @property
    def address(self) -> str | None:
        """The address that the request came from."""

    @property
    def passwords(self) -> Passwords:
        """The passwords."""

    @property
    def throttle(self) -> Throttle:
        """What slows guessing down."""

    @property
    def refresh_tokens(self) -> RefreshTokens:
        """The refresh tokens."""

    @property
    def second_factor(self) -> SecondFactor:
        """The one-time codes."""

    def transaction(self) -> AbstractAsyncContextManager[EntranceWork]:
        """A transaction: kept by its `commit`, else undone."""
