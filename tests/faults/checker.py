"""Afterwards: what was acknowledged is in the database exactly once, and nothing else is.

The rule is a pure function of a record and of what the database holds; reading the database is apart.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psycopg

from tests.faults.conditions import NeverHappened, until_in_thread
from tests.faults.recorder import EPOCH_STRIDE, Record, Stream, read_record
from tests.faults.seqs import Seqs

# What the core itself says of a device, that it answered a command, has no mark.
# The mark is in the value; a row whose time is not the base plus its mark stands out of order, or holds another event's time.
STORED = """
select device_id, mark / %(stride)s as epoch, count(*),
       range_agg(int8range(mark %% %(stride)s, mark %% %(stride)s, '[]')),
       count(*) filter (where time_us is distinct from %(base_us)s + mark)
  from (select device_id, coalesce(value, 0)::int8 as mark, (extract(epoch from time) * 1000000)::int8 as time_us
          from device_events where device_id = any(%(devices)s) and event_type <> 'command_result') events
 group by 1, 2
"""
DEAD = "select device_id, epoch, seq, code from dead_letters where device_id = any(%s)"


@dataclass(slots=True)
class Kept:
    """What the database holds of one epoch of one device."""

    num_rows: int = 0
    stored: Seqs = field(default_factory=Seqs)
    num_misplaced: int = 0
    dead: Counter[tuple[int, str]] = field(default_factory=Counter)

    @property
    def dead_seqs(self) -> Seqs:
        """The events that are kept as dead letters."""
        return Seqs.single(seq for seq, _ in self.dead)


def read_kept(database_url: str, devices: Iterable[UUID], base_us: int) -> dict[Stream, Kept]:
    """Read what the database holds of these devices."""
    kept: dict[Stream, Kept] = defaultdict(Kept)
    with psycopg.connect(database_url) as connection:
        # One snapshot: an event may move from dead_letters to device_events between two statements.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        wanted = list(devices)
        rows = connection.execute(STORED, {"devices": wanted, "base_us": base_us, "stride": EPOCH_STRIDE})
        for device, epoch, num_rows, stored, num_misplaced in rows:
            here = kept[device, epoch]
            here.num_rows, here.num_misplaced = num_rows, num_misplaced
            here.stored = Seqs.of((run.lower, run.upper - 1) for run in stored)
        for device, epoch, seq, code in connection.execute(DEAD, [wanted]):
            kept[device, epoch].dead[seq, code] += 1
    return kept


def lost(record: Record, kept: dict[Stream, Kept]) -> dict[Stream, Seqs]:
    """Return what was acknowledged and is nowhere."""
    missing = {}
    for stream, promises in record.streams.items():
        here = kept.get(stream, Kept())
        gone = promises.sent.up_to(promises.acked_up_to) - (here.stored | here.dead_seqs)
        if gone.runs:
            missing[stream] = gone
    return missing


def violations(record: Record, kept: dict[Stream, Kept]) -> list[str]:
    """Return every broken promise as a sentence; none is what all these tests are about."""
    found = list(record.broken)
    found += [f"{device} epoch {epoch}: lost {gone}" for (device, epoch), gone in lost(record, kept).items()]
    for stream, here in kept.items():
        name = f"{stream[0]} epoch {stream[1]}"
        promises = record.streams.get(stream)
        known = promises.sent if promises else Seqs()
        rejected = promises.rejected if promises else {}
        if invented := (here.stored | here.dead_seqs) - known:
            found.append(f"{name}: never sent {invented}")
        if here.num_rows != len(here.stored):
            found.append(f"{name}: {here.num_rows - len(here.stored)} events are stored twice")
        if here.num_misplaced:
            found.append(f"{name}: {here.num_misplaced} events have a time that is not theirs")
        if both := here.stored & here.dead_seqs:
            found.append(f"{name}: stored and dead letters as well {both}")
        found += [f"{name}: dead letter {key} is kept {count} times" for key, count in here.dead.items() if count > 1]
        wrong = {seq: code for seq, code in rejected.items() if here.dead[seq, code] != 1}
        if wrong:
            found.append(f"{name}: rejected, but no dead letter with that code {wrong}")
    return found


class Checker:
    """One run's record against one database."""

    def __init__(self, path: Path, database_url: str) -> None:
        self.path = path
        self.database_url = database_url

    def _read(self) -> tuple[Record, dict[Stream, Kept]]:
        record = read_record(self.path)
        return record, read_kept(self.database_url, {device for device, _ in record.streams}, record.base_us)

    def lost(self) -> dict[Stream, Seqs]:
        """Return what is acknowledged and not in the database (yet)."""
        return lost(*self._read())

    def violations(self) -> list[str]:
        """Return every broken promise."""
        return violations(*self._read())

    async def until_stored(self, *, seconds: float = 60.0) -> None:
        """Wait until all that was acknowledged is in the database."""
        try:
            await until_in_thread(lambda: not self.lost(), "acknowledged events are stored", seconds=seconds)
        except NeverHappened as error:
            raise AssertionError("\n".join(self.violations())) from error

    def check(self, *, acked_min: int = 1) -> Record:
        """Fail with every broken promise, or when so little was acknowledged that nothing was shown."""
        record, kept = self._read()
        found = violations(record, kept)
        assert not found, "\n".join(found)
        assert record.num_acked >= acked_min, f"only {record.num_acked} events were acknowledged"
        return record
