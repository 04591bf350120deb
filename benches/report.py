"""Results as they are kept and shown: every round, then median and range; a ratio is formed within its round."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A bound on the median of a number: at least or at most."""

    text: str
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        """Say whether `value` is within the bound."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of every round."""

    name: str
    unit: str
    values: tuple[float, ...]
    wanted: Wanted | None = None

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into the results file."""
        values = {"median": self.median, "min": min(self.values), "max": max(self.values)}
        verdict = {} if self.wanted is None else {"wanted": self.wanted.text, "is_met": self.wanted.is_met(self.median)}
        return {**asdict(self), "wanted": None, **values, **verdict}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a scenario found: its figures, everything it measured, and what a reader must know."""

    scenario: str
    figures: tuple[Figure, ...]
    rounds: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into the results file."""
        return {
            "scenario": self.scenario,
            "figures": [figure.to_dict() for figure in self.figures],
            "notes": list(self.notes),
            "rounds": [dict(one) for one in self.rounds],
        }


class NotMeasured(Exception):
    """A scenario cannot run here; the message says why."""


class CheckFailed(Exception):
    """What was measured contradicts itself, so there is no result."""


def check(is_so: bool, message: str) -> None:
    """Raise `CheckFailed` unless `is_so`."""
    if not is_so:
        raise CheckFailed(message)


def figure_of(
    name: str, unit: str, rounds: Sequence[Mapping[str, Any]], key: str, wanted: Wanted | None = None
) -> Figure:
    """Collect `key` of every round."""
    return Figure(name=name, unit=unit, values=tuple(float(one[key]) for one in rounds), wanted=wanted)


def show(console: Console, result: Result) -> None:
    """Print one result as a table and its notes."""
    table = Table(
        "",
        "median",
        "min .. max",
        "wanted",
        "",
        box=None,
        header_style="dim",
        title=result.scenario,
        title_justify="left",
    )
    for figure in result.figures:
        verdict = ""
        if figure.wanted is not None:
            verdict = "[green]met" if figure.wanted.is_met(figure.median) else "[red]not met"
        table.add_row(
            figure.name,
            f"{_number(figure.median)} {figure.unit}",
            f"{_number(min(figure.values))} .. {_number(max(figure.values))}",
            figure.wanted.text if figure.wanted else "",
            verdict,
        )
    console.print(table)
    for note in result.notes:
        console.print(f"  {note}", style="dim", highlight=False)


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
