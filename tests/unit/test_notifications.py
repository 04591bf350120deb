"""What a guest is told of his booking and when, decided on one look at it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hse.domain.booking.model import Stay
from hse.domain.booking.notifications import Addition, BookingNow, Plan, Queued, Terms, may_be_sent, plan

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
TERMS = Terms(
    guest_id=UUID(int=1), area_id=UUID(int=2), stay=Stay(check_in=NOW + DAY, check_out=NOW + 3 * DAY), num_guests=2
)
PENDING = BookingNow(status="pending", version=1, terms=TERMS, codes=None, remind_at=NOW + 3 * DAY - 2 * HOUR)
CONFIRMED = replace(PENDING, status="confirmed", version=2)
STAYS = replace(PENDING, status="in-progress", version=3)
CANCELLED = replace(PENDING, status="cancelled", version=4)
MOVED = replace(PENDING, version=5, terms=replace(TERMS, stay=Stay(check_in=NOW + 2 * DAY, check_out=NOW + 3 * DAY)))


def queued(number: int, kind: str, booking: BookingNow = PENDING, *, about: str = "", **more: Any) -> Queued:
    values = {"status": "pending", "may_have_left": False, "is_withdrawn": False, "channel": "email", **more}
    terms = booking.terms.fingerprint
    return Queued(number=number, type=kind, about=about, terms=terms, **values)  # type: ignore[arg-type]


def sent(number: int, kind: str, booking: BookingNow = PENDING, **more: Any) -> Queued:
    return queued(number, kind, booking, status="sent", may_have_left=True, **more)


def told(booking: BookingNow | None, rows: Sequence[Queued] = (), now: datetime = NOW) -> Plan:
    return plan(booking, rows, ["email"], now)


def added(found: Plan) -> list[str]:
    return [one.type for one in found.add]


def test_a_guest_is_told_what_is_so_and_was_not_told_yet() -> None:
    assert added(told(PENDING)) == ["booking_created"]
    assert added(told(CONFIRMED)) == ["booking_created", "booking_confirmed"]
    assert added(told(CONFIRMED, [sent(1, "booking_created")])) == ["booking_confirmed"]
    assert added(told(CONFIRMED, [sent(1, "booking_created"), queued(2, "booking_confirmed")])) == []
    assert added(told(CANCELLED)) == ["booking_cancelled"]
    assert told(None) == Plan()


def test_a_stay_that_is_over_is_not_told_of_and_what_waits_is_taken_back() -> None:
    for booking in (PENDING, STAYS, CANCELLED):
        found = told(booking, [queued(1, "booking_created"), sent(2, "booking_confirmed")], NOW + 3 * DAY)
        assert (found.add, found.withdraw, found.look_again_at) == ((), (1,), None)


def test_of_a_cancelled_or_deleted_booking_all_but_the_cancellation_is_taken_back() -> None:
    rows = [
        queued(1, "booking_created"),
        queued(2, "booking_confirmed", may_have_left=True),
        queued(3, "booking_cancelled"),
    ]
    assert told(CANCELLED, rows).withdraw == (1, 2)
    assert told(None, rows).withdraw == (1, 2, 3)
    assert not may_be_sent(CANCELLED, rows[0], rows, NOW)
    assert may_be_sent(CANCELLED, rows[2], rows, NOW)


def test_every_channel_is_told_and_one_that_is_chosen_later_repeats_nothing() -> None:
    found = plan(PENDING, [], ["email", "sms"], NOW)
    assert [(one.type, one.channel) for one in found.add] == [("booking_created", "email"), ("booking_created", "sms")]
    later = plan(CONFIRMED, [sent(1, "booking_created")], ["email", "sms"], NOW)
    assert added(later) == ["booking_confirmed", "booking_confirmed"]


def test_a_change_is_told_when_what_was_told_is_not_so_any_more() -> None:
    found = told(MOVED, [sent(1, "booking_created")])
    assert found.add == (Addition(type="booking_modified", channel="email", about="5"),)
    assert added(told(MOVED, [sent(1, "booking_created"), queued(2, "booking_modified", MOVED, about="5")])) == []
    back = [sent(1, "booking_created"), sent(2, "booking_modified", MOVED, about="5")]
    assert told(replace(PENDING, version=6), back).add == (
        Addition(type="booking_modified", channel="email", about="6"),
    )


def test_what_has_surely_not_left_says_what_is_so_now() -> None:
    found = told(MOVED, [queued(1, "booking_created")])
    assert (found.add, found.renew, found.withdraw) == ((), (1,), ())
    assert not may_be_sent(MOVED, queued(1, "booking_created"), [], NOW)


def test_what_may_have_left_is_not_sent_with_other_words_but_told_as_a_change() -> None:
    rows = [queued(1, "booking_created", may_have_left=True)]
    found = told(MOVED, rows)
    assert (added(found), found.renew, found.withdraw) == (["booking_modified"], (), (1,))
    assert not may_be_sent(MOVED, rows[0], rows, NOW)


def test_a_change_there_and_back_before_anything_was_said_is_no_change() -> None:
    rows = [sent(1, "booking_created"), queued(2, "booking_modified", MOVED, about="5")]
    assert told(replace(PENDING, version=6), rows).withdraw == (2,)


def test_a_change_that_could_not_be_told_is_not_queued_again_and_again() -> None:
    rows = [sent(1, "booking_created"), queued(2, "booking_modified", MOVED, about="5", status="failed")]
    assert added(told(MOVED, rows)) == []


def test_door_codes_are_told_while_they_are_on_their_locks_and_again_when_they_are_others() -> None:
    known = [sent(1, "booking_created"), sent(2, "booking_confirmed")]
    on_lock = replace(CONFIRMED, codes="a")
    assert told(on_lock, known).add == (Addition(type="check_in_instructions", channel="email", about="a"),)
    first = queued(3, "check_in_instructions", about="a")
    assert may_be_sent(on_lock, first, [], NOW)
    assert not may_be_sent(CONFIRMED, first, [], NOW), "they are not on the locks at this moment"
    assert told(CONFIRMED, [*known, first]) == Plan(look_again_at=NOW + 3 * DAY - 2 * HOUR)
    others = told(replace(CONFIRMED, codes="b"), [*known, first])
    assert (others.withdraw, [one.about for one in others.add]) == ((3,), ["b"])
    withdrawn = replace(first, status="failed", is_withdrawn=True)
    again = told(on_lock, [*known, withdrawn, sent(4, "check_in_instructions", about="b")])
    assert [one.about for one in again.add] == ["a"]
    assert added(told(replace(PENDING, codes="a"), known)) == []


def test_who_stays_is_reminded_of_his_check_out_once_it_is_near() -> None:
    known = [sent(1, "booking_created"), sent(2, "booking_confirmed")]
    early = told(STAYS, known, NOW + 2 * DAY)
    assert (added(early), early.look_again_at) == ([], STAYS.remind_at)
    near = told(STAYS, known, STAYS.remind_at)
    assert (added(near), near.look_again_at) == (["check_out_reminder"], NOW + 3 * DAY)
    assert added(told(CONFIRMED, known, STAYS.remind_at)) == []
    assert added(told(STAYS, [*known, sent(3, "check_out_reminder")], STAYS.remind_at)) == []
