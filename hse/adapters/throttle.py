"""Slows the guessing of passwords and codes down.

A try is counted as a failure before it is judged, and given back when it was none: of many at once no more are judged than may
fail.

What an account may fail from one address is few, and concerns that address only: nobody locks an owner out from elsewhere. What
it may fail from all addresses from which it never signed in slows down such addresses, and no others. What an address may fail,
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
    """Counts the tries of one request."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter
        # Of failures, what this request has taken.
        self._taken: list[Limit] = []

    async def begin(self, attempt: Attempt) -> None:
        """Count a try of this account from this address. Raises `TooManyAttempts`."""
        of_address = _of_address(attempt)
        _refuse(await self._limiter.take(of_address, _of_account_at_address(attempt)))
        self._taken.append(of_address)

    async def begin_as_stranger(self, attempt: Attempt) -> None:
        """Count it among the failures from everywhere. Raises `TooManyAttempts`."""
        of_account = _of_account(attempt)
        _refuse(await self._limiter.take(of_account))
        self._taken.append(of_account)

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

    async def spare(self) -> None:
        """It was no failure."""
        taken, self._taken = self._taken, []
        if taken:
            await self._limiter.give_back(*taken)

    async def succeeded(self, attempt: Attempt) -> None:
        """It was right: the tries of this account from this address are forgotten."""
        await self.spare()
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
