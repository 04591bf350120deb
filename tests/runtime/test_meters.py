"""The replay reads the real samples, without the package's dependencies, and every number is one event for good."""

import sys
from datetime import UTC, datetime, timedelta

from hse.simulation.meters import HISTORY, meters, read_series

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


def test_the_samples_are_read_without_importing_the_package() -> None:
    names = [meter.name for meter in meters()]
    assert len(names) == len(set(names)) == 8
    assert "meter-il-electricity-cdd-hdd" in names
    assert not [name for name in sys.modules if name.split(".")[0] in ("opendsm", "pandas")]


def test_a_series_holds_the_recorded_values_and_the_temperature_of_the_same_hours() -> None:
    (meter,) = [meter for meter in meters() if meter.name == "meter-il-electricity-cdd-hdd"]
    series = read_series(meter)
    assert series.began_at == datetime(2015, 11, 22, 6, tzinfo=UTC)
    first_energy, first_temperature = series.readings[:2]
    assert (first_energy.event_type, first_energy.value, first_energy.unit) == ("energy", 0.29, "kWh")
    assert (first_temperature.event_type, first_temperature.value, first_temperature.unit) == (
        "temperature",
        21.01,
        "F",
    )
    assert first_energy.offset == first_temperature.offset == timedelta(0)


def test_a_replay_keeps_the_weekday_and_the_hour_and_never_goes_back() -> None:
    for meter in meters():
        series = read_series(meter)
        shifted = series.shifted(NOW)
        first = shifted.reading(1)
        assert NOW - HISTORY <= first.time < NOW - HISTORY + timedelta(weeks=1)
        assert (first.time.weekday(), first.time.hour) == (series.began_at.weekday(), series.began_at.hour)
        seam = len(series.readings)
        around = [shifted.reading(number).time for number in range(seam - 3, seam + 4)]
        assert around == sorted(around)
        assert shifted.reading(seam + 1).reading == shifted.reading(1).reading


def test_no_hour_is_told_twice() -> None:
    for meter in meters():
        hours = [(reading.offset, reading.event_type) for reading in read_series(meter).readings]
        assert len(hours) == len(set(hours)), meter.name
