"""`hse worker` as a process, killed where it hurts: the command reaches its device, under one id, and its outcome the database."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from hse.adapters.postgres.command_queues import apply_command_results
from hse.adapters.postgres.engine import transaction
from hse.embedded.tether import tethered
from tests.conftest import wait_until
from tests.link.conftest import SECONDS_MAX, Site
from tests.link.node import TOKEN, FakeNode

NewProcess = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def new_process(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[NewProcess]:
    """Start workers; none outlives the test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HSE_")}
    environment = {
        **kept,
        "HSE_DATABASE_URL": database_url,
        "HSE_REDIS_URL": redis_url,
        "HSE_SERVICE_TOKEN": TOKEN,
        "HSE_DATA_DIR": str(tmp_path),
    }
    made: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        command = tethered([sys.executable, "-m", "hse", "worker"], death_signal=signal.SIGKILL)
        with (tmp_path / "worker.log").open("ab") as log:
            made.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()
    print((tmp_path / "worker.log").read_text(encoding="utf-8")[-4000:])


def kill(process: "subprocess.Popen[bytes]") -> None:
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
