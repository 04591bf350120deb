"""A core for the devices' tests: it speaks HDP/1 over a real socket, remembers what it took, and misbehaves when told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hse.simulation.hdp import Kind, encode_frame, split_frame

KEEPALIVE_S = 60
BUSY_MS = 20


@dataclass
class FakeCore:
    """`taken` maps (epoch, seq) to the event; what is sent again under a taken number must be the same event."""

    port: int = 0
    taken: dict[tuple[int, int], list[Any]] = field(default_factory=dict)
    num_frames: int = 0
    num_hellos: int = 0
    contradictions: list[str] = field(default_factory=list)
    # At these frames, counted from 1: answer BUSY, or take the events and close without an ACK.
    busy_at: frozenset[int] = frozenset()
    cut_at: frozenset[int] = frozenset()

    def last_seq(self, epoch: int) -> int:
        return max((seq for known, seq in self.taken if known == epoch), default=0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer, epoch = bytearray(), 0
        try:
            while chunk := await reader.read(65_536):
                buffer += chunk
                while (frame := split_frame(buffer)) is not None:
                    kind, body, used = frame
                    del buffer[:used]
                    elements = msgspec.msgpack.decode(body)
                    if kind == Kind.HELLO:
                        epoch = elements[3]
                        self.num_hellos += 1
                        answer(writer, Kind.WELCOME, [1, self.last_seq(epoch), 4, 1 << 20, 0, KEEPALIVE_S])
                    elif kind == Kind.EVENTS and not self.take(writer, epoch, *elements):
                        return
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def take(self, writer: asyncio.StreamWriter, epoch: int, first_seq: int, events: list[list[Any]]) -> bool:
        """Take a frame and answer it; False when the connection is to be cut."""
        self.num_frames += 1
        if self.num_frames in self.busy_at or first_seq > self.last_seq(epoch) + 1:
            answer(writer, Kind.BUSY, [self.last_seq(epoch), BUSY_MS, "asked to"])
            return True
        for seq, event in enumerate(events, first_seq):
            if self.taken.setdefault((epoch, seq), event) != event:
                self.contradictions.append(f"{seq}: {self.taken[epoch, seq]} and then {event}")
        if self.num_frames in self.cut_at:
            return False
        answer(writer, Kind.ACK, [self.last_seq(epoch)])
        return True


def answer(writer: asyncio.StreamWriter, kind: Kind, elements: list[Any]) -> None:
    writer.write(encode_frame(kind, msgspec.msgpack.encode(elements)))


@contextlib.asynccontextmanager
async def serving(core: FakeCore) -> AsyncIterator[FakeCore]:
    server = await asyncio.start_server(core.serve, "127.0.0.1", core.port)
    core.port = server.sockets[0].getsockname()[1]
    try:
        yield core
    finally:
        server.close()
