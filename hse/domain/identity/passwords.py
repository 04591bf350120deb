"""Which passwords are taken, and how one is proved."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from hse.domain.errors import DomainError, ErrorKind

PASSWORD_CHARS_MIN = 12
PASSWORD_CHARS_MAX = 128
# Of zxcvbn's scale from 0 to 4: 3 is "safely unguessable", for 10^8 guesses and more.
SCORE_MIN = 3
# Shorter parts of a name stand in too many words by chance.
PERSONAL_CHARS_MIN = 4


class WeakPassword(DomainError):
    """A password that would be guessed: too short, known from breaches, or made of the user's own name."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "identity.weak-password"

    def __init__(self, reason: str) -> None:
        super().__init__(f"choose another password: {reason}")
        self.reason = reason


class WrongPassword(DomainError):
    """The password that was to prove who is acting is not his."""

    kind: ClassVar[ErrorKind] = ErrorKind.INVALID
    code: ClassVar[str] = "identity.wrong-password"

    def __init__(self) -> None:
        super().__init__("this is not your password")


class PasswordsOverloaded(DomainError):
    """More people sign in at once than passwords can be hashed for."""

    kind: ClassVar[ErrorKind] = ErrorKind.UNAVAILABLE
    code: ClassVar[str] = "identity.overloaded"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many people sign in at this moment: try again in a few seconds")
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How hard a password is to guess, on zxcvbn's scale from 0 to 4, and why not harder."""

    score: int
    reason: str


class Passwords(Protocol):
    """Hashes passwords and judges them. Each call may wait for its turn; raises `PasswordsOverloaded` when that takes too long."""

    async def hash(self, password: str) -> str:
        """What is kept of a password."""

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the password; as much work without a hash, when it never is."""

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""

    async def judge(self, password: str, words: list[str]) -> Judgement:
        """How hard the password is to guess for somebody who knows these words."""


async def hash_new_password(passwords: Passwords, password: str, personal: Iterable[str]) -> str:
    """The hash of a password that a user chooses; `personal` are his names and his e-mail address. Raises `WeakPassword`."""
    if len(password) < PASSWORD_CHARS_MIN:
        raise WeakPassword(f"it needs {PASSWORD_CHARS_MIN} characters at least")
    if len(password) > PASSWORD_CHARS_MAX:
        raise WeakPassword(f"it may have {PASSWORD_CHARS_MAX} characters at most")
    words = sorted(set(_parts(personal)))
    folded = password.casefold()
    if any(len(word) >= PERSONAL_CHARS_MIN and word in folded for word in words):
        raise WeakPassword("it contains your name or a part of your e-mail address")
    judgement = await passwords.judge(password, words)
    if judgement.score < SCORE_MIN:
        raise WeakPassword(judgement.reason)
    return await passwords.hash(password)


def _parts(personal: Iterable[str]) -> Iterator[str]:
    """The words of names and of an e-mail address, without its top-level domain."""
    for text in personal:
        name, _, domain = text.casefold().partition("@")
        for part in (name, domain.rpartition(".")[0]):
            yield from (word for word in re.split(r"[\W_]+", part) if word)
