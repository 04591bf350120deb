"""Dead letters: found by what a person knows of them, sent round again, given up; deleted when they are too old, or too many."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from hse.adapters.postgres import dead_letters
from hse.adapters.postgres.dead_letters import (
    UNREADABLE_MAX,
    DeadLetterFilter,
    discard,
    list_dead_letters,
    remove_excess,
    requeue,
)
from hse.adapters.postgres.maintenance import run_maintenance

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


# --- bounded ---

RETENTION = timedelta(days=30)
NOW = RECEIVED_AT + RETENTION


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five a device, three at a time."""
    monkeypatch.setattr(dead_letters, "UNREADABLE_MAX", 5)
    monkeypatch.setattr(dead_letters, "LETTERS_PER_BITE", 3)


def flood(engine: sa.Engine, device: UUID, count: int, *, code: str = "bad_payload", status: str = "permanent") -> None:
    """A device sends what cannot be understood, a second after each other, before `NOW`."""
    statement = (
        "insert into dead_letters (device_id, epoch, seq, received_at, code, reason, event, status)"
        " select :device, 0, number, cast(:now as timestamptz) - make_interval(secs => :count - number),"
        " :code, 'why', '\\x90', :status"
        "   from generate_series(1, :count) number"
    )
    values = {"device": device, "now": NOW, "count": count, "code": code, "status": status}
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)


def left_of(engine: sa.Engine, device: UUID) -> list[int]:
    with engine.connect() as connection:
        return sorted(
            letter.seq for letter in list_dead_letters(connection, DeadLetterFilter(device_id=device), limit=1000)
        )


def removed(engine: sa.Engine) -> dict[UUID, int]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select device_id, num_removed from dead_letter_removals"))
        return {row.device_id: row.num_removed for row in rows}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("status", ["permanent", "pending"])
def test_of_what_a_device_sends_and_nobody_understands_the_newest_are_kept_and_the_rest_counted(
    plain_engine: sa.Engine, status: str
) -> None:
    loud, quiet, other = (uuid4() for _ in range(3))
    flood(plain_engine, loud, 20, status=status)
    flood(plain_engine, quiet, 5, status=status)
    # These may become events one day.
    flood(plain_engine, other, 20, code="unknown_device", status=status)
    assert remove_excess(plain_engine, now=NOW, retention=RETENTION) == 15
    assert left_of(plain_engine, loud) == [16, 17, 18, 19, 20]
    assert (left_of(plain_engine, quiet), left_of(plain_engine, other)) == ([*range(1, 6)], [*range(1, 21)])
    assert removed(plain_engine) == {loud: 15}
    assert remove_excess(plain_engine, now=NOW, retention=RETENTION) == 0
    flood(plain_engine, loud, 2, status=status)
    assert remove_excess(plain_engine, now=NOW, retention=RETENTION) == 2
    assert removed(plain_engine) == {loud: 17}


@pytest.mark.usefixtures("few")
def test_they_are_kept_as_long_as_events_are_but_what_is_still_tried(
    plain_engine: sa.Engine, connection: sa.Connection
) -> None:
    for seq, status in enumerate(("permanent", "discarded", "pending") * 3):
        put(connection, seq=seq, status=status)
    connection.commit()
    assert remove_excess(plain_engine, now=NOW, retention=RETENTION) == 0
    assert remove_excess(plain_engine, now=NOW + timedelta(seconds=1), retention=RETENTION) == 6
    assert statuses(connection) == ["pending"] * 3
    assert removed(plain_engine) == {DEVICE: 6}


@pytest.mark.usefixtures("few")
def test_what_somebody_has_in_hand_is_left_for_the_next_time(
    plain_engine: sa.Engine, connection: sa.Connection
) -> None:
    device = uuid4()
    flood(plain_engine, device, 7)
    connection.execute(sa.text("select id from dead_letters where seq = 1 for update"))
    assert remove_excess(plain_engine, now=NOW, retention=RETENTION) == 1
    connection.rollback()
    assert remove_excess(plain_engine, now=NOW, retention=RETENTION) == 1
    assert (left_of(plain_engine, device), removed(plain_engine)) == ([*range(3, 8)], {device: 2})


def test_the_worker_s_maintenance_bounds_them(plain_engine: sa.Engine) -> None:
    device = uuid4()
    flood(plain_engine, device, UNREADABLE_MAX + 1)
    report = run_maintenance(plain_engine, now=NOW, retention_days=30)
    assert (report.dead_letters_removed, removed(plain_engine)) == (1, {device: 1})
