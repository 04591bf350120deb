"""How a command's state may change: never backwards, whoever tells what, however late, often and disordered."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.domain.devices.device_commands import (
    ENDS,
    Dispatch,
    Report,
    Standing,
    State,
    Told,
    advanced,
    handed_over,
)

START = datetime(2030, 1, 1, tzinfo=UTC)
RANK = {"queued": 0, "sent": 1, "delivered": 2} | dict.fromkeys(ENDS, 3)

# From (state, dispatch), by what is told, to (state, dispatch). What is not here changes nothing.
TABLE: dict[tuple[State, Dispatch], dict[Told, tuple[State, Dispatch]]] = {
    # Not handed to any node: nothing that is told can be true, but that its time is over.
    ("queued", "waiting"): {
        Told.SENT: ("sent", "under_way"),
        Told.DELIVERED: ("delivered", "under_way"),
        Told.ANSWERED: ("succeeded", "over"),
        Told.REFUSED: ("failed", "over"),
        Told.MOVED: ("cancelled", "over"),
        Told.DEADLINE_PASSED: ("expired", "over"),
    },
    ("queued", "under_way"): {
        Told.SENT: ("sent", "under_way"),
        Told.DELIVERED: ("delivered", "under_way"),
        Told.NOT_SENT: ("queued", "waiting"),
        Told.ANSWERED: ("succeeded", "over"),
        Told.REFUSED: ("failed", "over"),
        Told.DEADLINE_PASSED: ("timed_out", "over"),
    },
    # Who hands it over again and fails knows nothing of the time before.
    ("queued", "in_doubt"): {
        Told.SENT: ("sent", "under_way"),
        Told.DELIVERED: ("delivered", "under_way"),
        Told.ANSWERED: ("succeeded", "over"),
        Told.REFUSED: ("failed", "over"),
        Told.DEADLINE_PASSED: ("timed_out", "over"),
    },
    ("sent", "under_way"): {
        Told.DELIVERED: ("delivered", "under_way"),
        Told.NOT_SENT: ("sent", "waiting"),
        Told.ANSWERED: ("succeeded", "over"),
        Told.REFUSED: ("failed", "over"),
        Told.DEADLINE_PASSED: ("timed_out", "over"),
    },
    ("delivered", "under_way"): {
        Told.ANSWERED: ("succeeded", "over"),
        Told.DEADLINE_PASSED: ("timed_out", "over"),
    },
    ("succeeded", "over"): {},
    ("failed", "over"): {},
    ("timed_out", "over"): {},
    ("expired", "over"): {},
    ("cancelled", "over"): {},
}


def standing(state: State, dispatch: Dispatch) -> Standing:
    """A command that was handed over once and stands so."""
    return Standing(
        state=state,
        dispatch=dispatch,
        attempts=1,
        sent_at=START if RANK[state] > 0 else None,
        delivered_at=START if state == "delivered" else None,
        finished_at=START if state in ENDS else None,
        result_at=START if state == "succeeded" else None,
        status=0 if state == "succeeded" else None,
    )


def outcome(now: Standing) -> Standing:
    """All of it but how it got there, which may be heard late."""
    return replace(now, sent_at=None, delivered_at=None, node=None)


@pytest.mark.parametrize("told", Told)
@pytest.mark.parametrize(("state", "dispatch"), TABLE)
def test_every_state_and_every_report_lead_where_the_table_says(state: State, dispatch: Dispatch, told: Told) -> None:
    before = standing(state, dispatch)
    after = advanced(before, Report(told=told, at=START + timedelta(seconds=1), status=0))
    assert (after.state, after.dispatch) == TABLE[state, dispatch].get(told, (state, dispatch))
    if told not in TABLE[state, dispatch] and not (state == "timed_out" and told is Told.ANSWERED):
        assert outcome(after) == outcome(before)


def test_an_answer_to_what_was_never_handed_over_is_no_answer() -> None:
    assert advanced(Standing(), Report(told=Told.ANSWERED, at=START, status=0)) == Standing()


def test_a_device_that_was_moved_is_not_sent_what_it_surely_has_not_got() -> None:
    not_sent = advanced(standing("sent", "under_way"), Report(told=Told.NOT_SENT, at=START))
    after = advanced(not_sent, Report(told=Told.MOVED, at=START, message="it stands elsewhere"))
    assert (after.state, after.message, after.finished_at) == ("cancelled", "it stands elsewhere", START)


def test_an_answer_after_the_deadline_is_kept_and_changes_no_state() -> None:
    before = standing("timed_out", "over")
    late = START + timedelta(minutes=5)
    after = advanced(before, Report(told=Told.ANSWERED, at=late, status=3, message="jammed", result={"a": 1}))
    assert after == replace(before, result_at=late, status=3, message="jammed", result={"a": 1})
    assert advanced(after, Report(told=Told.ANSWERED, at=late, status=0)) == after


def test_how_a_command_got_there_may_be_heard_after_its_answer() -> None:
    def at(seconds: int) -> datetime:
        return START + timedelta(seconds=seconds)

    answered = advanced(Standing(attempts=1, dispatch="under_way"), Report(told=Told.ANSWERED, at=at(5), status=0))
    delivered = advanced(answered, Report(told=Told.DELIVERED, at=at(4), node="n1"))
    sent = advanced(delivered, Report(told=Told.SENT, at=at(3), node="n1"))
    assert (sent.state, sent.sent_at, sent.delivered_at, sent.finished_at) == ("succeeded", at(4), at(4), at(5))
    assert sent.node == "n1"
    late = advanced(answered, Report(told=Told.SENT, at=at(9), node="n1"))
    assert late.sent_at == at(5), "a clock that is ahead sends nothing after the answer"


def test_a_device_that_refuses_fails_the_command_with_its_words() -> None:
    after = advanced(standing("delivered", "under_way"), Report(told=Told.ANSWERED, at=START, status=9, message="no"))
    assert (after.state, after.status, after.message, after.result_at) == ("failed", 9, "no", after.finished_at)


REPORTS = st.builds(
    Report,
    told=st.sampled_from(Told),
    at=st.integers(0, 100).map(lambda seconds: START + timedelta(seconds=seconds)),
    node=st.sampled_from([None, "n1", "n2"]),
    status=st.sampled_from([0, 0, 1, 7]),
    message=st.sampled_from([None, "why"]),
)
HAND_OVER = st.just(None)


@given(st.lists(REPORTS | HAND_OVER, max_size=12))
def test_no_course_of_events_leads_backwards(course: list[Report | None]) -> None:
    now = Standing()
    was_told_sent = False
    is_in_doubt = False
    first_answer: Report | None = None
    for step in course:
        before = now
        if step is None:
            # What is over, or surely at the device, is not handed over.
            if now.dispatch == "waiting" or (now.dispatch in ("under_way", "in_doubt") and now.state == "queued"):
                is_in_doubt = is_in_doubt or now.dispatch == "under_way"
                now = handed_over(now)
            continue
        now = advanced(now, step)
        assert RANK[now.state] >= RANK[before.state]
        if before.state in ENDS:
            assert (now.state, now.dispatch, now.finished_at) == (before.state, "over", before.finished_at)
        if before.result_at is not None:
            assert outcome(now) == outcome(before)
        if step.told in (Told.SENT, Told.DELIVERED) and before.state not in ENDS:
            was_told_sent = True
        assert not (is_in_doubt and now.state == "queued" and now.dispatch == "waiting"), "doubt that nobody cleared up"
        if first_answer is None and now.result_at is not None:
            first_answer = step
        assert (now.finished_at is not None) == (now.state in ENDS) == (now.dispatch == "over")
        times = [one for one in (now.sent_at, now.delivered_at, now.finished_at) if one is not None]
        assert times == sorted(times)
        assert advanced(now, step) == now, "told twice, it is the same"
    if now.state == "expired":
        assert not was_told_sent
        assert not is_in_doubt
    if first_answer is not None:
        assert now.status == first_answer.status
        assert now.state in ("succeeded", "failed", "timed_out")
