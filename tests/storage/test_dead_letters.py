"""Dead letters: found by what a person knows of them, sent round again, given up, never deleted."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres.dead_letters import DeadLetterFilter, discard, list_dead_letters, requeue

DEVICE = UUID("8c1f0000-0000-4000-8000-000000000001")
RECEIVED_AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def connection(plain_engine: sa.Engine) -> Iterator[sa.Connection]:
    with plain_engine.connect() as connection:
        yield connection


def put(connection: sa.Connection, *, seq: int, status: str, device_id: UUID = DEVICE, code: str = "refused") -> int:
    return int(
        connection.execute(
            sa.text(
                "insert into dead_letters (device_id, epoch, seq, received_at, code, reason, event, status, attempts)"
                " values (:device, 1, :seq, :at, :code, 'why', '\\x90', :status, 5) returning id"
            ),
            {"device": device_id, "seq": seq, "at": RECEIVED_AT, "code": code, "status": status},
        ).scalar_one()
    )


def statuses(connection: sa.Connection) -> list[str]:
    return list(connection.execute(sa.text("select status from dead_letters order by id")).scalars())


def seqs(connection: sa.Connection, wanted: DeadLetterFilter) -> list[int]:
    return [letter.seq for letter in list_dead_letters(connection, wanted)]


def test_they_are_found_by_id_device_code_and_status(connection: sa.Connection) -> None:
    other = uuid4()
    first = put(connection, seq=1, status="pending")
    put(connection, seq=2, status="permanent", device_id=other)
    put(connection, seq=3, status="permanent", code="bad_metadata")
    put(connection, seq=4, status="discarded")
    assert seqs(connection, DeadLetterFilter()) == [1, 2, 3]
    assert seqs(connection, DeadLetterFilter(ids=[first])) == [1]
    assert seqs(connection, DeadLetterFilter(ids=[])) == []
    assert seqs(connection, DeadLetterFilter(device_id=other)) == [2]
    assert seqs(connection, DeadLetterFilter(code="bad_metadata")) == [3]
    assert seqs(connection, DeadLetterFilter(status="discarded")) == [4]
    assert seqs(connection, DeadLetterFilter(status="permanent", device_id=DEVICE)) == [3]
    [letter] = list_dead_letters(connection, DeadLetterFilter(), limit=1)
    assert (letter.device_id, letter.epoch, letter.received_at, letter.event) == (DEVICE, 1, RECEIVED_AT, b"\x90")
    assert letter.source is None, "that of an older release"


def test_a_requeued_one_is_due_now_with_all_its_attempts(connection: sa.Connection) -> None:
    put(connection, seq=1, status="permanent")
    assert requeue(connection, DeadLetterFilter()) == 1
    [letter] = list_dead_letters(connection, DeadLetterFilter())
    assert (letter.status, letter.attempts) == ("pending", 0)
    assert (
        connection.execute(sa.text("select next_attempt_at <= clock_timestamp() from dead_letters")).scalar_one()
        is True
    )


def test_a_discarded_one_stays_and_is_requeued_only_by_name(connection: sa.Connection) -> None:
    put(connection, seq=1, status="pending")
    put(connection, seq=2, status="permanent")
    assert discard(connection, DeadLetterFilter()) == 2
    assert discard(connection, DeadLetterFilter()) == 0
    assert statuses(connection) == ["discarded", "discarded"]
    assert requeue(connection, DeadLetterFilter()) == 0
    assert requeue(connection, DeadLetterFilter(status="discarded")) == 2
    assert statuses(connection) == ["pending", "pending"]


def test_a_status_without_meaning_is_refused(connection: sa.Connection) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="dead_letters_status_check"):
        put(connection, seq=1, status="lost")
