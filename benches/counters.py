"""What processes, PostgreSQL and the core say about themselves."""

import os
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Processor time in seconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        """User and system time together."""
        return self.user + self.system

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(user=self.user - other.user, system=self.system - other.system)


def cpu_of(pid: int) -> Cpu:
    """The time that all threads of a process have used, those of its reaped children left out."""
    return _cpu_of_stat(Path(f"/proc/{pid}/stat"))


def cpu_of_tree(pid: int) -> float:
    """Seconds of a process and its descendants, those already reaped included."""
    total = 0.0
    for one in [pid, *descendants(pid)]:
        try:
            fields = _stat_fields(Path(f"/proc/{one}/stat"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended meanwhile; its parent has its time now.
        total += sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND
    return total


def cpu_of_threads(pid: int) -> dict[str, float]:
    """Seconds by thread name; threads of one name are added up."""
    seconds: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text(encoding="utf-8").strip()
            used = _cpu_of_stat(task / "stat").total
        except (FileNotFoundError, ProcessLookupError):
            continue
        seconds[name] = seconds.get(name, 0.0) + used
    return seconds


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents.setdefault(int(_stat_fields(entry / "stat")[1]), []).append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def written_bytes(pid: int) -> int:
    """Bytes that a process made the kernel write to disk, in whole pages."""
    for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
        name, value = line.split(": ")
        if name == "write_bytes":
            return int(value)
    return 0


@dataclass(frozen=True, slots=True)
class Metrics:
    """One reading of the core's metrics."""

    text: str

    def value(self, name: str) -> float:
        """Add up the samples of `hse_ingest_<name>` over its labels; 0 when there are none."""
        return sum(_samples(self.text.splitlines(), f"hse_ingest_{name}"))

    def mean_since(self, before: "Metrics", histogram: str) -> float:
        """The mean of what a histogram took in between two readings; 0 when it took nothing."""
        count = self.value(f"{histogram}_count") - before.value(f"{histogram}_count")
        total = self.value(f"{histogram}_sum") - before.value(f"{histogram}_sum")
        return total / count if count else 0.0


def read_metrics(port: int) -> Metrics:
    """Ask the core for its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return Metrics(answer.read().decode())


def _samples(lines: Iterable[str], name: str) -> Iterable[float]:
    for line in lines:
        if line.startswith(name) and line[len(name) : len(name) + 1] in ("{", " "):
            yield float(line.rpartition("}")[2].split()[0] if "{" in line else line.split()[1])


def _cpu_of_stat(path: Path) -> Cpu:
    fields = _stat_fields(path)
    return Cpu(user=int(fields[11]) / TICKS_PER_SECOND, system=int(fields[12]) / TICKS_PER_SECOND)


def _stat_fields(path: Path) -> list[str]:
    # The name in parentheses may hold spaces and parentheses; what follows the last one is plain. Index 0 is the state.
    return path.read_text(encoding="utf-8").rpartition(")")[2].split()
