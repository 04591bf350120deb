"""Devices that a scenario holds in its own hands: connections over HDP/1 that answer commands, or send when they are told to."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from benches.fleet import Fleet
from benches.stack import Stack
from hse.simulation.hdp import Command, DeviceConnection
from hse.simulation.identities import load_identities

PING_SECONDS = 20.0


class Device:
    """A connected device: answers each command at once, and drops everything else that it hears."""

    def __init__(self, device_id: UUID, connection: DeviceConnection) -> None:
        self.id = device_id
        self._connection = connection
        self._next_seq = connection.welcome.last_seq + 1

    async def send(self, event_type: str, value: float) -> None:
        """Report one event, of now."""
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        await self._connection.send_events(seq, [[None, event_type, value]])

    async def listen(self) -> None:
        """Answer until cancelled."""
        async for heard in self._connection:
            if isinstance(heard, Command):
                await self._connection.send_result(request_id=heard.request_id, status=0, data={"open": True})

    async def keep_alive(self) -> None:
        """Say something now and then until cancelled."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            await self._connection.ping(1)

    async def close(self) -> None:
        """Go away."""
        await self._connection.close()


@asynccontextmanager
async def connected(stack: Stack, fleet: Fleet, count: int) -> AsyncIterator[Sequence[Device]]:
    """The first `count` devices of a fleet, connected; gone afterwards."""
    devices = []
    for one in load_identities(fleet.path)[:count]:
        connection = await DeviceConnection.open(
            "127.0.0.1", stack.ports["hdp"], device_id=one.device_id, token=one.token, epoch=1
        )
        devices.append(Device(one.device_id, connection))
    tasks = [asyncio.create_task(work) for one in devices for work in (one.listen(), one.keep_alive())]
    try:
        yield devices
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in devices:
            await one.close()
