"""Slows the guessing of passwords and codes down.

What an account may fail from one address is few, and concerns that address only: nobody locks an owner out from elsewhere. What
it may fail from everywhere together slows down addresses from which it never signed in, and no others. What an address may fail,
whatever the accounts, stops who tries one password on many. Accounts that do not exist are counted like those that do.
"""

import ipaddress
import math

from hse.adapters.limits import Limit, RateLimiter, Verdict
from hse.domain.identity.entrance import Attempt, TooManyAttempts

SPAN_SECONDS = 15 * 60
TRIES_FROM_ADDRESS = 10
# Behind one address may be a whole office.
FAILURES_OF_ADDRESS = 100
FAILURES_OF_ACCOUNT = 30
RESET_SPAN_SECONDS = 60 * 60
RESETS_OF_ADDRESS = 60
RESETS_OF_ACCOUNT = 20
# Fewer, so that one stranger does not use up what the owner has from elsewhere.
RESETS_OF_ACCOUNT_AT_ADDRESS = 4
# Who owns one IPv6 address owns the rest of its network.
IPV6_PREFIX_BITS = 64


class SignInThrottle:
    """Counts tries and failures."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    async def begin(self, attempt: Attempt) -> None:
        """Count a try of this account from this address. Raises `TooManyAttempts`."""
        _refuse(await self._limiter.look(_of_address(attempt)))
        # Taken before it is known whether it fails: many tries at once do not all slip through.
        _refuse(await self._limiter.take(_of_account_at_address(attempt)))

    async def begin_as_stranger(self, attempt: Attempt) -> None:
        """Wait for room among the failures from everywhere. Raises `TooManyAttempts`."""
        _refuse(await self._limiter.look(_of_account(attempt)))

    async def begin_reset(self, attempt: Attempt) -> None:
        """Count a wish for a new password, which costs somebody a letter. Raises `TooManyAttempts`."""
        network = _network(attempt)
        _refuse(
            await self._limiter.take(
                Limit(name="reset-address", subject=network, requests=RESETS_OF_ADDRESS, seconds=RESET_SPAN_SECONDS),
                Limit(name="reset", subject=attempt.email, requests=RESETS_OF_ACCOUNT, seconds=RESET_SPAN_SECONDS),
                Limit(
                    name="reset-account-address",
                    subject=f"{attempt.email} {network}",
                    requests=RESETS_OF_ACCOUNT_AT_ADDRESS,
                    seconds=RESET_SPAN_SECONDS,
                ),
            )
        )

    async def failed(self, attempt: Attempt) -> None:
        """It was wrong."""
        await self._limiter.take(_of_address(attempt))
        await self._limiter.take(_of_account(attempt))

    async def succeeded(self, attempt: Attempt) -> None:
        """It was right: the tries of this account from this address are forgotten."""
        await self._limiter.forget(_of_account_at_address(attempt))


def network_of(address: str) -> str:
    """The network that its owner can use any address of: an IPv4 address itself, an IPv6 address's /64."""
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network(f"{parsed.compressed.partition('%')[0]}/{IPV6_PREFIX_BITS}", strict=False))


def _of_address(attempt: Attempt) -> Limit:
    return _limit("sign-in-address", _network(attempt), FAILURES_OF_ADDRESS)


def _of_account(attempt: Attempt) -> Limit:
    return _limit("sign-in-account", attempt.email, FAILURES_OF_ACCOUNT)


def _of_account_at_address(attempt: Attempt) -> Limit:
    return _limit("sign-in", f"{attempt.email} {_network(attempt)}", TRIES_FROM_ADDRESS)


def _limit(name: str, subject: str, requests: int) -> Limit:
    return Limit(name=name, subject=subject, requests=requests, seconds=SPAN_SECONDS)


def _network(attempt: Attempt) -> str:
    return "unknown" if attempt.address is None else network_of(attempt.address)


def _refuse(verdicts: tuple[Verdict, ...]) -> None:
    for verdict in verdicts:
        if not verdict.has_room:
            raise TooManyAttempts(max(1, math.ceil(verdict.retry_after_seconds)))
