"""What devices sent and what the core answered, one line each, written as it happens.

An event carries its own identity: its value and its time grow with (epoch, seq), so that a row of the database says which event
it is, and whether it stands in order.
"""

import os
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from tests.faults.seqs import Seqs

EPOCH_STRIDE = 1_000_000_000

Stream = tuple[UUID, int]  # a device and its epoch


def mark_of(epoch: int, seq: int) -> int:
    """Return the number that names an event of a device, in its value and, in microseconds after the base, in its time."""
    assert 0 < seq < EPOCH_STRIDE
    return epoch * EPOCH_STRIDE + seq


def fresh_base_us() -> int:
    """Return a base so that the 5000th event of epoch 1 crosses a midnight: runs then fill more than one partition."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int(midnight.timestamp()) * 1_000_000 - EPOCH_STRIDE - 5_000


@dataclass(slots=True)
class Promises:
    """What was sent in one epoch of one device, and what the core said of it."""

    sent: Seqs = field(default_factory=Seqs)
    acked_up_to: int = 0
    rejected: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """What a recorder wrote."""

    base_us: int
    streams: dict[Stream, Promises]
    busy: int
    errors: list[str]
    broken: list[str]

    @property
    def num_acked(self) -> int:
        """How many sent events the core promised to keep."""
        return sum(len(p.sent.up_to(p.acked_up_to)) for p in self.streams.values())


class Recorder:
    """Appends facts to a file; every line is one `write`, done before the caller goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.base_us = fresh_base_us()
        self.num_broken = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._write(f"base {self.base_us}")

    def _write(self, line: str) -> None:
        os.write(self._descriptor, line.encode() + b"\n")

    def sent(self, stream: Stream, first: int, last: int) -> None:
        """Note events that are about to be written to a socket."""
        self._write(f"sent {stream[0]} {stream[1]} {first} {last}")

    def acked(self, stream: Stream, seq: int) -> None:
        """Note a promise: an ACK, or the last_seq of a WELCOME."""
        self._write(f"acked {stream[0]} {stream[1]} {seq}")

    def rejected(self, stream: Stream, seq: int, code: str) -> None:
        """Note an event that an ACK names as rejected."""
        self._write(f"rejected {stream[0]} {stream[1]} {seq} {code}")

    def busy(self, stream: Stream, seq: int) -> None:
        """Note a BUSY."""
        self._write(f"busy {stream[0]} {stream[1]} {seq}")

    def error(self, stream: Stream, code: str) -> None:
        """Note an ERROR frame."""
        self._write(f"error {stream[0]} {stream[1]} {code}")

    def broken(self, stream: Stream, sentence: str) -> None:
        """Note a rule of the protocol that an answer broke."""
        self.num_broken += 1
        self._write(f"broken {stream[0]} {stream[1]} {sentence}")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_record(path: Path) -> Record:
    """Read what a recorder wrote."""
    streams: dict[Stream, Promises] = defaultdict(Promises)
    sent: dict[Stream, list[tuple[int, int]]] = defaultdict(list)
    record = Record(base_us=0, streams=streams, busy=0, errors=[], broken=[])
    for line in path.read_text(encoding="ascii").splitlines():
        word, *rest = line.split(" ", 3)
        if word == "base":
            record.base_us = int(rest[0])
            continue
        stream = (UUID(rest[0]), int(rest[1]))
        promises = streams[stream]
        match word:
            case "sent":
                first, last = rest[2].split()
                sent[stream].append((int(first), int(last)))
            case "acked":
                promises.acked_up_to = max(promises.acked_up_to, int(rest[2]))
            case "rejected":
                seq, code = rest[2].split()
                promises.rejected[int(seq)] = code
            case "busy":
                record.busy += 1
            case "error":
                record.errors.append(rest[2])
            case "broken":
                record.broken.append(f"{stream[0]} epoch {stream[1]}: {rest[2]}")
            case _:
                raise ValueError(line)
    for stream, ranges in sent.items():
        streams[stream].sent = Seqs.of(ranges)
    return record
