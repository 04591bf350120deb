"""Nobody guesses a code within a day at more than one in a thousand, with the profile that locks are shipped with."""

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import combinations, product

import pytest

from hse.domain.booking.door_code_views import DIGITS, NUM_CODES, drawn, is_trivial
from hse.simulation.locks import CODES_MAX, SHIPPED, Lock

CHANCE_MAX = Fraction(1, 1000)
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
NUM_DRAWABLE = 997_120


def lock_with(num_codes: int, generator: random.Random, **changes: object) -> Lock:
    """A lock with codes as they are drawn, all valid for a week."""
    lock = Lock(**changes)  # type: ignore[arg-type]
    while len(lock.codes) < num_codes:
        params = {
            "code_id": str(len(lock.codes)),
            "version": 1,
            "code": drawn(generator.randrange),
            "valid_from": (NOW - timedelta(days=1)).isoformat(),
            "valid_until": (NOW + timedelta(days=7)).isoformat(),
            "max_usages": None,
        }
        lock.do("set_code", params, NOW)
    return lock


def num_guesses_in_a_day(num_codes: int) -> int:
    """How many wrong attempts the keypad takes, at whatever pace within a day."""
    lock = lock_with(num_codes, random.Random(1))
    codes = {code.digits for code in lock.codes.values()}
    wrong = next(one for one in map(str, range(100_000, 999_999)) if one not in codes)
    taken = 0
    while not lock.is_blocked(NOW):
        lock.enter(wrong, NOW)
        taken += 1
    for _ in range(20):
        lock.enter(wrong, NOW + SHIPPED.window - timedelta(seconds=1))
    assert len(lock.wrong) == taken
    return taken


def chance(num_codes: int, num_guesses: int) -> Fraction:
    """That one of so many different guesses is one of so many codes, of those that can be drawn at all."""
    missed = Fraction(1)
    for guess in range(num_guesses):
        missed *= Fraction(NUM_DRAWABLE - num_codes - guess, NUM_DRAWABLE - guess)
    return 1 - missed


def test_what_can_be_drawn_is_what_is_not_trivial() -> None:
    of_two_digits = {"".join(one) for pair in combinations("0123456789", 2) for one in product(pair, repeat=DIGITS)}
    even_steps = {
        "".join(str((first + step * place) % 10) for place in range(DIGITS))
        for first in range(10)
        for step in range(10)
    }
    trivial = of_two_digits | even_steps
    assert {"000000", "121212", "112211", "123456", "654321", "975319", "789012", "024680"} <= trivial
    assert all(is_trivial(digits) for digits in trivial)
    assert NUM_CODES - len(trivial) == NUM_DRAWABLE
    generator = random.Random(5)
    others = {f"{generator.randrange(NUM_CODES):06}" for _ in range(20_000)} | {"482913", "290580", "123457", "112233"}
    assert not any(is_trivial(digits) for digits in others - trivial)


def test_a_code_is_drawn_again_while_it_is_trivial() -> None:
    numbers = iter([0, 123_456, 7, 123_457, 482_913])
    assert drawn(lambda _: next(numbers)) == "123457"
    assert drawn(lambda _: 42_917) == "042917"


@pytest.mark.parametrize("num_codes", [1, 2, 3, 7, 20, 50, 100, 249, 250])
def test_the_chance_to_guess_a_code_within_a_day_is_one_in_a_thousand_at_most(num_codes: int) -> None:
    taken = num_guesses_in_a_day(num_codes)
    assert taken == SHIPPED.points_max // num_codes
    assert chance(num_codes, taken) <= CHANCE_MAX


def test_it_is_so_for_every_number_of_codes_that_a_lock_holds() -> None:
    assert all(chance(number, SHIPPED.points_max // number) <= CHANCE_MAX for number in range(1, CODES_MAX + 1))


def test_it_is_so_while_codes_come_and_go() -> None:
    """Each attempt hits with a chance of at most its points in what is left to be tried: points are all that counts."""
    assert Fraction(SHIPPED.points_max, NUM_DRAWABLE - SHIPPED.points_max) <= CHANCE_MAX


def test_locks_that_pause_for_five_minutes_after_five_attempts_are_guessed_easily() -> None:
    """Why a profile of our own: what locks commonly do bears 1440 attempts a day, for any number of codes."""
    assert chance(1, 1440) > CHANCE_MAX
    assert chance(250, 1440) > Fraction(30, 100)


@pytest.mark.parametrize(("num_codes", "num_locks"), [(1, 60), (25, 1000), (250, 4000)])
def test_a_guesser_who_plays_as_well_as_he_can_fares_as_was_calculated(num_codes: int, num_locks: int) -> None:
    """Many locks, each with a guesser who never tries a code twice, and none that is never drawn."""
    generator = random.Random(num_codes)
    taken = SHIPPED.points_max // num_codes
    num_opened = 0
    lock = lock_with(num_codes, generator)
    for _ in range(num_locks):
        lock.wrong.clear()
        offset = generator.randrange(NUM_CODES)
        guesses = (f"{(offset + 7919 * number) % NUM_CODES:06}" for number in range(NUM_CODES))
        tried = 0
        while not lock.is_blocked(NOW):
            guess = next(one for one in guesses if not is_trivial(one))
            tried += 1
            if lock.enter(guess, NOW).event_type == "code_used":
                num_opened += 1
                break
        assert tried <= taken
    expected = float(chance(num_codes, taken)) * num_locks
    # Five standard deviations of a count of rare events: the calculation is what holds, this is that it is about this lock.
    assert abs(num_opened - expected) <= 5 * max(expected, 1.0) ** 0.5, (num_opened, expected)


def test_a_right_code_gives_no_attempt_back_and_a_blocked_keypad_opens_for_nobody() -> None:
    lock = lock_with(250, random.Random(3))
    right = lock.codes["7"].digits
    for _ in range(3):
        assert lock.enter("000000", NOW).event_type == "code_rejected"
        if not lock.is_blocked(NOW):
            assert lock.enter(right, NOW).event_type == "code_used"
    assert lock.enter(right, NOW).metadata == {"reason": "blocked"}
    after = NOW + SHIPPED.window
    assert lock.enter(right, after).metadata == {"code_id": "7"}


def test_a_code_opens_from_the_first_moment_of_its_stay_to_before_the_last_and_no_more_often_than_it_may() -> None:
    lock = Lock()
    stay = {"valid_from": NOW.isoformat(), "valid_until": (NOW + timedelta(days=2)).isoformat()}
    answer = lock.do("set_code", {"code_id": "a", "version": 1, "code": "482913", "max_usages": 2, **stay}, NOW)
    assert answer.status == 0
    moments = [NOW - timedelta(seconds=1), NOW, NOW + timedelta(days=2), NOW + timedelta(days=2, seconds=-1), NOW]
    reports = [lock.enter("482913", moment).event_type for moment in moments]
    assert reports == ["code_rejected", "code_used", "code_rejected", "code_used", "code_rejected"]


def test_what_is_told_twice_or_late_changes_nothing() -> None:
    lock = Lock(capacity=2)
    stay = {"valid_from": NOW.isoformat(), "valid_until": (NOW + timedelta(days=2)).isoformat(), "max_usages": None}
    first = {"code_id": "a", "version": 1, "code": "482913", **stay}
    for _ in range(2):
        assert lock.do("set_code", first, NOW).status == 0
    assert lock.do("set_code", {**first, "code_id": "b"}, NOW).status == 11
    assert lock.do("set_code", {**first, "code_id": "b", "code": "739164"}, NOW).status == 0
    assert lock.do("set_code", {**first, "code_id": "c", "code": "550918"}, NOW).status == 10
    for _ in range(2):
        assert lock.do("clear_code", {"code_id": "a", "version": 2}, NOW).status == 0
    assert lock.do("set_code", first, NOW).status == 0
    assert sorted(lock.codes) == ["b"], "the command was older than the one that cleared the code"
    # What has ended makes room.
    later = NOW + timedelta(days=3)
    fresh = {"valid_from": later.isoformat(), "valid_until": (later + timedelta(days=1)).isoformat()}
    for name, digits in (("d", "550918"), ("e", "661029")):
        assert lock.do("set_code", {**first, **fresh, "code_id": name, "code": digits}, later).status == 0
    answer = lock.do("set_code", {"code_id": "f", "version": "x", "code": "999998"}, NOW)
    assert (answer.status, "999998" in str(answer)) == (2, False)
