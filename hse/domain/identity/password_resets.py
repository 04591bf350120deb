"""A new password for who has forgotten his: by a link that is sent to his address, and good for one use."""

from datetime import timedelta
from typing import ClassVar

from hse.domain.errors import DomainError, ErrorKind
from hse.domain.identity.entrance import Account, Attempt, Entrance, EntranceWork
from hse.domain.identity.letters import new_password_letter, reset_letter
from hse.domain.identity.passwords import hash_new_password

LINK_LIFETIME = timedelta(hours=1)


class ResetLinkInvalid(DomainError):
    """The link is unknown, was used, or is too old: one answer for all."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "identity.reset-link-invalid"

    def __init__(self) -> None:
        super().__init__("this link is not good, or not any more: ask for another one")


async def may_ask(entrance: Entrance, email: str) -> None:
    """Count a wish for a new password, whether there is such an account or not. Raises `TooManyAttempts`."""
    await entrance.throttle.begin_reset(Attempt(email=email.casefold(), address=entrance.address))


async def send_link(entrance: Entrance, email: str) -> None:
    """Send a link to the account with this address; without one, and to who is disabled, nothing.

    Not to be waited for by who asks: how long it takes would tell him.
    """
    async with entrance.transaction() as work:
        account = await work.accounts.by_email(email)
        if account is None or not account.is_admitted:
            return
        token = entrance.refresh_tokens.new()
        await work.resets.add(entrance.refresh_tokens.hash(token), account.user_id, work.now + LINK_LIFETIME)
        # Behind the #, which a browser sends to no server, and so into no log.
        link = work.mail.link(f"reset-password#token={token}")
        letter = reset_letter(account.email, account.first_name, link)
        await work.mail.queue(letter.kind, letter.recipient, letter.subject, letter.text)
        await work.record(account.record("user.password_reset_ask"), account.user_id)
        await work.commit()


async def reset_password(entrance: Entrance, token: str, password: str) -> None:
    """Have a new password; it ends all sessions, no API key. Raises `ResetLinkInvalid`, `WeakPassword`, `PasswordsOverloaded`."""
    token_hash = entrance.refresh_tokens.hash(token)
    async with entrance.transaction() as work:
        account = await _account(work, token_hash)
    password_hash = await hash_new_password(entrance.passwords, password, account.personal)
    async with entrance.transaction() as work:
        await work.accounts.locked(account.user_id)
        if not await work.resets.use(token_hash):
            raise ResetLinkInvalid
        await work.accounts.set_password(account.user_id, password_hash)
        await work.sessions.revoke_all_of(account.user_id, "password reset")
        num_live_keys = await work.accounts.count_live_keys(account.user_id)
        letter = new_password_letter(account.email, account.first_name, num_live_keys)
        await work.mail.queue(letter.kind, letter.recipient, letter.subject, letter.text)
        await work.record(account.record("user.password_reset"), account.user_id)
        await work.commit()
    # He who has read the letter is not the one who guessed.
    await entrance.throttle.succeeded(Attempt(email=account.email.casefold(), address=entrance.address))


async def _account(work: EntranceWork, token_hash: bytes) -> Account:
    account = await work.resets.account_of(token_hash)
    if account is None or not account.is_admitted:
        raise ResetLinkInvalid
    return account
