"""The judge is judged: a lost, a doubled and an invented event are each seen, and a clean run is not accused."""

from collections import Counter
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.faults.checker import Checker, Kept, violations
from tests.faults.database import Database
from tests.faults.recorder import Promises, Record, Recorder, mark_of
from tests.faults.seqs import Seqs

STREAM = (uuid4(), 1)


def record_of(sent: list[tuple[int, int]], acked: int, rejected: dict[int, str] | None = None) -> Record:
    promises = Promises(sent=Seqs.of(sent), acked_up_to=acked, rejected=rejected or {})
    return Record(base_us=0, streams={STREAM: promises}, busy=0, errors=[], broken=[])


def kept_of(stored: list[tuple[int, int]], dead: dict[int, str] | None = None, *, doubled: int = 0) -> Kept:
    seqs = Seqs.of(stored)
    return Kept(num_rows=len(seqs) + doubled, stored=seqs, dead=Counter((dead or {}).items()))


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        pytest.param(record_of([(1, 10)], 10), kept_of([(1, 10)]), id="all is stored"),
        pytest.param(
            record_of([(1, 10)], 10, {4: "bad_value"}), kept_of([(1, 3), (5, 10)], {4: "bad_value"}), id="rejected"
        ),
        pytest.param(
            record_of([(1, 10)], 10), kept_of([(1, 9)], {10: "check_violation"}), id="refused by the database"
        ),
        pytest.param(record_of([(1, 10)], 5), kept_of([(1, 5)]), id="unacknowledged and absent"),
        pytest.param(record_of([(1, 10)], 5), kept_of([(1, 10)]), id="unacknowledged and present"),
        pytest.param(record_of([(1, 3), (8, 9)], 9), kept_of([(1, 3), (8, 9)]), id="a jump"),
    ],
)
def test_a_kept_promise_is_not_accused(record: Record, kept: Kept) -> None:
    assert violations(record, {STREAM: kept}) == []


@pytest.mark.parametrize(
    ("record", "kept", "sentence"),
    [
        pytest.param(record_of([(1, 10)], 10), kept_of([(1, 6), (8, 10)]), "lost 7", id="lost"),
        pytest.param(record_of([(1, 10)], 10), Kept(), "lost 1-10", id="all lost"),
        pytest.param(
            record_of([(1, 10)], 10), kept_of([(1, 10)], doubled=1), "1 events are stored twice", id="doubled"
        ),
        pytest.param(record_of([(1, 10)], 10), kept_of([(1, 11)]), "never sent 11", id="invented"),
        pytest.param(
            record_of([(1, 10)], 10), kept_of([(1, 10)], {11: "bad_value"}), "never sent 11", id="invented letter"
        ),
        pytest.param(
            record_of([(1, 9)], 9), kept_of([(1, 9)], {9: "x"}), "stored and dead letters as well 9", id="both"
        ),
        pytest.param(
            record_of([(1, 9)], 9, {9: "bad_value"}), kept_of([(1, 9)]), "no dead letter", id="rejected but stored"
        ),
        pytest.param(
            record_of([(1, 9)], 9, {9: "bad_unit"}), kept_of([(1, 8)], {9: "bad_type"}), "no dead letter", id="code"
        ),
    ],
)
def test_a_broken_promise_is_seen(record: Record, kept: Kept, sentence: str) -> None:
    assert any(sentence in found for found in violations(record, {STREAM: kept}))


def test_an_event_of_an_unknown_device_is_seen() -> None:
    stranger = (uuid4(), 1)
    assert violations(record_of([(1, 2)], 0), {stranger: kept_of([(1, 1)])}) == [f"{stranger[0]} epoch 1: never sent 1"]


def test_a_doubled_dead_letter_is_seen() -> None:
    kept = kept_of([(1, 8)])
    kept.dead[9, "bad_type"] = 2
    assert any("kept 2 times" in found for found in violations(record_of([(1, 9)], 9), {STREAM: kept}))


@pytest.fixture
def stored(recorder: Recorder, database: Database) -> Iterator[Database]:
    """Twenty events that were sent and acknowledged, and their rows."""
    recorder.sent(STREAM, 1, 20)
    recorder.acked(STREAM, 20)
    for seq in range(1, 21):
        insert(database, recorder, seq)
    yield database
    database.execute("delete from device_events where device_id = %s", [STREAM[0]])


def insert(database: Database, recorder: Recorder, seq: int, *, late_us: int = 0) -> None:
    mark = mark_of(1, seq)
    time_us = recorder.base_us + mark + late_us
    database.execute(
        "select ensure_event_partitions(to_timestamp(%s), to_timestamp(%s))", [time_us / 1e6, time_us / 1e6]
    )
    database.execute(
        "insert into device_events (time, device_id, event_type, value)"
        " values ('epoch'::timestamptz + %s * interval '1 microsecond', %s, 't', %s)",
        [time_us, STREAM[0], float(mark)],
    )


def delete(database: Database, seq: int) -> None:
    database.execute(
        "delete from device_events where device_id = %s and value = %s", [STREAM[0], float(mark_of(1, seq))]
    )


def test_rows_as_they_should_be_pass(stored: Database, checker: Checker) -> None:
    assert stored.execute("select count(*) from device_events where device_id = %s", [STREAM[0]]) == [(20,)]
    assert checker.check(acked_min=20).num_acked == 20


def test_a_deleted_row_is_lost(stored: Database, checker: Checker) -> None:
    delete(stored, 7)
    assert checker.violations() == [f"{STREAM[0]} epoch 1: lost 7"]


def test_a_row_inserted_twice_is_doubled(stored: Database, recorder: Recorder, checker: Checker) -> None:
    insert(stored, recorder, 7)
    assert checker.violations() == [f"{STREAM[0]} epoch 1: 1 events are stored twice"]


def test_a_row_that_nobody_sent_is_invented(stored: Database, recorder: Recorder, checker: Checker) -> None:
    insert(stored, recorder, 21)
    assert checker.violations() == [f"{STREAM[0]} epoch 1: never sent 21"]


def test_a_row_with_another_time_is_out_of_order(stored: Database, recorder: Recorder, checker: Checker) -> None:
    delete(stored, 7)
    insert(stored, recorder, 7, late_us=5)
    assert checker.violations() == [f"{STREAM[0]} epoch 1: 1 events have a time that is not theirs"]


def test_a_run_that_shows_nothing_does_not_pass(recorder: Recorder, checker: Checker) -> None:
    recorder.sent(STREAM, 1, 20)
    with pytest.raises(AssertionError, match="only 0 events were acknowledged"):
        checker.check()


def test_runs_of_numbers_behave_like_sets() -> None:
    some, others = {1, 2, 3, 7, 8, 12, 20, 21}, {2, 3, 4, 8, 9, 20}
    a, b = Seqs.single(some), Seqs.single(others)
    assert set(a - b) == some - others
    assert set(a & b) == some & others
    assert set(a | b) == some | others
    assert set(a.up_to(8)) == {1, 2, 3, 7, 8}
    assert len(a) == len(some)
    assert Seqs.of([(1, 9)]) - Seqs.of([(3, 4), (6, 6), (9, 30)]) == Seqs.of([(1, 2), (5, 5), (7, 8)])
