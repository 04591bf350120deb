"""The judge of commands, judged: each kind of lie is found, and what is true is not called one."""

from dataclasses import replace
from uuid import UUID

import pytest

from tests.faults.commands import Done, KeptCommand, Sent, violations

DEVICE, OTHER = UUID(int=1), UUID(int=2)
FIRST, SECOND = UUID(int=11), UUID(int=12)
KEPT = KeptCommand(
    id=FIRST, device_id=DEVICE, kind="do", number=1, state="succeeded", status=0, states=("queued", "sent", "succeeded")
)
LATER = replace(KEPT, id=SECOND, number=2)
SENT = [Sent(DEVICE, 1, FIRST), Sent(DEVICE, 2, SECOND)]
DONE = [Done(DEVICE, 1, FIRST), Done(DEVICE, 2, SECOND)]


def judged(first: KeptCommand, done: list[Done]) -> list[str]:
    return violations(SENT, [first, LATER], {DEVICE: done})


@pytest.mark.parametrize(
    ("command", "is_done"),
    [
        (KEPT, True),
        (replace(KEPT, kind="fail", state="failed", status=7, states=("queued", "failed")), True),
        (replace(KEPT, state="timed_out", status=None, states=("queued", "sent", "delivered", "timed_out")), True),
        (replace(KEPT, state="timed_out", status=None, states=("queued", "timed_out")), False),
        (replace(KEPT, state="expired", status=None, states=("queued", "expired")), False),
    ],
)
def test_what_is_true_is_found_to_be(command: KeptCommand, is_done: bool) -> None:
    assert judged(command, DONE if is_done else DONE[1:]) == []


@pytest.mark.parametrize(
    ("command", "done", "said"),
    [
        (KEPT, DONE[1:], "nobody has done it"),
        (replace(KEPT, state="expired", states=("queued", "expired")), DONE, "done all the same"),
        (replace(KEPT, state="sent", states=("queued", "sent")), DONE, "not ended"),
        (replace(KEPT, states=("queued", "sent", "queued", "succeeded")), DONE, "forward"),
        (replace(KEPT, states=("queued", "timed_out", "succeeded")), DONE, "forward"),
        (replace(KEPT, states=("queued", "failed")), DONE, "last state"),
        (replace(KEPT, kind="fail"), DONE, "did not say so"),
        (replace(KEPT, state="failed", states=("queued", "failed")), DONE, "did not say that it failed"),
        (replace(KEPT, id=UUID(int=99)), DONE, "is not there"),
        (replace(KEPT, number=2), DONE, "is there 2 times"),
        (KEPT, DONE[::-1], "out of order"),
        (KEPT, [*DONE, Done(DEVICE, 1, UUID(int=99))], "sent under another id"),
        (KEPT, [*DONE, Done(DEVICE, 2, SECOND)], "twice"),
        (KEPT, [*DONE, Done(OTHER, 3, UUID(int=99))], "another device"),
    ],
)
def test_what_is_not_true_is_found(command: KeptCommand, done: list[Done], said: str) -> None:
    assert any(said in sentence for sentence in judged(command, done))
