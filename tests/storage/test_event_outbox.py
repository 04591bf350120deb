"""The outbox of relevant events: each is handled once, whoever works, dies or fails beside it."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest

from hse.adapters.postgres import event_outbox
from hse.adapters.postgres.event_outbox import (
    ATTEMPTS_MAX,
    WINDOW_EVENTS_MAX,
    Handler,
    claim_events,
    outbox_state,
    put_off,
)
from hse.adapters.postgres.parked_events import ParkedEventFilter, discard, list_parked, requeue
from hse.adapters.worker_metrics import WorkerMetrics
from hse.domain.relevant import RelevantEvent
from hse.wiring.outbox import EventDispatcher

NUM_DEVICES = 7


class Broken(Exception):
    """What a handler raises in these tests."""


@pytest.fixture
def engine(plain_engine: sa.Engine) -> sa.Engine:
    """A database with a table that handlers write to."""
    with plain_engine.begin() as connection:
        connection.execute(sa.text("create table handled (place bigserial, id bigint, device_id uuid)"))
    return plain_engine


def fill(engine: sa.Engine, count: int, *, event_type: str = "alarm", devices: Sequence[UUID] = ()) -> None:
    """Put events into the outbox, as the core does; of one device after the other."""
    ids = [*devices] or [uuid4() for _ in range(NUM_DEVICES)]
    with engine.begin() as connection:
        connection.execute(
            sa.text("insert into event_outbox (time, device_id, event_type) values (now(), :device, :type)"),
            [{"device": ids[number % len(ids)], "type": event_type} for number in range(count)],
        )


def write_down(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
    """A handler that writes down what it is given."""
    connection.execute(
        sa.text("insert into handled (id, device_id) values (:id, :device_id)"),
        [{"id": event.id, "device_id": event.device_id} for event in events],
    )


def dispatcher(engine: sa.Engine, handler: Handler = write_down) -> EventDispatcher:
    return EventDispatcher(engine=engine, handlers={"alarm": handler})


def handled(engine: sa.Engine) -> list[int]:
    """The ids of what was handled, in the order in which it was."""
    with engine.connect() as connection:
        return list(connection.execute(sa.text("select id from handled order by place")).scalars())


def waiting(engine: sa.Engine) -> list[int]:
    """The ids of what waits."""
    with engine.connect() as connection:
        return list(connection.execute(sa.text("select id from event_outbox order by id")).scalars())


def make_due(engine: sa.Engine) -> None:
    """What is put off is due now."""
    with engine.begin() as connection:
        connection.execute(
            sa.text("update event_outbox set next_attempt_at = now() - interval '1 s' where attempts > 0")
        )


def test_each_event_is_handled_in_the_order_of_storing_and_removed(engine: sa.Engine) -> None:
    count = WINDOW_EVENTS_MAX + 10
    fill(engine, count, devices=[uuid4()])
    given = waiting(engine)
    worker = dispatcher(engine)
    assert worker.dispatch_batch() == WINDOW_EVENTS_MAX
    assert worker.dispatch_batch() == 10
    assert worker.dispatch_batch() == 0
    assert handled(engine) == given
    assert waiting(engine) == []
    assert worker.counts.events == {("alarm", "handled"): count}


def test_workers_share_a_backlog(engine: sa.Engine) -> None:
    fill(engine, 400, devices=[uuid4() for _ in range(40)])
    other, others = dispatcher(engine), []

    def while_another_works(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
        others.append(other.dispatch_batch())
        write_down(connection, events)

    assert dispatcher(engine, while_another_works).dispatch_batch() == 100
    assert others == [100]


def test_several_workers_handle_each_event_once_and_those_of_a_device_in_order(engine: sa.Engine) -> None:
    fill(engine, 4000, devices=[uuid4() for _ in range(200)])
    given = waiting(engine)

    def work() -> None:
        worker = dispatcher(engine)
        while waiting(engine):
            worker.dispatch_batch()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(handled(engine)) == given
    with engine.connect() as connection:
        out_of_order = connection.execute(
            sa.text(
                "select count(*) from (select id < lag(id) over (partition by device_id order by place) as is_late"
                " from handled) numbered where is_late"
            )
        ).scalar_one()
    assert out_of_order == 0


def test_nobody_overtakes_a_worker_that_is_at_a_device(engine: sa.Engine) -> None:
    """The second one finds newer events of that device free, and leaves them."""
    first, second = uuid4(), uuid4()
    fill(engine, 5, devices=[first])
    other, others = dispatcher(engine), []

    def while_another_works(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
        fill(engine, 3, devices=[first])
        fill(engine, 1, devices=[second])
        others.extend([other.dispatch_batch(), other.dispatch_batch()])
        write_down(connection, events)

    assert dispatcher(engine, while_another_works).dispatch_batch() == 5
    assert others == [1, 0]
    assert len(waiting(engine)) == 3


def test_an_event_that_its_handler_refuses_leaves_nothing_and_holds_up_no_other(engine: sa.Engine) -> None:
    device = uuid4()
    fill(engine, 5, devices=[device])
    given = waiting(engine)

    def refuses_the_second(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
        write_down(connection, events)
        if any(event.id == given[1] for event in events):
            raise Broken("no")

    worker = dispatcher(engine, refuses_the_second)
    worker.dispatch_batch()
    assert handled(engine) == [one for one in given if one != given[1]]
    assert waiting(engine) == [given[1]]
    assert worker.dispatch_batch() == 0, "it is not due before its time"
    make_due(engine)
    assert dispatcher(engine).dispatch_batch() == 1
    assert handled(engine)[-1] == given[1]


def test_after_the_last_attempt_an_event_is_parked_with_its_reason(
    engine: sa.Engine, caplog: pytest.LogCaptureFixture
) -> None:
    fill(engine, 1)
    (event_id,) = waiting(engine)

    def refuses(_connection: sa.Connection, _events: Sequence[RelevantEvent]) -> None:
        raise Broken("it cannot be")

    worker = dispatcher(engine, refuses)
    for _ in range(ATTEMPTS_MAX):
        assert worker.dispatch_batch() == 1
        make_due(engine)
    assert worker.dispatch_batch() == 0
    with engine.connect() as connection:
        row = connection.execute(sa.text("select id, attempts, reason from parked_events")).one()
        state = outbox_state(connection)
    assert tuple(row) == (event_id, ATTEMPTS_MAX, "Broken: it cannot be")
    assert (state.num_waiting, state.num_parked) == (0, 1)
    assert worker.counts.events == {("alarm", "retried"): ATTEMPTS_MAX - 1, ("alarm", "parked"): 1}
    assert "relevant event parked" in caplog.text


def test_what_was_parked_is_handled_when_a_person_says_so(engine: sa.Engine) -> None:
    device = uuid4()
    fill(engine, 3, devices=[device])
    fill(engine, 1)
    with engine.begin() as connection:
        while events := claim_events(connection, ["alarm"]):
            for event in events:
                put_off(connection, replace(event, attempts=ATTEMPTS_MAX - 1), "it could not be")
        first, *others = list_parked(connection, ParkedEventFilter(device_id=device))
        assert len(list_parked(connection, ParkedEventFilter())) == 4
        assert (first.event_type, first.attempts, first.reason) == ("alarm", ATTEMPTS_MAX, "it could not be")
        assert discard(connection, ParkedEventFilter(ids=[first.id])) == 1
        assert requeue(connection, ParkedEventFilter(event_type="something else")) == 0
        assert requeue(connection, ParkedEventFilter(device_id=device)) == len(others) == 2
        assert len(list_parked(connection, ParkedEventFilter())) == 1
    worker = dispatcher(engine)
    assert worker.dispatch_batch() == 2
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select device_id from handled")).scalars().all()
    assert rows == [device, device]


def test_the_worker_tells_how_much_waits_and_what_became_of_the_rest(engine: sa.Engine) -> None:
    fill(engine, 3, devices=[uuid4()])
    worker, metrics = dispatcher(engine), WorkerMetrics()
    metrics.read_outbox(worker.counts.outcomes, worker.counts.sizes)
    worker.dispatch_batch()
    fill(engine, 2, event_type="something_new")
    worker.look()
    told = generate_latest(metrics.registry).decode()
    assert 'hse_worker_relevant_events{outcome="handled"} 3.0' in told
    assert 'hse_worker_outbox{what="waiting"} 2.0' in told
    assert 'hse_worker_outbox{what="parked"} 0.0' in told


def test_an_error_of_the_database_at_one_event_is_that_event_s(engine: sa.Engine) -> None:
    fill(engine, 3, devices=[uuid4()])
    given = waiting(engine)

    def divides(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
        write_down(connection, events)
        for event in events:
            connection.execute(sa.text("select 1 / cast(:it as int)"), {"it": event.id - given[0]})

    dispatcher(engine, divides).dispatch_batch()
    assert handled(engine) == given[1:]
    assert waiting(engine) == given[:1]


def test_a_connection_that_is_lost_counts_as_nobody_s_attempt(engine: sa.Engine) -> None:
    fill(engine, 3, devices=[uuid4()])
    given = waiting(engine)

    def is_cut_off(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
        write_down(connection, events)
        connection.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(sa.exc.DBAPIError):
        dispatcher(engine, is_cut_off).dispatch_batch()
    assert handled(engine) == []
    assert waiting(engine) == given
    assert dispatcher(engine).dispatch_batch() == 3


def test_a_lock_that_somebody_holds_for_long_counts_as_nobody_s_attempt(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_outbox, "TRANSACTION_SETTINGS", ("set local lock_timeout = '50ms'",))
    fill(engine, 3, devices=[uuid4()])
    worker = dispatcher(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("lock table handled"))
        for _ in range(ATTEMPTS_MAX):
            with pytest.raises(sa.exc.DBAPIError, match="lock timeout"):
                worker.dispatch_batch()
            make_due(engine)
    assert worker.counts.events == {}
    assert worker.dispatch_batch() == 3


@pytest.mark.parametrize("sqlstate", ["40P01", "40001", "53100", "53200", "55P03", "57P03", "58030"])
def test_what_the_database_cannot_do_for_now_leaves_events_as_they_were(engine: sa.Engine, sqlstate: str) -> None:
    fill(engine, 3, devices=[uuid4()])

    def fails(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
        write_down(connection, events)
        connection.execute(sa.text(f"do $$ begin raise exception 'not now' using errcode = '{sqlstate}'; end $$"))

    with pytest.raises(sa.exc.DBAPIError, match="not now"):
        dispatcher(engine, fails).dispatch_batch()
    assert handled(engine) == []
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select attempts, next_attempt_at, last_error from event_outbox")).all()
    assert rows == [(0, None, None)] * 3
    assert dispatcher(engine).dispatch_batch() == 3


def test_what_takes_longer_than_it_may_is_put_off_and_holds_nobody_up(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_outbox, "TRANSACTION_SETTINGS", ("set local statement_timeout = '50ms'",))
    slow, quick = uuid4(), uuid4()
    fill(engine, 2, devices=[slow, quick])

    def dawdles(connection: sa.Connection, events: Sequence[RelevantEvent]) -> None:
        if any(event.device_id == slow for event in events):
            connection.execute(sa.text("select pg_sleep(1)"))
        write_down(connection, events)

    worker = dispatcher(engine, dawdles)
    while worker.dispatch_batch() > 0:
        pass
    assert len(handled(engine)) == 1
    with engine.connect() as connection:
        rows = connection.execute(sa.text("select device_id, attempts from event_outbox")).all()
    assert rows == [(slow, 1)]


def test_what_nobody_handles_is_left_for_a_newer_worker_and_then_removed(engine: sa.Engine) -> None:
    fill(engine, 2, event_type="something_new")
    worker = dispatcher(engine)
    assert worker.dispatch_batch() == 0
    worker.look()
    assert len(waiting(engine)) == 2
    with engine.begin() as connection:
        connection.execute(sa.text("update event_outbox set created_at = now() - interval '6 min' where id = 1"))
    worker.look()
    assert len(waiting(engine)) == 1
    assert worker.counts.events == {("other", "unknown"): 1}
    assert worker.counts.state is not None
    assert worker.counts.state.num_waiting == 1
