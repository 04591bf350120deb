"""Setting up one-time codes (TOTP), and giving them up. A change is proved with the password, and a code where there are any."""

from typing import ClassVar

from hse.domain.errors import DomainError, ErrorKind, Invalid
from hse.domain.identity.authentication import Codes, is_second_factor
from hse.domain.identity.entrance import Account, SecondFactor
from hse.domain.identity.own import OwnWork, Proof, WrongSecondFactor, locked_own_account, proved


class TotpIsOn(DomainError):
    """One-time codes are set up already."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "identity.totp-on"

    def __init__(self) -> None:
        super().__init__("one-time codes are set up already: disable them first")


class TotpIsOff(DomainError):
    """One-time codes are not set up."""

    kind: ClassVar[ErrorKind] = ErrorKind.CONFLICT
    code: ClassVar[str] = "identity.totp-off"

    def __init__(self) -> None:
        super().__init__("one-time codes are not set up")


async def begin_totp(work: OwnWork, proof: Proof, sealed: bytes) -> None:
    """Keep a secret, which counts once its first code was sent. Raises `SessionNeeded`, `WrongPassword`, `TotpIsOn`."""
    account = await proved(work, proof)
    if account.totp is not None:
        raise TotpIsOn
    await work.factors.begin(account.user_id, sealed)


async def confirm_totp(work: OwnWork, reads: SecondFactor, code: str, recovery_codes: list[str]) -> None:
    """Let the secret count from now on. Raises `SessionNeeded`, `TotpIsOn`, `TotpIsOff`, `WrongSecondFactor`."""
    account = await locked_own_account(work)
    if account.totp is not None:
        raise TotpIsOn
    sealed = await work.factors.pending(account.user_id)
    if sealed is None:
        raise TotpIsOff
    counter = reads.counter_of(sealed, code, work.now)
    if counter is None:
        raise WrongSecondFactor
    await work.factors.confirm(account.user_id, counter)
    await work.factors.set_recovery_codes(account.user_id, [reads.recovery_hash(one) for one in recovery_codes])
    await work.record(account.record("user.totp_enable"))


async def disable_totp(work: OwnWork, reads: SecondFactor, proof: Proof, codes: Codes) -> None:
    """Give one-time codes up. Raises `SessionNeeded`, `WrongPassword`, `TotpIsOff`, `Invalid`, `WrongSecondFactor`."""
    account = await _proved_twice(work, reads, proof, codes)
    await work.factors.remove(account.user_id)
    await work.record(account.record("user.totp_disable"))


async def renew_recovery_codes(
    work: OwnWork, reads: SecondFactor, proof: Proof, codes: Codes, recovery_codes: list[str]
) -> None:
    """Have new recovery codes in place of all old ones. Raises what `disable_totp` raises."""
    account = await _proved_twice(work, reads, proof, codes)
    await work.factors.set_recovery_codes(account.user_id, [reads.recovery_hash(one) for one in recovery_codes])
    await work.record(account.record("user.recovery_codes_renew"))


async def _proved_twice(work: OwnWork, reads: SecondFactor, proof: Proof, codes: Codes) -> Account:
    account = await proved(work, proof)
    if account.totp is None:
        raise TotpIsOff
    if codes.totp is None and codes.recovery is None:
        raise Invalid("totp_code", "send the code of your authenticator, or a recovery_code")
    if not await is_second_factor(work.accounts, account, codes, reads, work.now):
        raise WrongSecondFactor
    return account
