"""What is to be done next with a door code: it should be on its lock, or not; this is what is known; so do that, look again then.

`next_step` compares what should be with what is, and may be asked at any time, any number of times, by whoever lives: nothing
hangs on being told of anything. The states, as far as is known:

    planned -> pushing -> set -> active -> revoking -> revoked
                  |  ^                        ^
                  v  |                        |
                 failed  ---------------------+

`planned`: not sent to the lock yet. `pushing`: the lock was or will be told, and has not said yes. `set`: it has. `active`: and the
stay has begun. `revoking`: the lock may have the code, and is told to forget it. `revoked`: it surely has not got it any more, or
never had. `failed`, with the reason: it was not on the lock by the deadline. The lock is told all the same, for as long as the stay
lasts: when it takes the code late, the code is `set`, or `active`. From `failed` nothing leads out for a lock that is gone.

A lock that was told and did not answer may have the code; only what was surely never sent, or what the lock itself denies, is not
on it.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal

State = Literal["planned", "pushing", "set", "active", "revoking", "revoked", "failed"]
Reason = Literal["offline", "no-answer", "full", "duplicate", "unknown-lock", "refused", "taken-back", "lock-gone"]
Told = Literal["set", "clear"]

# What a lock says when it does not do what it was told (docs/door-locks.md).
STATUS_FULL, STATUS_DUPLICATE, STATUS_UNKNOWN_LOCK, STATUS_OFFLINE = 10, 11, 12, 13
REASONS: dict[int, Reason] = {
    STATUS_FULL: "full",
    STATUS_DUPLICATE: "duplicate",
    STATUS_UNKNOWN_LOCK: "unknown-lock",
    STATUS_OFFLINE: "offline",
}
# A lock that has been sent something answers within this, or is asked again: to be told twice does it no harm.
ANSWER_MAX = timedelta(seconds=60)
# What a lock refuses is tried again after 10 s, 20 s, ... 10 min.
FIRST_WAIT, WAIT_MAX = timedelta(seconds=10), timedelta(minutes=10)
# A booking that is made or changed in the last minute gives its lock this long, whatever the deadline would have been.
LATE_PUSH_MAX = timedelta(minutes=10)
# A command to take a code away waits so long for its lock, and is sent anew then.
CLEAR_WAITS_MAX = timedelta(days=7)
COMMAND_WAITS_MIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """When a code opens the door, from `valid_from` to before `valid_until`, and how often; None: any number of times."""

    valid_from: datetime
    valid_until: datetime
    max_usages: int | None = None

    def cover(self, other: "Terms") -> bool:
        """Whether who has a code with these terms can do all that he could with the others."""
        return self.valid_from <= other.valid_from and other.valid_until <= self.valid_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A code should be on its lock with these terms: from `push_from` on it is sent, and at `deadline` it is late."""

    terms: Terms
    push_from: datetime
    deadline: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeStanding:
    """Where a code stands.

    `on_lock`: what the lock has confirmed. `told` and `told_terms`: what the command says that is out, if one is. `num_tries`
    counts commands that came to nothing, since the last that did not.
    """

    state: State = "planned"
    reason: Reason | None = None
    on_lock: Terms | None = None
    may_be_on_lock: bool = False
    told: Told | None = None
    told_terms: Terms | None = None
    num_tries: int = 0
    not_before: datetime | None = None


class Fate(Enum):
    """What became of the command that is out."""

    WAITING = "it is surely not at the lock yet"
    UNDER_WAY = "it is, or may be, on its way or there"
    DONE = "the lock has done it"
    REFUSED = "the lock has not done it, and says why"
    UNANSWERED = "nobody knows, and nobody will"
    NEVER_SENT = "it is surely not at the lock, and will not be"
    TAKEN_BACK = "the same, because somebody took it back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is known of the command that is out; `since` when it was sent."""

    fate: Fate
    since: datetime
    status: int | None = None


class Act(Enum):
    """What is to be done now."""

    PUSH = "tell the lock the code"
    REDRAW = "choose other digits, and tell the lock those"
    CLEAR = "tell the lock to forget the code"
    TAKE_BACK = "take back the command that is out, and ask again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where the code stands now, what is to be done, and when to ask again at the latest; None: when something is heard."""

    standing: CodeStanding
    act: Act | None = None
    look_again_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing will ever be done with this code again."""
        return self.standing.state == "revoked" or self.standing.reason == "lock-gone"


def deadline_of(check_in: datetime, *, minutes: int, changed_at: datetime) -> datetime:
    """By when a code must be on its lock: so many minutes before the check-in, but a moment after what was decided late."""
    return max(check_in - timedelta(minutes=minutes), changed_at + LATE_PUSH_MAX)


def command_deadline(standing: CodeStanding, aim: Aim | None, now: datetime) -> datetime:
    """How long the command that is sent now waits for its lock."""
    if standing.told == "clear" or aim is None:
        return now + CLEAR_WAITS_MAX
    until = aim.deadline if now < aim.deadline else aim.terms.valid_until
    return max(until, now + COMMAND_WAITS_MIN)


def next_step(
    standing: CodeStanding, aim: Aim | None, heard: Heard | None, now: datetime, *, is_lock_there: bool = True
) -> Step:
    """What to do now with a code that has not ended. Without an aim it should not be on its lock; after its time it never should.

    A code that is being revoked is not wanted again: who needs one gets another.
    """
    heard_now = _heard(standing, heard, now)
    if aim is not None and (now >= aim.terms.valid_until or standing.state == "revoking"):
        aim = None
    if not is_lock_there:
        return _without_lock(heard_now)
    if aim is None:
        return _off_the_lock(heard_now, heard, now)
    return _onto_the_lock(heard_now, aim, heard, now)


def retried(standing: CodeStanding) -> CodeStanding:
    """The same, to be tried at once: somebody has mended something."""
    return replace(standing, num_tries=0, not_before=None)


def _heard(standing: CodeStanding, heard: Heard | None, now: datetime) -> CodeStanding:
    """What the command that was out has changed; one that is out still stays so."""
    if standing.told is None:
        return standing
    if heard is None:
        return _come_to_nothing(replace(standing, may_be_on_lock=True), "no-answer", now)
    match heard.fate:
        case Fate.WAITING:
            return standing
        case Fate.UNDER_WAY if now < heard.since + ANSWER_MAX:
            return replace(standing, may_be_on_lock=True)
        case Fate.UNDER_WAY | Fate.UNANSWERED:
            return _come_to_nothing(replace(standing, may_be_on_lock=True), "no-answer", now)
        case Fate.DONE if standing.told == "set":
            return _done(standing, on_lock=standing.told_terms, may_be_on_lock=True)
        case Fate.DONE:
            return _done(standing, on_lock=None, may_be_on_lock=False)
        case Fate.REFUSED:
            reason = REASONS.get(heard.status or 0, "refused")
            if standing.told == "set" and reason in ("full", "duplicate"):
                # A lock says so of codes that it has not got.
                standing = replace(standing, on_lock=None, may_be_on_lock=False)
            return _come_to_nothing(standing, reason, now)
        case Fate.TAKEN_BACK:
            return replace(standing, told=None, told_terms=None, reason="taken-back")
        case _:
            return replace(standing, told=None, told_terms=None, reason="offline")


def _done(standing: CodeStanding, *, on_lock: Terms | None, may_be_on_lock: bool) -> CodeStanding:
    return replace(
        standing,
        on_lock=on_lock,
        may_be_on_lock=may_be_on_lock,
        told=None,
        told_terms=None,
        reason=None,
        num_tries=0,
        not_before=None,
    )


def _come_to_nothing(standing: CodeStanding, reason: Reason, now: datetime) -> CodeStanding:
    wait = min(FIRST_WAIT * 2 ** min(standing.num_tries, 10), WAIT_MAX)
    return replace(
        standing,
        told=None,
        told_terms=None,
        reason=reason,
        num_tries=standing.num_tries + 1,
        # Other digits need no wait.
        not_before=None if reason == "duplicate" else now + wait,
    )


def _without_lock(standing: CodeStanding) -> Step:
    if not standing.may_be_on_lock:
        return Step(standing=replace(standing, state="revoked", told=None, told_terms=None))
    return Step(standing=replace(standing, state="failed", reason="lock-gone", told=None, told_terms=None))


def _off_the_lock(standing: CodeStanding, heard: Heard | None, now: datetime) -> Step:
    """Towards `revoked`."""
    if standing.told == "set" and heard is not None and heard.fate is Fate.WAITING:
        return Step(standing=standing, act=Act.TAKE_BACK)
    if not standing.may_be_on_lock:
        return Step(standing=replace(standing, state="revoked", on_lock=None, reason=None))
    revoking = replace(standing, state="revoking")
    if standing.told == "clear":
        return Step(standing=revoking, look_again_at=_answer_due(heard))
    if standing.not_before is not None and now < standing.not_before:
        return Step(standing=revoking, look_again_at=standing.not_before)
    # What may still be under way was sent before this, and a lock hears things in their order.
    return Step(
        standing=replace(revoking, told="clear", told_terms=None), act=Act.CLEAR, look_again_at=now + ANSWER_MAX
    )


def _onto_the_lock(standing: CodeStanding, aim: Aim, heard: Heard | None, now: datetime) -> Step:
    """Towards `set` and `active`, with the terms of the aim."""
    is_waiting = heard is not None and heard.fate is Fate.WAITING
    if standing.told is not None and standing.told_terms != aim.terms and is_waiting:
        return Step(standing=standing, act=Act.TAKE_BACK)
    if standing.told is None and standing.on_lock == aim.terms:
        on_lock = _named(standing, aim, now)
        return Step(standing=replace(on_lock, reason=None), look_again_at=_next_turn(aim, now))
    if standing.told_terms == aim.terms:
        reason: Reason | None = "offline" if is_waiting else standing.reason
        named = _named(replace(standing, reason=reason), aim, now)
        return Step(standing=named, look_again_at=_earliest(_answer_due(heard), _next_turn(aim, now)))
    if now < aim.push_from and not standing.may_be_on_lock:
        return Step(standing=replace(standing, state="planned", reason=None), look_again_at=aim.push_from)
    if standing.not_before is not None and now < standing.not_before:
        return Step(
            standing=_named(standing, aim, now), look_again_at=_earliest(standing.not_before, _next_turn(aim, now))
        )
    act = Act.REDRAW if standing.reason == "duplicate" and not standing.may_be_on_lock else Act.PUSH
    told = replace(standing, told="set", told_terms=aim.terms)
    return Step(
        standing=_named(told, aim, now), act=act, look_again_at=_earliest(now + ANSWER_MAX, _next_turn(aim, now))
    )


def _named(standing: CodeStanding, aim: Aim, now: datetime) -> CodeStanding:
    """The state of a code that is wanted and was or is to be sent. What opens the door for longer is on the lock, too."""
    if standing.on_lock is not None and standing.on_lock.cover(aim.terms):
        return replace(standing, state="set" if now < aim.terms.valid_from else "active")
    if now >= aim.deadline:
        return replace(standing, state="failed", reason=standing.reason or "no-answer")
    return replace(standing, state="pushing")


def _answer_due(heard: Heard | None) -> datetime | None:
    return heard.since + ANSWER_MAX if heard is not None and heard.fate is Fate.UNDER_WAY else None


def _next_turn(aim: Aim, now: datetime) -> datetime | None:
    """When the clock alone changes something next."""
    turns = (aim.push_from, aim.deadline, aim.terms.valid_from, aim.terms.valid_until)
    return min((one for one in turns if one > now), default=None)


def _earliest(*moments: datetime | None) -> datetime | None:
    return min((one for one in moments if one is not None), default=None)
