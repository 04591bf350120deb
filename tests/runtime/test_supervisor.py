"""The supervisor with real processes: order, restarts with back-off, drain, insistence, and death with its parent."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hse.embedded.tether import tethered
from hse.settings import Settings
from hse.supervision import machine
from hse.supervision.child import RESTART_SECONDS_MAX, STEADY_SECONDS, Child, Program, State, restart_delay
from hse.supervision.interrupts import Interrupts, StopRequested
from hse.supervision.machine import Machine, Run
from hse.supervision.published import AlreadyRunning, NotRunning, Published, find_published, lock, publish
from hse.supervision.readings import Picture
from hse.supervision.supervisor import ChildDoesNotStart, Supervisor
from tests.conftest import wait_until

# Says that it is ready, writes its name when it is asked to stop, and stops.
OBEDIENT = """
    import pathlib, signal, sys, time
    name, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    def stop(*_):
        with (directory / "stopped").open("a") as file:
            file.write(name + "\\n")
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    (directory / f"{name}.ready").touch()
    while True:
        time.sleep(60)
"""
DEAF = OBEDIENT.replace("sys.exit(0)", "return")


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    interrupts = Interrupts()
    with interrupts.installed():
        yield interrupts


def program(directory: Path, name: str, code: str = OBEDIENT, *, patience: float = 30.0) -> Program:
    ready = directory / f"{name}.ready"
    command = [sys.executable, "-c", textwrap.dedent(code), name, str(directory)]
    return Program(
        name=name,
        command=lambda: tethered(command, death_signal=signal.SIGKILL),
        environment=dict(os.environ),
        log=directory / "logs" / f"{name}.log",
        is_ready=ready.exists,
        before_start=lambda: ready.unlink(missing_ok=True),
        stop_patience_seconds=patience,
    )


def watched(supervisor: Supervisor, is_true: Callable[[], bool]) -> Callable[[], bool]:
    def look() -> bool:
        supervisor.watch()
        return is_true()

    return look


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_children_are_stopped_in_the_reverse_of_their_order(tmp_path: Path, interrupts: Interrupts) -> None:
    supervisor = Supervisor(interrupts, lambda: None)
    for name in ("database", "core", "devices"):
        supervisor.bring_up(program(tmp_path, name))
    assert supervisor.is_ready
    supervisor.drain()
    assert (tmp_path / "stopped").read_text().split() == ["devices", "core", "database"]
    assert supervisor.pids() == {}


def test_a_killed_child_is_started_again_and_published(tmp_path: Path, interrupts: Interrupts) -> None:
    published: list[dict[str, int]] = []
    supervisor = Supervisor(interrupts, lambda: published.append(supervisor.pids()))
    supervisor.bring_up(program(tmp_path, "core"))
    first = supervisor.pids()["core"]
    os.kill(first, signal.SIGKILL)
    core = supervisor.children[0]
    wait_until(watched(supervisor, lambda: core.restarts == 1 and core.is_ready), "the child is back")
    second = supervisor.pids()["core"]
    assert second != first
    assert {"core": first} in published
    assert {} in published
    assert published[-1] == {"core": second}
    supervisor.drain()
    assert not is_alive(second)


def test_a_change_that_cannot_be_told_keeps_no_child_from_being_stopped(tmp_path: Path, interrupts: Interrupts) -> None:
    told: list[str] = []

    def tell() -> None:
        if told:
            raise OSError(errno.ENOSPC, "no space left on device")

    supervisor = Supervisor(interrupts, tell)
    for name in ("database", "core"):
        supervisor.bring_up(program(tmp_path, name))
    told.append("from now on the disk is full")
    supervisor.drain()
    assert (tmp_path / "stopped").read_text().split() == ["core", "database"]


def test_a_child_whose_log_cannot_be_opened_is_tried_again(tmp_path: Path, interrupts: Interrupts) -> None:
    supervisor = Supervisor(interrupts, lambda: None)
    supervisor.bring_up(program(tmp_path, "core"))
    core = supervisor.children[0]
    core.program.log.unlink()
    core.program.log.mkdir()
    os.kill(supervisor.pids()["core"], signal.SIGKILL)
    wait_until(watched(supervisor, lambda: core.deaths_in_a_row == 2), "it could not be started")
    assert "Is a directory" in str(core.fault)
    core.program.log.rmdir()
    wait_until(watched(supervisor, lambda: core.is_ready), "the child is back")
    supervisor.drain()


class Bystander:
    """A presenter that acts once everything runs."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def show(self, picture: Picture, children: list[Child], published: Published | None) -> None:
        """A full disk takes no lines."""
        if published is not None:
            raise OSError(errno.ENOSPC, "no space left on device")

    def ready(self, published: Published) -> None:
        """Everything runs."""
        threading.Thread(target=self._act).start()


def alone(data_dir: Path) -> Machine:
    """A machine whose servers run elsewhere."""
    return Machine(
        data_dir=data_dir,
        settings=Settings(),
        environment={},
        ports={"ingest_http": 1},
        postgres=None,
        valkey=None,
        database_url="postgresql://nobody@127.0.0.1:1/none",
        redis_url="redis://127.0.0.1:1",
        prepare_database=lambda: None,
        simulate=None,
        mail_dir=data_dir / "mail",
        screenshot=None,
    )


def test_what_cannot_be_written_or_read_beside_the_children_ends_none_of_them(
    tmp_path: Path, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "data"
    mail, draft = data_dir / "mail", data_dir / "up.json.new"
    mail.mkdir(parents=True)
    for name in ("worker", "ingest", "api"):
        made = program(tmp_path, name)
        monkeypatch.setattr(machine, f"{name}_program", lambda _, made=made: made)

    came_through: list[str] = []

    def pids() -> dict[str, int]:
        told: dict[str, int] = json.loads((data_dir / "up.json").read_text())["pids"]
        return told

    def hinder() -> None:
        try:
            before = pids()
            (mail / "gone.eml").symlink_to("nothing")
            draft.mkdir()
            (tmp_path / "worker.ready").unlink()
            os.kill(before["worker"], signal.SIGKILL)
            wait_until((tmp_path / "worker.ready").exists, "the worker is back")
            assert pids() == before, "there was no room for what is so now"
            draft.rmdir()
            wait_until(lambda: pids().keys() == before.keys() and pids() != before, "it is told when there is room")
            came_through.extend(name for name, pid in pids().items() if pid == before[name])
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    run = Run(alone(data_dir), interrupts, Bystander(hinder))
    run.run()
    assert came_through == ["ingest", "api"]
    assert (tmp_path / "stopped").read_text().split() == ["api", "ingest", "worker"]


def test_the_delay_doubles_and_has_a_limit() -> None:
    delays = [restart_delay(deaths) for deaths in range(1, 12)]
    assert delays[0] < 0.5
    assert delays[3] > 2 * delays[0]
    assert max(delays) <= RESTART_SECONDS_MAX


def test_a_child_that_never_starts_is_given_up_with_its_last_words(tmp_path: Path, interrupts: Interrupts) -> None:
    supervisor = Supervisor(interrupts, lambda: None)
    with pytest.raises(ChildDoesNotStart, match="no licence to run"):
        supervisor.bring_up(program(tmp_path, "core", "raise SystemExit('no licence to run')"))
    supervisor.drain()


def test_a_child_that_does_not_stop_in_time_is_killed(tmp_path: Path, interrupts: Interrupts) -> None:
    supervisor = Supervisor(interrupts, lambda: None)
    supervisor.bring_up(program(tmp_path, "core", DEAF, patience=0.3))
    pid = supervisor.pids()["core"]
    supervisor.drain()
    assert not is_alive(pid)


def test_a_second_stop_request_insists(tmp_path: Path, interrupts: Interrupts) -> None:
    supervisor = Supervisor(interrupts, lambda: None)
    supervisor.bring_up(program(tmp_path, "core", DEAF, patience=3600))
    pid = supervisor.pids()["core"]
    os.kill(os.getpid(), signal.SIGINT)
    assert interrupts.requests == 1
    # The second one comes while the drain waits for a child that is deaf.
    code = """
        import os, pathlib, sys, time
        while not pathlib.Path(sys.argv[1]).exists():
            time.sleep(0.02)
        os.kill(int(sys.argv[2]), 2)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "stopped"), str(os.getpid())]
    with subprocess.Popen(arguments):
        supervisor.drain()
    assert not is_alive(pid)


def test_a_stop_request_ends_the_start(tmp_path: Path, interrupts: Interrupts) -> None:
    supervisor = Supervisor(interrupts, lambda: None)
    never_ready = "import time\nwhile True: time.sleep(60)"
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopRequested):
        supervisor.bring_up(program(tmp_path, "core", never_ready))
    supervisor.drain()


def test_a_child_dies_with_a_killed_supervisor(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from hse.supervision.interrupts import Interrupts
        from hse.supervision.supervisor import Supervisor
        from tests.runtime.test_supervisor import program
        interrupts = Interrupts()
        with interrupts.installed():
            supervisor = Supervisor(interrupts, lambda: None)
            supervisor.bring_up(program(Path(sys.argv[1]), "core"))
            print(supervisor.pids()["core"], flush=True)
            interrupts.sleep(600)
    """
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert is_alive(pid)
        supervisor.kill()
    wait_until(lambda: not is_alive(pid), "the child is gone with its supervisor")


def test_a_steady_child_begins_anew_with_short_delays(tmp_path: Path) -> None:
    child = Child(program(tmp_path, "core"))
    now = time.monotonic()

    def died_after(ready_seconds: float) -> int:
        """Wait until it is ready, kill it `ready_seconds` later by the child's clock, and return its deaths in a row."""
        nonlocal now
        wait_until(lambda: child.watch(now) and child.is_ready, "the child is ready")
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        now += ready_seconds
        wait_until(lambda: child.watch(now), "the death is noticed")
        assert child.state is State.WAITING
        now += RESTART_SECONDS_MAX
        return child.deaths_in_a_row

    child.start(now)
    assert [died_after(0.0), died_after(0.0), died_after(STEADY_SECONDS + 1)] == [1, 2, 1]
    child.stop(now)
    assert child.watch_stop(now, is_insisted=False)


def test_two_supervisors_on_one_directory_refuse_clearly(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}.*--data-dir"), lock(tmp_path):
        pytest.fail("the second one got in")


def test_what_is_published_is_found_while_the_supervisor_lives(tmp_path: Path) -> None:
    published = Published(
        ports={"hdp": 5000},
        database_url="postgresql://u:p@h/d",
        redis_url="redis://h",
        data_dir=str(tmp_path),
        pids={"ingest": 1},
    )
    with pytest.raises(NotRunning, match="no `hse up` runs"):
        find_published(tmp_path)
    with lock(tmp_path):
        publish(tmp_path, published)
        assert find_published(tmp_path) == published
        assert json.loads((tmp_path / "up.json").read_text()) == json.loads(published.to_json())
        assert (tmp_path / "up.json").stat().st_mode & 0o077 == 0
    with pytest.raises(NotRunning, match="was killed"):
        find_published(tmp_path)
