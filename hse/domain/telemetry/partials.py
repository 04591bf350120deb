"""Parts of an aggregate, which are put together in any order: what is stored, cached and read are parts."""

import math
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Partial(NamedTuple):
    """What some events amount to. A tuple, because a chart is thousands of them, and making one must cost next to nothing.

    `samples` counts all of them, `num_values` those with a value that is counted. `square_deviation` is the sum of the squares
    of what values differ from their mean by; None when it is not known. `unit_min` and `unit_max` differ where there are
    several units.
    """

    samples: int
    num_values: int
    total: float | None
    minimum: float | None
    maximum: float | None
    square_deviation: float | None
    unit_min: str | None
    unit_max: str | None

    def with_other(self, other: "Partial") -> "Partial":
        """Both together. The deviations by Chan, Golub and LeVeque, 1979, which loses nothing where means are large."""
        return Partial(
            samples=self.samples + other.samples,
            num_values=self.num_values + other.num_values,
            total=_both(_plus, self.total, other.total),
            minimum=_both(min, self.minimum, other.minimum),
            maximum=_both(max, self.maximum, other.maximum),
            square_deviation=_square_deviation(self, other),
            unit_min=_both(min, self.unit_min, other.unit_min),
            unit_max=_both(max, self.unit_max, other.unit_max),
        )

    @property
    def average(self) -> float | None:
        """The mean; None without values."""
        return None if self.total is None or not self.num_values else self.total / self.num_values

    @property
    def standard_deviation(self) -> float | None:
        """Of the values themselves, not of what they might be a sample of; None when it is not known."""
        if self.square_deviation is None or not self.num_values:
            return None
        return math.sqrt(max(0.0, self.square_deviation) / self.num_values)


FUNCTIONS: Mapping[str, Callable[[Partial], float | int | None]] = {
    "avg": lambda part: part.average,
    "min": attrgetter("minimum"),
    "max": attrgetter("maximum"),
    "sum": attrgetter("total"),
    "count": attrgetter("samples"),
    "stddev": lambda part: part.standard_deviation,
}


def _plus(one: float, other: float) -> float:
    return one + other


def _both(function: Callable[[T, T], T], one: T | None, other: T | None) -> T | None:
    if one is None or other is None:
        return one if other is None else other
    return function(one, other)


def _square_deviation(one: Partial, other: Partial) -> float | None:
    one_average, other_average = one.average, other.average
    if one_average is None or other_average is None:
        return other.square_deviation if one_average is None else one.square_deviation
    if one.square_deviation is None or other.square_deviation is None:
        return None
    apart = other_average - one_average
    weight = one.num_values * other.num_values / (one.num_values + other.num_values)
    return one.square_deviation + other.square_deviation + apart * apart * weight
