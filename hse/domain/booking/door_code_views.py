"""What is known of door codes and of the locks that they are on, and what digits may be."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final
from uuid import UUID

from hse.domain.booking.door_code_saga import State
from hse.domain.policy import Reach

DIGITS: Final = 6
NUM_CODES: Final = 10**DIGITS
# The type of a device that is a lock.
LOCK_TYPE: Final = "doorlock"


def is_trivial(digits: str) -> bool:
    """Whether this is what somebody who does not know tries first: one or two digits only (000000, 121212), or even steps, which
    may wrap (123456, 097531).

    Dates are not trivial here. Who guesses at codes that chance has chosen gains nothing by trying birthdays, and to leave the
    nearly 100 000 of them out would make every guess a tenth better.
    """
    steps = {(int(after) - int(before)) % 10 for before, after in pairwise(digits)}
    return len(set(digits)) <= 2 or len(steps) == 1


def drawn(random_below: Callable[[int], int]) -> str:
    """Six digits that are not trivial, each such code as likely as any other; `random_below(n)` must be out of reach of guesses."""
    while True:
        digits = f"{random_below(NUM_CODES):0{DIGITS}}"
        if not is_trivial(digits):
            return digits


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorCode:
    """A code of a lock. `code` is None for who may not read it, and when it has ended.

    `valid_from` and `valid_until` are what should be; `on_lock_from` and `on_lock_until` what the lock has confirmed, None where it
    has confirmed nothing. A backup code without a booking waits on its lock for one that needs it.
    """

    id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    device_id: UUID
    booking_id: UUID | None
    is_backup: bool
    state: State
    reason: str | None
    code: str | None = field(repr=False)
    valid_from: datetime
    valid_until: datetime
    max_usages: int | None
    usage_count: int
    last_used_at: datetime | None
    on_lock_from: datetime | None
    on_lock_until: datetime | None
    deadline: datetime
    num_tries: int
    command_id: UUID | None
    version: int
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLock:
    """How a lock is looked after, and how many codes are, or may be, on it. Version 0: nobody has said otherwise than usual."""

    device_id: UUID
    organization_id: UUID
    establishment_id: UUID | None
    num_backup_codes: int
    wrong_codes_max: int
    wrong_codes_minutes: int
    num_codes: int
    version: int

    def is_within(self, reach: Reach) -> bool:
        """Whether a reach covers it."""
        return reach.has_site(self.organization_id, self.establishment_id)
