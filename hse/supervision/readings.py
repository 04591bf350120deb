"""Numbers of the running machine: the core's `/metrics`, and what the database holds.

They are taken by a thread of their own, so that a core or a database that hangs delays the numbers and nothing else.
"""

import collections
import http.client
import logging
import math
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.telemetry import storage_summary
from hse.domain.telemetry.model import StorageSummary

logger = logging.getLogger(__name__)

PREFIX = "hse_ingest_"
HTTP_TIMEOUT_SECONDS = 2.0
SAMPLE_SECONDS = 1.0
HISTORY_SECONDS = 120
LATENCY_WINDOW_SAMPLES = 10
CIRCUIT_STATES = {0: "closed", 1: "half-open", 2: "open"}

Buckets = tuple[tuple[float, float], ...]  # (upper bound in seconds, cumulative count), by bound


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreReading:
    """What the core said at one moment; totals count since its start."""

    at: float
    events_accepted: float
    events_stored: float
    connections: float
    journal_bytes: float
    journal_segments: float
    drain_lag_seconds: float
    circuit: str
    ack_latency: Buckets


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the view shows. None stands for what could not be read."""

    core: CoreReading | None
    storage: StorageSummary | None
    events_per_second: float | None
    ack_p50_seconds: float | None
    ack_p99_seconds: float | None
    history: tuple[float, ...]  # events per second, one a second, the newest last


NOTHING = Picture(
    core=None, storage=None, events_per_second=None, ack_p50_seconds=None, ack_p99_seconds=None, history=()
)


def parse_core(text: str, at: float) -> CoreReading:
    """Read the core's exposition; raises `KeyError` when a metric that the view needs is not there."""
    values: dict[str, float] = {}
    buckets: list[tuple[float, float]] = []
    for family in text_string_to_metric_families(text):
        _collect(family, values, buckets)
    return CoreReading(
        at=at,
        events_accepted=values["events_accepted_total"],
        events_stored=values["events_stored_total"],
        connections=values["connections"],
        journal_bytes=values["journal_bytes"],
        journal_segments=values["journal_segments"],
        drain_lag_seconds=values["drain_lag_seconds"],
        circuit=CIRCUIT_STATES[int(values["database_circuit_state"])],
        ack_latency=tuple(sorted(buckets)),
    )


def _collect(family: Metric, values: dict[str, float], buckets: list[tuple[float, float]]) -> None:
    for sample in family.samples:
        name = sample.name.removeprefix(PREFIX)
        if name == "ack_latency_seconds_bucket":
            buckets.append((float(sample.labels["le"]), sample.value))
        elif not sample.labels or set(sample.labels) == {"lane"}:
            # Lanes add up, but for the lag, where the slowest is what counts.
            known = values.get(name, 0.0)
            values[name] = max(known, sample.value) if name == "drain_lag_seconds" else known + sample.value


def quantile(wanted: float, older: Buckets, newer: Buckets) -> float | None:
    """Return the quantile of what was counted between two readings, linear inside a bucket; None when nothing was.

    What lies in the last bucket, which has no upper bound, is given its lower bound, as Prometheus does.
    """
    before: Mapping[float, float] = dict(older)
    grown = [(bound, count - before.get(bound, 0.0)) for bound, count in newer]
    if not grown or grown[-1][1] <= 0:
        return None
    rank = wanted * grown[-1][1]
    lower_bound, lower_count = 0.0, 0.0
    for bound, count in grown:
        if count >= rank:
            if math.isinf(bound):
                return lower_bound
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / max(count - lower_count, 1.0)
        lower_bound, lower_count = bound, count
    return lower_bound


class Readings:
    """Takes a reading every second and keeps the last two minutes."""

    def __init__(self, *, database_url: str, ingest_http_port: int) -> None:
        self._metrics_url = f"http://127.0.0.1:{ingest_http_port}/metrics"
        self._engine = create_engine(database_url)
        self._cores: collections.deque[CoreReading] = collections.deque(maxlen=LATENCY_WINDOW_SAMPLES)
        self._history: collections.deque[float] = collections.deque(maxlen=HISTORY_SECONDS)
        self._stopped = threading.Event()
        self._picture = NOTHING
        self._thread = threading.Thread(target=self._run, name="readings", daemon=True)

    @property
    def picture(self) -> Picture:
        """The newest picture."""
        return self._picture

    def start(self) -> None:
        """Begin to take readings."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more; a reading that hangs is left behind, for the thread holds nothing that matters."""
        self._stopped.set()
        self._thread.join(timeout=HTTP_TIMEOUT_SECONDS)
        self._engine.dispose()

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self._picture = self._take()

    def _take(self) -> Picture:
        core = self._read_core()
        rate = None
        if core is None:
            self._cores.clear()
        else:
            if self._cores and core.events_accepted < self._cores[-1].events_accepted:
                self._cores.clear()  # the core was restarted and counts from zero
            if self._cores:
                last = self._cores[-1]
                rate = (core.events_accepted - last.events_accepted) / (core.at - last.at)
            self._cores.append(core)
        self._history.append(rate or 0.0)
        return Picture(
            core=core,
            storage=self._read_storage(),
            events_per_second=rate,
            ack_p50_seconds=self._latency(0.50),
            ack_p99_seconds=self._latency(0.99),
            history=tuple(self._history),
        )

    def _latency(self, wanted: float) -> float | None:
        if len(self._cores) < 2:
            return None
        return quantile(wanted, self._cores[0].ack_latency, self._cores[-1].ack_latency)

    def _read_core(self) -> CoreReading | None:
        try:
            with urllib.request.urlopen(self._metrics_url, timeout=HTTP_TIMEOUT_SECONDS) as answer:  # noqa: S310
                return parse_core(answer.read().decode("utf-8"), time.monotonic())
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            logger.debug("no reading of the core: %r", error)
            return None

    def _read_storage(self) -> StorageSummary | None:
        try:
            with self._engine.connect() as connection:
                connection.execute(sa.text("set local statement_timeout = '2s'"))
                return storage_summary(connection)
        except sa.exc.SQLAlchemyError as error:
            logger.debug("no reading of the database: %s", error)
            return None


def sparkline(values: Iterable[float], width: int) -> str:
    """Draw the newest `width` values as bars, the highest being the full height."""
    shown = list(values)[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return " " * len(shown)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(" " if value <= 0 else bars[min(int(value / highest * len(bars)), len(bars) - 1)] for value in shown)
