"""The processes that `hse up` supervises, each to be started by itself in production, and the migration before them."""

import json
import logging
import os
import resource
import signal
import sys
from datetime import UTC, datetime

import sqlalchemy as sa
import typer
from apscheduler.schedulers.blocking import BlockingScheduler

from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.maintenance import run_maintenance
from hse.adapters.postgres.migrate import current
from hse.cli.options import DataDir, ReadyFile, place_of, settings_with
from hse.settings import SettingsError, read_settings
from hse.wiring import migrate as bring_to_newest

STOP_POLL_MS = 200
MAINTENANCE_SECONDS = 60
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s %(message)s"

logger = logging.getLogger(__name__)


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest schema; nothing to do the second time."""
    place = place_of(data_dir)
    bring_to_newest(settings_with(data_dir), place.database_url)
    print(f"the database is at revision {current(place.database_url)}")


def ingest(data_dir: DataDir = None) -> None:
    """Run the ingest core until SIGTERM or Ctrl-C, then drain. Logs are JSON lines on stderr."""
    # Only this command needs the extension, and `hse doctor` has to be able to say that it is not built.
    from hse._ingest_core import Core

    try:
        core = Core(settings_with(data_dir).ingest_config_json())
    except ValueError as error:
        raise SettingsError(str(error).splitlines()) from error

    # A socket a connection: take what the system allows, as nobody sets the soft limit for a daemon.
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))

    def request_stop(*_: object) -> None:
        core.request_stop()

    # Python owns the signals; the core's threads never run Python, so this loop is what lets a handler run.
    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    try:
        ports = core.start()
    except (OSError, RuntimeError) as error:
        print(f"hse: the ingest core does not start: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(json.dumps({"ports": ports}), flush=True)
    while not core.wait(STOP_POLL_MS):
        pass
    raise typer.Exit(core.join())


def worker(ready_file: ReadyFile = None) -> None:
    """Run the jobs: partitions made ahead, rollups, retention; every minute until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    settings = read_settings(os.environ)
    if settings.database_url is None:
        raise SettingsError(["HSE_DATABASE_URL is not set"])
    engine = create_engine(settings.database_url)
    maintain(engine, settings.retention_days)
    if ready_file is not None:
        ready_file.touch(mode=0o600)
    scheduler = BlockingScheduler(timezone=UTC)
    scheduler.add_job(
        maintain,
        "interval",
        args=[engine, settings.retention_days],
        seconds=MAINTENANCE_SECONDS,
        # A run that was missed, or that takes longer than a minute, is made up for by the next one.
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
    )
    # The handler runs in the main thread, which waits in start(); a job that is under way is finished first.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.shutdown(wait=False))
    scheduler.start()
    engine.dispose()


def maintain(engine: sa.Engine, retention_days: int) -> None:
    """One run of the storage's maintenance."""
    report = run_maintenance(engine, now=datetime.now(UTC), retention_days=retention_days)
    logger.info("maintenance: %s", report)
