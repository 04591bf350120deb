"""The circuit breaker: when it lets nobody, one, everybody."""

from hse.adapters.breaker import FAILURES_MAX, WAIT_SECONDS_MAX, Breaker, Circuit


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_it_opens_after_three_failures_in_a_row_and_not_after_three_in_all() -> None:
    breaker = Breaker(now=Clock())
    for _ in range(FAILURES_MAX - 1):
        breaker.failed()
    breaker.succeeded()
    for _ in range(FAILURES_MAX - 1):
        breaker.failed()
    assert (breaker.circuit, breaker.admits()) == (Circuit.CLOSED, True)
    breaker.failed()
    assert (breaker.circuit, breaker.admits()) == (Circuit.OPEN, False)


def test_one_tries_for_all_and_a_success_lets_everybody_in() -> None:
    clock = Clock()
    breaker = Breaker(now=clock)
    for _ in range(FAILURES_MAX):
        breaker.failed()
    clock.seconds += breaker.retry_after_seconds
    assert breaker.circuit is Circuit.HALF_OPEN
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert [breaker.admits() for _ in range(3)] == [True, True, True]


def test_it_waits_longer_each_time_up_to_half_a_minute() -> None:
    clock = Clock()
    breaker = Breaker(now=clock)
    waits = []
    for _ in range(FAILURES_MAX - 1):
        breaker.failed()
    for _ in range(8):
        breaker.failed()
        waits.append(breaker.retry_after_seconds)
        clock.seconds += breaker.retry_after_seconds
        assert breaker.admits()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, WAIT_SECONDS_MAX, WAIT_SECONDS_MAX, WAIT_SECONDS_MAX]


def test_who_tried_and_never_said_how_it_went_keeps_nobody_out_for_good() -> None:
    clock = Clock()
    breaker = Breaker(now=clock)
    for _ in range(FAILURES_MAX):
        breaker.failed()
    clock.seconds += breaker.retry_after_seconds
    assert breaker.admits()
    assert not breaker.admits()
    clock.seconds += breaker.retry_after_seconds
    assert breaker.admits()
