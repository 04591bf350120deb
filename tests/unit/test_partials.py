"""Parts of an aggregate amount to the same whichever way they are put together."""

import statistics
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hse.domain.telemetry.partials import FUNCTIONS, Partial

# Meters count up to billions and move by fractions: where a sum of squares would have lost everything.
values = st.lists(st.floats(min_value=-10, max_value=10).map(lambda one: 4e9 + one), min_size=1, max_size=30)


def part_of(values: list[float], unit: str | None = "kWh") -> Partial:
    mean = statistics.fmean(values) if values else 0.0
    return Partial(
        samples=len(values) + 1,
        num_values=len(values),
        total=sum(values) if values else None,
        minimum=min(values, default=None),
        maximum=max(values, default=None),
        square_deviation=sum((one - mean) ** 2 for one in values),
        unit_min=unit,
        unit_max=unit,
    )


@given(parts=st.lists(values, min_size=1, max_size=6))
def test_parts_amount_to_what_their_values_do(parts: list[list[float]]) -> None:
    together = reduce(Partial.with_other, [part_of(one) for one in parts])
    everything = [value for part in parts for value in part]
    assert together.num_values == len(everything)
    assert together.samples == len(everything) + len(parts)
    assert FUNCTIONS["min"](together) == min(everything)
    assert FUNCTIONS["max"](together) == max(everything)
    assert FUNCTIONS["sum"](together) == pytest.approx(sum(everything))
    assert FUNCTIONS["avg"](together) == pytest.approx(statistics.fmean(everything))
    assert FUNCTIONS["stddev"](together) == pytest.approx(statistics.pstdev(everything), abs=1e-5)


def test_a_part_without_values_changes_no_number() -> None:
    empty, full = part_of([], unit=None), part_of([1.0, 3.0])
    for together in (empty.with_other(full), full.with_other(empty)):
        assert (together.total, together.average, together.standard_deviation) == (4.0, 2.0, 1.0)
        assert (together.samples, together.unit_min, together.unit_max) == (4, "kWh", "kWh")
    assert empty.average is None
    assert empty.standard_deviation is None


def test_what_is_not_known_of_a_part_is_not_known_of_the_whole() -> None:
    unknown = Partial(
        samples=1,
        num_values=1,
        total=1.0,
        minimum=1.0,
        maximum=1.0,
        square_deviation=None,
        unit_min="C",
        unit_max="K",
    )
    together = part_of([1.0, 3.0]).with_other(unknown)
    assert together.standard_deviation is None
    assert together.average == 5 / 3
    assert (together.unit_min, together.unit_max) == ("C", "kWh")
