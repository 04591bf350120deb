"""Sets of sequence numbers as runs: a million events of a device are a handful of runs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Seqs:
    """A set of whole numbers: sorted runs (first, last), both included, that neither touch nor overlap."""

    runs: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> Self:
        """Return the union of ranges in any order."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def single(cls, numbers: Iterable[int]) -> Self:
        """Return the set of these numbers."""
        return cls.of((number, number) for number in numbers)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.runs)

    def __iter__(self) -> Iterator[int]:
        return (number for first, last in self.runs for number in range(first, last + 1))

    def __or__(self, other: "Seqs") -> "Seqs":
        return Seqs.of(self.runs + other.runs)

    def __sub__(self, other: "Seqs") -> "Seqs":
        left: list[tuple[int, int]] = []
        holes = iter(other.runs)
        hole = next(holes, None)
        for first, last in self.runs:
            start = first
            while hole is not None and hole[0] <= last:
                if hole[0] > start:
                    left.append((start, hole[0] - 1))
                start = max(start, hole[1] + 1)
                if hole[1] > last:
                    break
                hole = next(holes, None)
            if start <= last:
                left.append((start, last))
        return Seqs(tuple(left))

    def __and__(self, other: "Seqs") -> "Seqs":
        return self - (self - other)

    def up_to(self, limit: int) -> "Seqs":
        """Return the numbers that are not above `limit`."""
        return Seqs(tuple((first, min(last, limit)) for first, last in self.runs if first <= limit))

    def __str__(self) -> str:
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in self.runs[:5]]
        return ", ".join(shown) + (f", ... ({len(self)} in all)" if len(self.runs) > 5 else "")
