"""Signing in: with a password, and a one-time code where the user has set that up. Every failure takes the same work and answer.

No transaction is open while a password is hashed: whoever floods the entrance would else hold the database's connections.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from hse.domain.errors import DomainError, ErrorKind
from hse.domain.identity.entrance import (
    Account,
    AccountStore,
    Attempt,
    Entrance,
    EntranceWork,
    NewSession,
    SecondFactor,
    throttled,
)
from hse.domain.identity.sessions import REFRESH_LIFETIME, OpenSession
from hse.domain.work import Record


class WrongCredentials(DomainError):
    """Unknown user, wrong password, or somebody who is disabled: one answer for all."""

    kind: ClassVar[ErrorKind] = ErrorKind.UNAUTHENTICATED
    code: ClassVar[str] = "identity.wrong-credentials"

    def __init__(self) -> None:
        super().__init__("e-mail address or password are wrong, or the account is disabled")


class TotpRequired(DomainError):
    """The password is right, and a one-time code is needed beside it."""

    kind: ClassVar[ErrorKind] = ErrorKind.UNAUTHENTICATED
    code: ClassVar[str] = "identity.totp-required"

    def __init__(self) -> None:
        super().__init__(
            "send the code of your authenticator as totp_code, or one of your recovery codes as recovery_code"
        )


class WrongCode(DomainError):
    """The one-time code is wrong, or was used before."""

    kind: ClassVar[ErrorKind] = ErrorKind.UNAUTHENTICATED
    code: ClassVar[str] = "identity.wrong-code"

    def __init__(self) -> None:
        super().__init__("this code is wrong or was used before: wait for the next one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """A second factor as somebody sends it: neither, or one of the two."""

    totp: str | None = field(default=None, repr=False)
    recovery: str | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """What the audit log says of them."""
        return "totp" if self.totp is not None else "recovery code" if self.recovery is not None else "password"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """Somebody says who he is."""

    email: str
    password: str = field(repr=False)
    codes: Codes = Codes()
    user_agent: str | None = None


async def sign_in(entrance: Entrance, command: SignIn) -> OpenSession:
    """Begin a session. Raises `WrongCredentials`, `TotpRequired`, `WrongCode`, `TooManyAttempts`, `PasswordsOverloaded`."""
    attempt = Attempt(email=command.email.casefold(), address=entrance.address)
    async with throttled(entrance.throttle, attempt, WrongCredentials, WrongCode):
        async with entrance.transaction() as work:
            account = await work.accounts.by_email(command.email)
        if account is None or not account.is_address_known:
            await entrance.throttle.begin_as_stranger(attempt)
        return await _judge(entrance, command, account)


async def _judge(entrance: Entrance, command: SignIn, account: Account | None) -> OpenSession:
    password_hash = None if account is None else account.password_hash
    is_right = await entrance.passwords.verify(password_hash, command.password)
    if account is None or password_hash is None or not is_right or not account.is_admitted:
        await _write_down(entrance, account, "password" if not is_right else "disabled")
        raise WrongCredentials
    rehashed = (
        await entrance.passwords.hash(command.password) if entrance.passwords.is_outdated(password_hash) else None
    )
    async with entrance.transaction() as work:
        current = await work.accounts.locked(account.user_id)
        if current is None or not current.is_admitted or current.password_hash != password_hash:
            raise WrongCredentials
        if await is_second_factor(work.accounts, current, command.codes, entrance.second_factor, work.now):
            opened = await _begin_session(entrance, work, current, command)
            if rehashed is not None:
                await work.accounts.set_password(current.user_id, rehashed, is_same=True)
            await work.commit()
            return opened
    await _write_down(entrance, account, "code")
    raise WrongCode


async def is_second_factor(
    accounts: AccountStore, account: Account, codes: Codes, reads: SecondFactor, now: datetime
) -> bool:
    """Whether the second factor, which is used up by that, is right; it is where none is set up. Raises `TotpRequired`."""
    if account.totp is None:
        return True
    if codes.totp is not None:
        counter = reads.counter_of(account.totp.sealed, codes.totp, now)
        return counter is not None and await accounts.use_totp_counter(account.user_id, counter)
    if codes.recovery is not None:
        return await accounts.use_recovery_code(account.user_id, reads.recovery_hash(codes.recovery))
    raise TotpRequired


async def _begin_session(entrance: Entrance, work: EntranceWork, account: Account, command: SignIn) -> OpenSession:
    token = entrance.refresh_tokens.new()
    session_id, expires_at = work.new_id(), work.now + REFRESH_LIFETIME
    await work.sessions.begin(
        NewSession(
            session_id=session_id,
            user_id=account.user_id,
            user_agent=command.user_agent,
            expires_at=expires_at,
            token_hash=entrance.refresh_tokens.hash(token),
        )
    )
    await work.record(
        account.record("session.sign_in", command.codes.kind if account.totp else "password"), account.user_id
    )
    return OpenSession(
        user_id=account.user_id, session_id=session_id, refresh_token=token, now=work.now, expires_at=expires_at
    )


async def _write_down(entrance: Entrance, account: Account | None, reason: str) -> None:
    """Keep a failure in the audit log. Whom nobody knows is not named: people type passwords into the wrong field."""
    async with entrance.transaction() as work:
        if account is None:
            unknown = Record(
                action="session.sign_in_failed", entity_type="user", entity_id=None, after={"reason": "unknown"}
            )
            await work.record(unknown, None)
        else:
            await work.record(account.record("session.sign_in_failed", reason), account.user_id)
        await work.commit()
