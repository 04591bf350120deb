"""A door's lock: what it keeps through a loss of power, what it does when it is told, and what its keypad does to who guesses.

It does what docs/door-locks.md asks of a lock. No clock and no socket in here: who runs it says what time it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from hse.simulation.commanded import INVALID, UNKNOWN_COMMAND, Answer

CODES_MAX = 250
# Of codes that were cleared the number of the last command is kept, so that an older one, heard late, does not bring them back.
CLEARED_KEPT_MAX = 500
FULL, DUPLICATE = 10, 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How much guessing a lock bears.

    A wrong attempt costs as many points as codes open the door at that moment, one at least. Within `window` no more than
    `points_max` are spent: the keypad takes nothing more until enough of them are old enough. Right codes give nothing back. Of a
    million codes each attempt opens the door with a chance of its points in a million, so all of a window together with less than
    one in a thousand, however many codes there are, and however they come and go meanwhile.
    """

    points_max: int = 990
    window: timedelta = timedelta(hours=24)


SHIPPED = Profile()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a lock reports of its keypad. `code_id` of the code that was used; never digits."""

    time: datetime
    event_type: str
    metadata: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class KeptCode:
    """A code in the lock's memory."""

    digits: str = field(repr=False)
    valid_from: datetime
    valid_until: datetime
    max_usages: int | None
    version: int
    num_usages: int = 0

    def opens(self, now: datetime) -> bool:
        """Whether it opens the door now."""
        has_uses_left = self.max_usages is None or self.num_usages < self.max_usages
        return self.valid_from <= now < self.valid_until and has_uses_left


@dataclass(slots=True, kw_only=True)
class Lock:
    """One lock's memory, all of which outlives a loss of power: its codes, and the attempts that were wrong."""

    capacity: int = CODES_MAX
    profile: Profile = SHIPPED
    codes: dict[str, KeptCode] = field(default_factory=dict)
    # Version by the id of a code that was cleared, the oldest first.
    cleared: dict[str, int] = field(default_factory=dict)
    wrong: list[tuple[datetime, int]] = field(default_factory=list)
    is_open: bool = False

    def do(self, command_type: str, params: Mapping[str, Any], now: datetime) -> Answer:
        """Do what a command says."""
        try:
            match command_type:
                case "set_code":
                    return self._set(params, now)
                case "clear_code":
                    return self._clear(params)
                case "open_door":
                    self.is_open = True
                    return Answer(data={"open": True})
                case "ping":
                    return Answer(data={"codes": len(self.codes), "capacity": self.capacity})
                case _:
                    return Answer(status=UNKNOWN_COMMAND, message="unknown command")
        except (KeyError, TypeError, ValueError) as error:
            # Without what the error says: that may be the digits.
            return Answer(status=INVALID, message=f"the command cannot be read: {type(error).__name__}")

    def _set(self, params: Mapping[str, Any], now: datetime) -> Answer:
        code_id, version = str(params["code_id"]), int(params["version"])
        known = self.codes.get(code_id)
        if version < max(self.cleared.get(code_id, 0), 0 if known is None else known.version):
            return Answer(message="stale: a later command on this code is done already")
        digits = str(params["code"])
        if any(one.digits == digits for other, one in self.codes.items() if other != code_id):
            return Answer(status=DUPLICATE, message="duplicate")
        if known is None:
            self._drop_ended(now)
            if len(self.codes) >= self.capacity:
                return Answer(status=FULL, message="full")
        usages_max = params.get("max_usages")
        self.codes[code_id] = KeptCode(
            digits=digits,
            valid_from=datetime.fromisoformat(str(params["valid_from"])),
            valid_until=datetime.fromisoformat(str(params["valid_until"])),
            max_usages=None if usages_max is None else int(usages_max),
            version=version,
            num_usages=0 if known is None or known.digits != digits else known.num_usages,
        )
        self.cleared.pop(code_id, None)
        return Answer(data={"codes": len(self.codes)})

    def _clear(self, params: Mapping[str, Any]) -> Answer:
        code_id, version = str(params["code_id"]), int(params["version"])
        known = self.codes.get(code_id)
        if known is not None and version < known.version:
            return Answer(message="stale: a later command on this code is done already")
        self.codes.pop(code_id, None)
        self.cleared[code_id] = max(version, self.cleared.pop(code_id, 0))
        while len(self.cleared) > CLEARED_KEPT_MAX:
            del self.cleared[next(iter(self.cleared))]
        return Answer(data={"codes": len(self.codes)})

    def _drop_ended(self, now: datetime) -> None:
        """Room for a new code is made from those that will never open the door again."""
        for code_id in [one for one, code in self.codes.items() if code.valid_until <= now]:
            del self.codes[code_id]

    def num_opening(self, now: datetime) -> int:
        """How many codes open the door now."""
        return sum(code.opens(now) for code in self.codes.values())

    def is_blocked(self, now: datetime) -> bool:
        """Whether the keypad takes nothing: another wrong attempt would be one too many."""
        while self.wrong and self.wrong[0][0] <= now - self.profile.window:
            del self.wrong[0]
        spent = sum(points for _, points in self.wrong)
        return spent + max(1, self.num_opening(now)) > self.profile.points_max

    def enter(self, digits: str, now: datetime) -> Usage:
        """Somebody enters a code; what the lock reports of it. A keypad that is blocked does not even look at it."""
        if self.is_blocked(now):
            return Usage(time=now, event_type="code_rejected", metadata={"reason": "blocked"})
        for code_id, code in self.codes.items():
            if code.digits == digits and code.opens(now):
                code.num_usages += 1
                return Usage(time=now, event_type="code_used", metadata={"code_id": code_id})
        self.wrong.append((now, max(1, self.num_opening(now))))
        for code_id, code in self.codes.items():
            if code.digits == digits:
                return Usage(time=now, event_type="code_rejected", metadata={"code_id": code_id, "reason": "not-valid"})
        return Usage(time=now, event_type="code_rejected", metadata={"reason": "unknown"})
