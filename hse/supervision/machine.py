"""`hse up`: which programs run on one machine, with which ports and environments, from start to drain."""

import contextlib
import http.client
import logging
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hse.embedded.postgres import EmbeddedPostgres
from hse.embedded.tether import tethered
from hse.embedded.valkey import EmbeddedValkey
from hse.settings import Settings
from hse.supervision.child import Program
from hse.supervision.interrupts import Interrupts, StopRequested
from hse.supervision.letters import Letters
from hse.supervision.presenters import Presenter
from hse.supervision.published import Published, publish, withdraw
from hse.supervision.readings import NOTHING, Readings
from hse.supervision.supervisor import Supervisor
from hse.supervision.view import draw, rows_of, save_svg

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
READY_TIMEOUT_SECONDS = 1.0
# PostgreSQL writes a checkpoint when it stops; with 4 GB of WAL to cover that can take a while on a slow disk.
POSTGRES_PATIENCE_SECONDS = 60.0
# Beyond the core's own drain timeout, for the last fdatasync and the joining of its threads.
DRAIN_MARGIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine, composed by `hse.wiring`. A server that is None runs elsewhere, and its URL was given."""

    data_dir: Path
    settings: Settings
    environment: Mapping[str, str]
    ports: dict[str, int]
    postgres: EmbeddedPostgres | None
    valkey: EmbeddedValkey | None
    database_url: str
    redis_url: str
    # Runs when the database answers: migrates it and puts the demo's devices there.
    prepare_database: Callable[[], None]
    simulate: list[str] | None  # the demo's command line after `hse`; None without a demo
    mail_dir: Path | None  # where letters become files; None where they are sent
    screenshot: tuple[Path, float] | None  # where to draw the view, and after how many seconds to stop


class Run:
    """A machine that is being run; main thread only."""

    def __init__(self, machine: Machine, interrupts: Interrupts, presenter: Presenter) -> None:
        self._machine = machine
        self._interrupts = interrupts
        self._presenter = presenter
        self._supervisor = Supervisor(interrupts, self._on_change)
        self._readings: Readings | None = None
        self._letters = None if machine.mail_dir is None else Letters(machine.mail_dir)
        self._is_published = False
        self._told: Published | None = None
        self._hindrances: dict[str, str] = {}

    def run(self) -> None:
        """Start everything, watch until a stop is asked for, drain. Raises what keeps it from starting, after the drain."""
        try:
            with contextlib.suppress(StopRequested):
                self._bring_up()
                self._watch()
        finally:
            if self._readings is not None:
                self._readings.stop()
            self._supervisor.drain()
            withdraw(self._machine.data_dir)

    def _bring_up(self) -> None:
        machine = self._machine
        withdraw(machine.data_dir)
        if machine.postgres is not None:
            self._supervisor.bring_up(postgres_program(machine.postgres, machine.data_dir))
            machine.postgres.ensure_database()
        if machine.valkey is not None:
            self._supervisor.bring_up(valkey_program(machine.valkey, machine.data_dir))
        machine.prepare_database()
        self._supervisor.bring_up(worker_program(machine))
        self._supervisor.bring_up(ingest_program(machine))
        self._supervisor.bring_up(api_program(machine))
        if machine.simulate is not None:
            self._supervisor.bring_up(simulator_program(machine, machine.simulate))
        publish(machine.data_dir, self._published())
        self._is_published, self._told = True, self._published()
        self._presenter.ready(self._published())

    def _watch(self) -> None:
        readings = Readings(
            database_url=self._machine.database_url, ingest_http_port=self._machine.ports["ingest_http"]
        )
        self._readings = readings
        readings.start()
        started_at = time.monotonic()
        while not self._interrupts.requests:
            self._supervisor.watch()
            self._publish_changes()
            self._tell_of_letters()
            self._show()
            if self._machine.screenshot is not None:
                path, after_seconds = self._machine.screenshot
                if time.monotonic() - started_at >= after_seconds:
                    save_svg(path, draw(readings.picture, rows_of(self._supervisor.children), self._published(), []))
                    return
            self._interrupts.sleep(LOOK_SECONDS)

    def _tell_of_letters(self) -> None:
        with self._unhindered("looking for letters"):
            for line in self._letters.new() if self._letters is not None else ():
                logger.info("%s", line)

    def _on_change(self) -> None:
        self._publish_changes()
        self._show()

    def _publish_changes(self) -> None:
        """What could not be written, as on a full disk, is written at a later look."""
        published = self._published()
        if self._is_published and published != self._told:
            with self._unhindered("writing up.json"):
                publish(self._machine.data_dir, published)
                self._told = published

    def _show(self) -> None:
        picture = NOTHING if self._readings is None else self._readings.picture
        published = self._published() if self._is_published else None
        with self._unhindered("showing the state"):
            self._presenter.show(picture, self._supervisor.children, published)

    @contextlib.contextmanager
    def _unhindered(self, doing: str) -> Iterator[None]:
        """Say once what keeps from telling what happens: it is no reason to end what works."""
        try:
            yield
            self._hindrances.pop(doing, None)
        except OSError as error:
            if self._hindrances.get(doing) != str(error):
                logger.error("%s failed, and all goes on: %s", doing, error)
            self._hindrances[doing] = str(error)

    def _published(self) -> Published:
        machine = self._machine
        return Published(
            ports=machine.ports,
            database_url=machine.database_url,
            redis_url=machine.redis_url,
            data_dir=str(machine.data_dir),
            pids=self._supervisor.pids(),
        )


def postgres_program(server: EmbeddedPostgres, data_dir: Path) -> Program:
    """The embedded PostgreSQL as a child."""
    return Program(
        name=server.name,
        command=server.command,
        environment=server.environment(),
        log=data_dir / "logs" / "postgres.log",
        is_ready=server.is_ready,
        before_start=server.clear,
        stop_signal=server.stop_signal,
        kill_signal=server.death_signal,
        stop_patience_seconds=POSTGRES_PATIENCE_SECONDS,
    )


def valkey_program(server: EmbeddedValkey, data_dir: Path) -> Program:
    """The embedded Valkey as a child."""
    return Program(
        name=server.name,
        command=server.command,
        environment=server.environment(),
        log=data_dir / "logs" / "valkey.log",
        is_ready=server.is_ready,
        before_start=server.clear,
        stop_signal=server.stop_signal,
    )


def ingest_program(machine: Machine) -> Program:
    """The ingest core. When the supervisor is killed it is killed too: its journal holds what it has acknowledged."""
    url = f"http://127.0.0.1:{machine.ports['ingest_http']}/health/readiness"
    return Program(
        name="ingest",
        command=lambda: hse_command("ingest"),
        environment=machine.environment,
        log=machine.data_dir / "logs" / "ingest.log",
        is_ready=lambda: answers_ok(url),
        stop_patience_seconds=machine.settings.drain_timeout_s + DRAIN_MARGIN_SECONDS,
    )


def api_program(machine: Machine) -> Program:
    """The control plane over HTTP."""
    url = f"http://127.0.0.1:{machine.ports['api']}/health/readiness"
    return Program(
        name="api",
        command=lambda: hse_command("api"),
        environment=machine.environment,
        log=machine.data_dir / "logs" / "api.log",
        is_ready=lambda: answers_ok(url),
    )


def worker_program(machine: Machine) -> Program:
    """The jobs."""
    return _with_ready_file(machine, "worker", ["worker"])


def simulator_program(machine: Machine, arguments: list[str]) -> Program:
    """The demo's devices."""
    return _with_ready_file(machine, "simulator", arguments)


def _with_ready_file(machine: Machine, name: str, arguments: list[str]) -> Program:
    """A program without a port: it says that it works by making a file."""
    ready_file = machine.data_dir / f"{name}.ready"
    return Program(
        name=name,
        command=lambda: hse_command(*arguments, "--ready-file", str(ready_file)),
        environment=machine.environment,
        log=machine.data_dir / "logs" / f"{name}.log",
        is_ready=ready_file.exists,
        before_start=lambda: ready_file.unlink(missing_ok=True),
    )


def hse_command(*arguments: str) -> list[str]:
    """Return the command line of `hse ARGUMENTS` in this environment, tethered to the calling process."""
    return tethered([sys.executable, "-m", "hse", *arguments], death_signal=signal.SIGKILL)


def answers_ok(url: str) -> bool:
    """Say whether a GET of `url` is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=READY_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return bool(answer.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return False
