"""What somebody who is signed in does to what he proves himself with: his password, and who he is besides."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Protocol
from uuid import UUID

from hse.domain.errors import DomainError, ErrorKind
from hse.domain.identity.entrance import Account, AccountStore, Attempt, Entrance, SessionKeeper, throttled
from hse.domain.identity.letters import new_password_letter
from hse.domain.identity.passwords import WrongPassword
from hse.domain.identity.ports import Mail
from hse.domain.work import Work


class SessionNeeded(DomainError):
    """An API key stands for a program: it does not touch what its owner signs in with."""

    kind: ClassVar[ErrorKind] = ErrorKind.FORBIDDEN
    code: ClassVar[str] = "identity.session-needed"

    def __init__(self) -> None:
        super().__init__("an API key cannot do this: sign in with your password")


class WrongSecondFactor(DomainError):
    """The one-time code that was to prove who is acting is wrong, or was used before."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "identity.wrong-second-factor"

    def __init__(self) -> None:
        super().__init__("this code is wrong or was used before: send the next code, or an unused recovery code")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The password was right, when this was its hash."""

    password_hash: str = field(repr=False)


class FactorStore(Protocol):
    """Second factors while they are set up."""

    async def pending(self, user_id: UUID) -> bytes | None:
        """The sealed secret that waits for its first code."""

    async def begin(self, user_id: UUID, sealed: bytes) -> None:
        """Keep a secret that counts once its first code was sent."""

    async def confirm(self, user_id: UUID, counter: int) -> None:
        """Let the secret count; the code of this step is used up."""

    async def remove(self, user_id: UUID) -> None:
        """Forget the secret and the recovery codes."""

    async def set_recovery_codes(self, user_id: UUID, hashes: list[bytes]) -> None:
        """Keep new recovery codes, and none of the old ones."""

    async def recovery_codes_left(self, user_id: UUID) -> int:
        """How many recovery codes were not used."""


class OwnWork(Work, Protocol):
    """A transaction of somebody about himself."""

    @property
    def accounts(self) -> AccountStore:
        """What users prove themselves with."""

    @property
    def factors(self) -> FactorStore:
        """Second factors while they are set up."""

    @property
    def session_keeper(self) -> SessionKeeper:
        """The sessions."""

    @property
    def mail(self) -> Mail:
        """The letters that this transaction sends."""


async def own_account(work: OwnWork) -> Account:
    """The actor as he proves who he is. Raises `SessionNeeded`."""
    account = await work.accounts.by_id(work.actor.user_id)
    if work.actor.session_id is None or account is None:
        raise SessionNeeded
    return account


async def locked_own_account(work: OwnWork) -> Account:
    """The same, which nobody else changes until this transaction ends. Raises `SessionNeeded`."""
    account = await work.accounts.locked(work.actor.user_id)
    if work.actor.session_id is None or account is None:
        raise SessionNeeded
    return account


@asynccontextmanager
async def proving(entrance: Entrance, account: Account, password: str) -> AsyncIterator[Proof]:
    """What is done once the password was proved again; a wrong second factor in it counts as a failure, too.

    Raises `WrongPassword`, `TooManyAttempts`, `PasswordsOverloaded`.
    """
    attempt = Attempt(email=account.email.casefold(), address=entrance.address)
    async with throttled(entrance.throttle, attempt, WrongPassword, WrongSecondFactor):
        if not await entrance.passwords.verify(account.password_hash, password) or account.password_hash is None:
            await _write_down(entrance, account, "password")
            raise WrongPassword
        try:
            yield Proof(password_hash=account.password_hash)
        except WrongSecondFactor:
            await _write_down(entrance, account, "code")
            raise


async def proved(work: OwnWork, proof: Proof) -> Account:
    """The actor, whose password is still the one that was proved. Raises `SessionNeeded`, `WrongPassword`."""
    account = await locked_own_account(work)
    if account.password_hash != proof.password_hash:
        raise WrongPassword
    return account


async def change_password(work: OwnWork, proof: Proof, password_hash: str) -> None:
    """Have another password from now on; it ends one's other sessions. Raises `SessionNeeded`, `WrongPassword`."""
    account = await proved(work, proof)
    await work.accounts.set_password(account.user_id, password_hash)
    await work.session_keeper.revoke_all_of(account.user_id, "password changed", kept=work.actor.session_id)
    num_live_keys = await work.accounts.count_live_keys(account.user_id)
    letter = new_password_letter(account.email, account.first_name, num_live_keys)
    await work.mail.queue(letter.kind, letter.recipient, letter.subject, letter.text)
    await work.record(account.record("user.password_change"))


async def _write_down(entrance: Entrance, account: Account, reason: str) -> None:
    async with entrance.transaction() as work:
        await work.record(account.record("user.proof_failed", reason), account.user_id)
        await work.commit()
