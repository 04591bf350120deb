"""Answers that come through the journal, and reports in any order: only what fits changes a command."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from hse.adapters.dispatch.writer import InDatabase, Released, Writer
from hse.adapters.postgres.command_queues import (
    RESULT_BYTES_MAX,
    ReportedCommand,
    apply_command_results,
    apply_reports,
    ask_for_a_try,
    claim,
    drop_claims,
    release,
    sweep_deadlines,
)
from hse.adapters.postgres.engine import create_engine
from hse.domain.devices.device_commands import Report, Told
from tests.link.conftest import Site

NOW = datetime(2100, 1, 1, tzinfo=UTC)
WORKER, OTHER = uuid4(), uuid4()


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


def hand_over(engine: sa.Engine, worker: UUID = WORKER) -> dict[UUID, list[str]] | None:
    """Claim all that is due; the types of the commands by device."""
    with engine.begin() as connection:
        claimed = claim(connection, worker, devices_max=100)
    if claimed is None:
        return None
    return {device: [one.type for one in commands] for device, commands in claimed.commands.items()}


def tell(engine: sa.Engine, command_id: UUID, device_id: UUID, told: Told, **more: Any) -> None:
    report = Report(told=told, at=NOW, **more)
    with engine.begin() as connection:
        apply_reports(connection, [ReportedCommand(command_id=command_id, device_id=device_id, report=report)])


def answer(engine: sa.Engine, site: Site, device_id: UUID, **metadata: Any) -> None:
    with engine.begin() as connection:
        apply_command_results(connection, [site.event(device_id, metadata, NOW)])


@pytest.mark.parametrize("source", ["hdp", "grpc", None])
def test_an_event_that_only_looks_like_an_answer_changes_nothing(
    site: Site, engine: sa.Engine, source: str | None
) -> None:
    device = site.add_device()
    sent = site.send(device)
    hand_over(engine)
    metadata = {"request_id": str(sent), "status": 0}
    with engine.begin() as connection:
        apply_command_results(connection, [site.event(device, metadata, NOW, source)])
    assert site.states(sent) == ["queued"]
    answer(engine, site, device, **metadata)
    assert site.command(sent)["state"] == "succeeded"


def test_an_answer_counts_once_and_only_from_the_device_that_was_asked(site: Site, engine: sa.Engine) -> None:
    device, other = site.add_device(), site.add_device()
    sent = site.send(device)
    answer(engine, site, device, request_id=str(sent), status=0)
    assert site.states(sent) == ["queued"], "it was not sent to it yet"
    hand_over(engine)
    answer(engine, site, other, request_id=str(sent), status=0)
    assert site.states(sent) == ["queued"]
    answer(engine, site, device, request_id=str(sent), status=7, message="jammed", data={"at": [1, 2]})
    answer(engine, site, device, request_id=str(sent), status=0)
    found = site.command(sent)
    assert (found["state"], found["status"], found["message"]) == ("failed", 7, "jammed")
    assert found["result"] == {"at": [1, 2]}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"request_id": "door-1", "status": 0},
        {"request_id": None, "status": 0},
        {"request_id": str(uuid4()), "status": 0},
        {"request_id": str(uuid4()), "status": "fine"},
        {"request_id": str(uuid4()), "status": -1},
        {"request_id": str(uuid4()), "status": 2**70},
        {"request_id": ["a"], "status": {}},
    ],
)
def test_an_answer_to_nothing_changes_nothing(site: Site, engine: sa.Engine, metadata: dict[str, Any]) -> None:
    device = site.add_device()
    sent = site.send(device)
    hand_over(engine)
    before = site.command(sent)
    answer(engine, site, device, **metadata)
    assert site.command(sent) == before


def test_what_cannot_be_kept_of_an_answer_is_left_out_and_the_answer_counts(site: Site, engine: sa.Engine) -> None:
    device = site.add_device()
    large, strange = site.send(device), site.send(device)
    hand_over(engine)
    answer(engine, site, device, request_id=str(large), status=0, data={"a": "x" * RESULT_BYTES_MAX})
    answer(engine, site, device, request_id=str(strange), status=0, data={"a": float("nan"), "b": 5.0, "c": 5.5})
    assert (site.command(large)["state"], site.command(large)["result"]) == ("succeeded", None)
    assert "cannot be kept" in site.command(large)["message"]
    assert site.command(strange)["result"] == {"a": None, "b": 5, "c": 5.5}


def test_reports_that_come_late_and_twice_lead_nowhere_back(site: Site, engine: sa.Engine) -> None:
    device = site.add_device()
    sent = site.send(device)
    hand_over(engine)
    for told in (Told.DELIVERED, Told.SENT, Told.NOT_SENT, Told.REFUSED, Told.DELIVERED):
        tell(engine, sent, device, told, node="n1")
        assert site.states(sent) == ["delivered"]
    tell(engine, sent, device, Told.ANSWERED, status=0)
    for told in Told:
        tell(engine, sent, device, told, status=5)
        assert (site.command(sent)["state"], site.command(sent)["status"]) == ("succeeded", 0)


def test_a_queue_has_one_worker_at_a_time_until_its_claim_runs_out(site: Site, engine: sa.Engine) -> None:
    device = site.add_device()
    site.send(device, "a")
    assert hand_over(engine) == {device: ["a"]}
    site.send(device, "b")
    assert hand_over(engine, OTHER) is None
    site.let_claims_run_out()
    assert hand_over(engine, OTHER) == {device: ["a", "b"]}
    with engine.begin() as connection:
        release(connection, WORKER, [device], were_connected=True)
    assert hand_over(engine) is None, "who lost a claim cannot give it back"
    with engine.begin() as connection:
        drop_claims(connection, OTHER)
    assert hand_over(engine) == {device: ["a", "b"]}


def test_what_comes_while_a_queue_is_claimed_is_due_right_after(site: Site, engine: sa.Engine) -> None:
    device = site.add_device()
    first = site.send(device, "a")
    hand_over(engine)
    tell(engine, first, device, Told.NOT_SENT)
    site.send(device, "b")
    with engine.begin() as connection:
        release(connection, WORKER, [device], were_connected=False)
    assert hand_over(engine) == {device: ["a", "b"]}


def test_a_device_that_is_away_is_tried_less_and_less_often_and_at_once_when_it_connects(
    site: Site, engine: sa.Engine
) -> None:
    device = site.add_device()
    sent = site.send(device)
    waits = []
    for _ in range(6):
        assert hand_over(engine) == {device: ["ping"]}
        tell(engine, sent, device, Told.NOT_SENT)
        with engine.begin() as connection:
            release(connection, WORKER, [device], were_connected=False)
        assert hand_over(engine) is None
        (row,) = site.execute("select extract(epoch from due_at - now()) as seconds from device_command_queues")
        waits.append(float(row["seconds"]))
        site.execute("update device_command_queues set due_at = now()")
    assert all(at_most - 4 < wait <= at_most for wait, at_most in zip(waits, (5, 10, 20, 40, 60, 60), strict=True)), (
        waits
    )
    hand_over(engine)
    tell(engine, sent, device, Told.NOT_SENT)
    with engine.begin() as connection:
        release(connection, WORKER, [device], were_connected=False)
        assert ask_for_a_try(connection, [device, uuid4()]) == 1
    assert hand_over(engine) == {device: ["ping"]}


def test_deadlines_end_what_was_surely_not_sent_otherwise_than_what_may_have_been(
    site: Site, engine: sa.Engine
) -> None:
    waiting, in_doubt, sent = (site.send(site.add_device()) for _ in range(3))
    site.execute("update device_command_queues set due_at = now() + interval '1 hour'")
    for one in (in_doubt, sent):
        site.execute("update device_commands set dispatch = 'under_way', attempts = 1 where id = %s", one)
    tell(engine, sent, site.command(sent)["device_id"], Told.SENT)
    later = site.send(site.add_device(), seconds=3600)
    site.execute("update device_commands set deadline = now() - interval '1 s' where id <> %s", later)
    with engine.begin() as connection:
        ended = sweep_deadlines(connection)
    assert sorted(one.state for one in ended) == ["expired", "timed_out", "timed_out"]
    assert site.states(waiting, in_doubt, sent, later) == ["expired", "timed_out", "timed_out", "queued"]
    with engine.begin() as connection:
        assert sweep_deadlines(connection) == []


def move(site: Site, *device_ids: UUID) -> None:
    """Have the devices stand at another establishment of their organisation."""
    (row,) = site.execute(
        "insert into establishments (organization_id, name, timezone) values (%s, 'Beach', 'UTC') returning id",
        site.organization_id,
    )
    site.execute("update devices set establishment_id = %s where id = any(%s)", row["id"], list(device_ids))


def test_what_was_sent_to_a_device_at_another_place_is_cancelled_and_not_handed_out(
    site: Site, engine: sa.Engine
) -> None:
    device, other = site.add_device(), site.add_device()
    # More than one claim takes.
    sent = [site.send(device, f"t{number}") for number in range(60)]
    site.send(other, "stays")
    move(site, device)
    with engine.begin() as connection:
        claimed = claim(connection, WORKER, devices_max=100)
    assert claimed is not None
    assert [one.state for one in claimed.ended] == ["cancelled"] * 60
    assert list(claimed.commands) == [other]
    found = site.command(sent[0])
    assert (found["state"], found["attempts"], found["sent_at"]) == ("cancelled", 0, None)
    assert found["message"] == "the device does not stand any more where it did when this was sent"
    assert set(site.states(*sent)) == {"cancelled"}
    assert site.execute("select device_id from device_command_queues") == [{"device_id": other}]


def test_what_may_be_at_a_device_that_was_moved_is_not_sent_again_and_may_still_be_answered(
    site: Site, engine: sa.Engine
) -> None:
    device = site.add_device()
    in_doubt = site.send(device)
    hand_over(engine)
    move(site, device)
    site.let_claims_run_out()
    assert hand_over(engine) == {}
    assert hand_over(engine) is None, "it is not looked at again and again"
    assert (site.command(in_doubt)["state"], site.command(in_doubt)["attempts"]) == ("queued", 1)
    answer(engine, site, device, request_id=str(in_doubt), status=0)
    assert site.states(in_doubt) == ["succeeded"]


def test_what_names_a_device_that_was_moved_is_cancelled_and_its_gateway_hears_nothing_of_it(
    site: Site, engine: sa.Engine
) -> None:
    gateway, staying, moving = (site.add_device() for _ in range(3))
    named = {"staying": [staying], "moving": [moving], "both": [staying, moving], "gone": [uuid4()]}
    sent = {name: site.send(gateway, name) for name in named}
    for name, ids in named.items():
        places = Jsonb({str(one): None for one in ids})
        site.execute("update device_commands set named_places = %s where id = %s", places, sent[name])
    move(site, moving)
    assert hand_over(engine) == {gateway: ["staying"]}
    assert site.states(*sent.values()) == ["queued", "cancelled", "cancelled", "cancelled"]


def test_nothing_happens_to_a_command_before_it_is_there_whatever_a_node_s_clock_says(
    site: Site, engine: sa.Engine
) -> None:
    device = site.add_device()
    sent = site.send(device)
    hand_over(engine)
    early = Report(told=Told.DELIVERED, at=NOW - timedelta(days=40_000), node="n1")
    with engine.begin() as connection:
        apply_reports(connection, [ReportedCommand(command_id=sent, device_id=device, report=early)])
    found = site.command(sent)
    assert found["sent_at"] == found["delivered_at"] == found["queued_at"]


async def test_a_report_that_cannot_be_written_holds_up_no_other(site: Site, engine: sa.Engine) -> None:
    device = site.add_device()
    sent = [site.send(device) for _ in range(5)]
    hand_over(engine)
    ended: list[str] = []
    with ThreadPoolExecutor(1) as executor:
        database = InDatabase(engine, executor)
        writer = Writer(database, WORKER, ended=lambda one: ended.append(one.state), look_again=lambda: None)
        for number, one in enumerate(sent):
            # Half a character, which no encoding has.
            message = "\ud800" if number == 2 else "done"
            report = Report(told=Told.ANSWERED, at=NOW, status=0, message=message)
            writer.note(ReportedCommand(command_id=one, device_id=device, report=report))
        writer.note(Released(device_id=device, were_connected=True))
        writing = asyncio.create_task(writer.run())
        await writer.settle()
        writing.cancel()
    assert site.states(*sent) == ["succeeded", "succeeded", "queued", "succeeded", "succeeded"]
    assert ended == ["succeeded"] * 4
    assert hand_over(engine) == {device: ["ping"]}, "it is in doubt, and tried again"
