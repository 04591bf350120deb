"""`hse worker`: the jobs."""

import logging
import os
import signal
import sys
import threading
from datetime import UTC, datetime

import sqlalchemy as sa
from apscheduler.schedulers.blocking import BlockingScheduler

from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.maintenance import run_maintenance
from hse.adapters.postgres.maintenance_clock import DOUBTED_FOR, ClocksDiffer, agreed_now
from hse.adapters.worker_metrics import WorkerMetrics
from hse.cli.options import ReadyFile
from hse.settings import SettingsError, read_settings
from hse.wiring.bookings import compose_booking_keeper
from hse.wiring.notifications import compose_notification_senders
from hse.wiring.outbox import HANDLERS, EventDispatcher
from hse.wiring.overdue import OverdueWatch
from hse.wiring.worker import compose_dispatch, compose_postman, serve_metrics

MAINTENANCE_SECONDS = 60
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s %(message)s"

logger = logging.getLogger(__name__)


def worker(ready_file: ReadyFile = None) -> None:
    """Run the jobs until SIGTERM or Ctrl-C: commands to devices; events; bookings; letters; partitions, rollups, retention."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    settings = read_settings(os.environ)
    if settings.database_url is None:
        raise SettingsError(["HSE_DATABASE_URL is not set"])
    engine = create_engine(settings.database_url)
    metrics = WorkerMetrics()
    serve_metrics(settings, metrics)
    postman = compose_postman(settings, engine)
    dispatch = compose_dispatch(settings, engine, metrics)
    if ready_file is not None:
        ready_file.touch(mode=0o600)
    scheduler = BlockingScheduler(timezone=UTC)
    scheduler.add_job(
        maintain,
        "interval",
        args=[engine, settings.retention_days],
        seconds=MAINTENANCE_SECONDS,
        # The first one at once, beside the other jobs: however long it takes, and if it fails, they go on.
        next_run_time=datetime.now(UTC),
        # A run that was missed, or that takes longer than a minute, is made up for by the next one.
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
    )
    # The handler runs in the main thread, which waits in start(); a job that is under way is finished first.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scheduler.shutdown(wait=False))
    stopping = threading.Event()
    dispatcher = EventDispatcher(engine=engine, handlers=HANDLERS)
    metrics.read_outbox(dispatcher.counts.outcomes, dispatcher.counts.sizes)
    jobs = [
        ("events", dispatcher.dispatch_until),
        ("bookings", compose_booking_keeper(settings, engine).keep_until),
        ("overdue", OverdueWatch(engine=engine).watch_until),
        ("mail", None if postman is None else postman.deliver_until),
        ("commands", None if dispatch is None else dispatch.work_until),
        *compose_notification_senders(settings, engine),
    ]
    threads = [threading.Thread(target=job, args=[stopping], name=name) for name, job in jobs if job is not None]
    for thread in threads:
        thread.start()
    scheduler.start()
    stopping.set()
    for thread in threads:
        thread.join()
    engine.dispose()


def maintain(engine: sa.Engine, retention_days: int) -> None:
    """One run of the storage's maintenance."""
    now = datetime.now(UTC)
    try:
        report = run_maintenance(engine, now=agreed_now(engine, now), retention_days=retention_days)
    except ClocksDiffer as error:
        logger.error("maintenance: %s", error)
        return
    logger.info("maintenance: %s", report)
    if report.is_clock_doubted:
        logger.error(
            "maintenance: the clock leapt to %s, so all goes on as of %s and nothing later expires: set the clock if it is wrong;"
            " if it is right it is believed after %d days of running",
            *(f"{moment:%Y-%m-%d %H:%M} UTC" for moment in (now, report.as_of)),
            DOUBTED_FOR.days,
        )
