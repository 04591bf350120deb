"""`hse worker` as a process, killed where it hurts: the command reaches its device, under one id, and its outcome the database."""

import signal
import subprocess
from datetime import UTC, datetime

import psycopg

from hse.adapters.postgres.command_queues import apply_command_results
from hse.adapters.postgres.engine import transaction
from tests.conftest import wait_until
from tests.link.conftest import SECONDS_MAX, NewProcess, Site
from tests.link.node import FakeNode


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9, to the end."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_worker_that_dies_between_claiming_and_sending_loses_nothing(
    site: Site, node: FakeNode, new_process: NewProcess
) -> None:
    device = site.add_device()
    node.connect(device)
    node.is_held.set()
    doomed = new_process()
    sent = [site.send(device, f"t{number}") for number in range(3)]
    wait_until(lambda: node.num_calls > 0, "the worker is about to send", seconds=SECONDS_MAX)
    assert {site.command(one)["dispatch"] for one in sent} == {"under_way"}
    kill(doomed)
    node.is_held.clear()
    new_process()
    site.let_claims_run_out()
    for one in sent:
        site.becomes(one, "succeeded")
    assert node.types(device) == ["t0", "t1", "t2"]


def test_a_worker_that_dies_after_sending_before_it_wrote_so_sends_nothing_twice(
    site: Site, node: FakeNode, new_process: NewProcess
) -> None:
    device = site.add_device()
    node.connect(device, is_silent=True)
    node.is_mute.set()
    doomed = new_process()
    sent = site.send(device)
    wait_until(lambda: len(node.received) == 1, "the device has the command", seconds=SECONDS_MAX)
    assert site.states(sent) == ["queued"], "nobody knows that yet"
    kill(doomed)
    node.is_mute.clear()
    new_process()
    site.let_claims_run_out()
    site.becomes(sent, "delivered")
    node.answer(node.received[0])
    site.becomes(sent, "succeeded")
    assert [one.request_id for one in node.received] == [str(sent)]


def test_a_worker_that_dies_between_sending_and_the_answer_leaves_it_to_the_journal(
    site: Site, node: FakeNode, new_process: NewProcess
) -> None:
    device = site.add_device()
    node.connect(device, is_silent=True)
    doomed = new_process()
    sent = site.send(device)
    site.becomes(sent, "delivered")
    kill(doomed)
    event = site.event(device, {"request_id": str(sent), "status": 0, "data": {"open": True}}, datetime.now(UTC))
    for _ in range(2):
        with transaction(site.database_url) as connection:
            apply_command_results(connection, [event])
    found = site.command(sent)
    assert (found["state"], found["result"]) == ("succeeded", {"open": True})


def test_a_worker_that_is_told_to_stop_leaves_its_claims_to_the_others_at_once(
    site: Site, node: FakeNode, new_process: NewProcess
) -> None:
    device = site.add_device()
    node.connect(device)
    node.is_held.set()
    leaving = new_process()
    sent = site.send(device)
    wait_until(lambda: node.num_calls > 0, "the worker is about to send", seconds=SECONDS_MAX)
    leaving.send_signal(signal.SIGTERM)
    assert leaving.wait(SECONDS_MAX) == 0
    with psycopg.connect(site.database_url) as connection:
        assert connection.execute("select claimed_by from device_command_queues").fetchall() == [(None,)]
    node.is_held.clear()
    new_process()
    site.becomes(sent, "succeeded")
    assert len(node.received) == 1
