"""Passwords: hashed with argon2id and judged with zxcvbn, both off the event loop, few at once, and after a bounded wait."""

import asyncio
import os
import threading
import unicodedata
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn import zxcvbn

from hse.adapters.processors import HALF_OF_PROCESSORS
from hse.domain.identity.passwords import Judgement, PasswordsOverloaded

# OWASP's first choice of argon2id parameters: 19 MiB of memory, two passes, one lane; some 25 ms of one core.
MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1
# Whoever signs in can make a machine work.
AT_ONCE_MAX = HALF_OF_PROCESSORS
# And of those it takes what nobody else wants, but for one part in seventy.
NICENESS = 19
# With so many before one, the wait would be longer than anybody's patience.
WAITING_MAX = 100
WAIT_SECONDS_MAX = 5
# zxcvbn's time grows with the square of the length, and what it would find wrong with the rest does not matter any more.
JUDGED_CHARS_MAX = 100

T = TypeVar("T")


class Argon2Passwords:
    """Hashes and judges."""

    def __init__(self, *, at_once_max: int = AT_ONCE_MAX, memory_kib: int = MEMORY_KIB) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=memory_kib, parallelism=LANES)
        self._limiter = anyio.CapacityLimiter(at_once_max)
        self._threads = ThreadPoolExecutor(at_once_max, "passwords", initializer=os.nice, initargs=(NICENESS,))
        # zxcvbn keeps the words of the user whom it judges for in a variable of the module.
        self._judging = threading.Lock()
        # Verified against where there is no hash, so that this takes as long.
        self._nobody = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """What is kept of a password. Raises `PasswordsOverloaded`."""
        return await self._in_turn(lambda: self._hasher.hash(_normal(password)))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the password; as much work without a hash, when it never is. Raises `PasswordsOverloaded`."""

        def is_verified() -> bool:
            try:
                return self._hasher.verify(password_hash or self._nobody, _normal(password))
            except (VerificationError, InvalidHashError):
                return False

        is_right = await self._in_turn(is_verified)
        return is_right and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    async def judge(self, password: str, words: list[str]) -> Judgement:
        """How hard the password is to guess for somebody who knows these words. Raises `PasswordsOverloaded`."""

        def judgement() -> Judgement:
            with self._judging:
                found = zxcvbn(password[:JUDGED_CHARS_MAX], user_inputs=words, max_length=JUDGED_CHARS_MAX)
            warning = str(found["feedback"]["warning"]).rstrip(".")
            reason = warning[:1].lower() + warning[1:] or "it is too easy to guess"
            return Judgement(score=int(found["score"]), reason=reason)

        return await self._in_turn(judgement)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        async with self._turn():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._limiter.statistics().tasks_waiting >= WAITING_MAX:
            raise PasswordsOverloaded(WAIT_SECONDS_MAX)
        borrower = object()
        with anyio.move_on_after(WAIT_SECONDS_MAX) as waiting:
            await self._limiter.acquire_on_behalf_of(borrower)
        if waiting.cancelled_caught:
            raise PasswordsOverloaded(WAIT_SECONDS_MAX)
        try:
            yield
        finally:
            self._limiter.release_on_behalf_of(borrower)


def _normal(password: str) -> str:
    """The same password typed on another keyboard is the same bytes (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
