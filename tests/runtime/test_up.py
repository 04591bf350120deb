"""`hse up` as a user runs it: real processes from start to drain, restarts, and what a second run finds."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from hse.adapters.ingest_stubs.devices_pb2 import NodeRequest
from hse.adapters.ingest_stubs.devices_pb2_grpc import DeviceStreamStub
from hse.embedded.account import EmbeddedServerError
from hse.settings import Settings, read_settings
from hse.supervision.machine import answers_ok
from hse.supervision.readings import CoreReading, parse_core
from hse.wiring.machine import UpOptions, compose_machine
from tests.conftest import wait_until

# Everything together, on a machine that may be busy.
READY_SECONDS = 90.0
DRAIN_SECONDS = 60.0


def hse(data_dir: Path, *arguments: str) -> Any:
    """Run a command on the running machine and return the JSON that it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HSE_")}
    command = [sys.executable, "-m", "hse", *arguments, "--data-dir", str(data_dir), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def up(data_dir: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Run `hse up` until ready; stop it afterwards if the test has not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HSE_")}
    command = [sys.executable, "-m", "hse", "up", "--data-dir", str(data_dir), "--ports", "auto", "--json", *arguments]
    log = data_dir.with_suffix(".log")
    with log.open("a") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield process, json.loads(line)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(DRAIN_SECONDS)


def published(data_dir: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((data_dir / "up.json").read_text())
    return value


def num_events(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from device_events").fetchone()
    assert row is not None
    return int(row[0])


def name_of_node(told: dict[str, Any], token: str) -> str:
    """Ask the core for its name, on the port of the control plane."""
    with grpc.insecure_channel(f"127.0.0.1:{told['ports']['grpc']}") as channel:
        metadata = (("authorization", f"Bearer {token}"),)
        return str(DeviceStreamStub(channel).GetNode(NodeRequest(), metadata=metadata, timeout=20).name)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.timeout(300)
def test_the_demo_runs_drains_and_goes_on_where_it_was(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with up(data_dir, "--replay-speed", "1000000") as (process, told):
        assert set(told) == {"ports", "database_url", "redis_url", "data_dir", "pids"}
        assert set(told["ports"]) == {
            "api",
            "device_http",
            "grpc",
            "hdp",
            "ingest_http",
            "mqtt",
            "postgres",
            "redis",
            "ws",
        }
        assert set(told["pids"]) == {"postgres", "valkey", "worker", "ingest", "api", "simulator"}
        assert published(data_dir) == told
        wait_until(lambda: num_events(told["database_url"]) > 1000, "readings are rows", seconds=READY_SECONDS)
        devices = hse(data_dir, "devices", "list")
        (meter,) = [one["device_id"] for one in devices if one["name"] == "meter-il-electricity-cdd-hdd"]
        last = hse(data_dir, "events", meter, "--last", "5")
        assert {event["event_type"] for event in last} <= {"energy", "temperature"}
        assert len(last) == 5
        process.send_signal(signal.SIGINT)
        assert process.wait(DRAIN_SECONDS) == 0
        assert not (data_dir / "up.json").exists()
        assert all(is_gone(pid) for pid in told["pids"].values())
    with up(data_dir, "--no-demo") as (_, told):
        stored = num_events(told["database_url"])
        assert stored > 1000
        with psycopg.connect(told["database_url"]) as connection:
            twice = connection.execute(
                "select count(*) from (select 1 from device_events group by time, device_id, event_type having count(*) > 1) d"
            ).fetchone()
        assert twice == (0,)


@pytest.mark.timeout(300)
def test_killed_children_come_back_and_are_published_anew(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with up(data_dir, "--no-demo") as (_, told):
        for name in ("ingest", "postgres", "valkey", "worker"):
            before = published(data_dir)["pids"][name]
            os.kill(before, signal.SIGKILL)
            wait_until(
                lambda name=name, before=before: published(data_dir)["pids"].get(name, before) != before,  # type: ignore[misc]
                f"{name} is back",
                seconds=READY_SECONDS,
            )
        readiness = f"http://127.0.0.1:{told['ports']['ingest_http']}/health/readiness"
        wait_until(lambda: answers_ok(readiness), "the core is ready again", seconds=READY_SECONDS)
        assert published(data_dir)["ports"] == told["ports"]


@pytest.mark.timeout(300)
def test_nothing_outlives_a_killed_supervisor_and_the_next_one_recovers(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with up(data_dir, "--no-demo") as (process, told):
        (issued,) = hse(data_dir, "devices", "add", "door")
        token = (data_dir / "secrets" / "service-token").read_text(encoding="ascii")
        assert name_of_node(told, token)
        with pytest.raises(grpc.RpcError):
            name_of_node(told, "wrong")
        process.kill()
        process.wait()
        wait_until(lambda: all(is_gone(pid) for pid in told["pids"].values()), "every child is gone")
    with up(data_dir, "--no-demo") as (_, told):
        assert name_of_node(told, token), "the token is kept"
        assert [one["device_id"] for one in hse(data_dir, "devices", "list")] == [issued["device_id"]]


def post(port: int, path: str, body: dict[str, Any], token: str | None = None) -> Any:
    """What the api answers to a POST that must succeed."""
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    address, content = f"http://127.0.0.1:{port}/api/v1/{path}", json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, content, headers)) as answer:
        return json.load(answer)


@pytest.mark.timeout(300)
def test_letters_become_files_and_their_links_are_printed(tmp_path: Path) -> None:
    data_dir, password = tmp_path / "data", "seven otters juggle plums"
    with up(data_dir, "--no-demo") as (_, told):
        port = told["ports"]["api"]
        create = [sys.executable, "-m", "hse", "admin", "create", "--email", "root@example.com", "--password-stdin"]
        subprocess.run([*create, "--data-dir", str(data_dir)], input=f"{password}\n", text=True, check=True)
        signed_in = post(port, "auth/login", {"email": "root@example.com", "password": password})
        with psycopg.connect(told["database_url"]) as connection:
            row = connection.execute("select id::text from roles where type = 'system' and name = 'root'").fetchone()
        assert row is not None
        invited = {"email": "eva@example.com", "first_name": "Eva", "last_name": "Paz", "role_id": row[0]}
        post(port, "invitations", invited, signed_in["access_token"])
        printed = data_dir.with_suffix(".log")
        link = re.compile(r"https?://\S+/invitations#token=(\S+)")
        wait_until(lambda: link.search(printed.read_text()) is not None, "the link is printed", seconds=READY_SECONDS)
        found = link.search(printed.read_text())
        assert found is not None
        (letter,) = (data_dir / "mail").iterdir()
        assert str(letter) in printed.read_text()
        assert "eva@example.com" in letter.read_text()
        assert letter.stat().st_mode & 0o777 == 0o600
        accepted = post(port, "invitations/accept", {"token": found[1], "password": "nine badgers paint fences"})
        assert accepted["email"] == "eva@example.com"


@pytest.mark.timeout(300)
def test_a_second_one_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with up(data_dir, "--no-demo") as (process, told):
        second = subprocess.run(
            [sys.executable, "-m", "hse", "up", "--data-dir", str(data_dir), "--ports", "auto"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert f"process {process.pid}" in second.stderr
        assert published(data_dir) == told


ALONE = UpOptions(is_auto_ports=True, has_demo=False, replay_speed=1.0, screenshot=None)


def test_a_lost_key_beside_a_database_is_told_instead_of_replaced(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres"
    cluster.mkdir()
    (cluster / "PG_VERSION").touch()
    settings = Settings(data_dir=tmp_path, redis_url="redis://127.0.0.1:1")
    with pytest.raises(EmbeddedServerError, match=r"secrets/key is missing.*restore the file"):
        compose_machine(settings, ALONE, {})
    assert not (tmp_path / "secrets" / "key").exists()


def test_files_are_found_by_the_children_from_wherever_they_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("own.pem", "key.pem"):
        (tmp_path / name).touch()
    given = {"HSE_TLS_CERTIFICATE_PATH": "own.pem", "HSE_TLS_KEY_PATH": "./key.pem", "HSE_DATA_DIR": "data"}
    elsewhere = {"HSE_DATABASE_URL": "postgresql://127.0.0.1:1/none", "HSE_REDIS_URL": "redis://127.0.0.1:1"}
    machine = compose_machine(read_settings(given | elsewhere), ALONE, given)
    told = {name: machine.environment[name] for name in given}
    assert told == {name: str(tmp_path / value) for name, value in given.items()}


@pytest.mark.timeout(300)
def test_the_view_finds_its_numbers_in_the_cores_metrics(tmp_path: Path) -> None:
    with up(tmp_path / "data", "--no-demo") as (_, told):

        def read_core() -> CoreReading:
            with urllib.request.urlopen(f"http://127.0.0.1:{told['ports']['ingest_http']}/metrics") as answer:
                return parse_core(answer.read().decode(), time.monotonic())

        # The core is ready for devices before it has met the database.
        wait_until(lambda: read_core().circuit == "closed", "the drain has met the database")
        reading = read_core()
        assert reading.events_accepted == 0
        assert reading.journal_segments > 0
        assert reading.ack_latency[-1][0] == float("inf")
