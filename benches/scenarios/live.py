"""From a device's socket to somebody's screen: an event is sent, made durable, and told to a subscriber of the api (SSE); beside it
a subscriber straight at the node (gRPC), while other devices send so many events a second.

Both subscribers want the events of the one device that is timed; the api hears all that the node tells, as it always does while
anybody follows. States are another matter: they are told twice a second by design, and are not timed here.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from grpc import aio

from benches.callers import UNLIMITED, Caller, Milliseconds, add_callers, quantiles
from benches.context import Context, Steps
from benches.devices import Device, connected
from benches.fleet import Fleet
from benches.report import Result, check, figure_of
from benches.stack import Stack, running
from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.ingest_stubs.devices_pb2_grpc import DeviceStreamStub

NAME = "live"
RATES = (1_000, 3_000, 10_000)
CONNECTIONS = 100
EVENTS_PER_FRAME = 10
PROBE = "probe"
PROBES_PER_S = 25
LOAD_WARM_UP_SECONDS = 2
# For what was sent last to arrive.
GRACE_SECONDS = 3.0


def measure(context: Context) -> Result:
    """Measure all rounds."""
    rounds: list[dict[str, Any]] = [{} for _ in range(context.rounds)]
    with context.task(NAME, len(RATES) * context.rounds) as steps:
        for rate in RATES:
            # A stack each: an api that has fallen behind is late for a while.
            with running(context.data_root, UNLIMITED) as stack:
                probe, fleet = stack.add_devices(PROBE, 1), stack.add_devices(NAME, CONNECTIONS)
                (caller,) = add_callers(stack, 1)
                for one in rounds:
                    stack.empty_events()
                    one.update(asyncio.run(_at_rate(context, steps, stack, caller, probe, fleet, rate)))
    return Result(
        scenario=NAME,
        figures=tuple(
            figure_of(f"{title}, {rate:,} events/s, {quantile}", "ms", rounds, f"{way}_{rate}_{quantile}")
            for rate in RATES
            for way, title in (
                ("screen", "socket to screen (SSE)"),
                ("node", "socket to subscriber of the node (gRPC)"),
            )
            for quantile in ("p50", "p99")
        )
        + tuple(
            figure_of(f"never told to the screen, {rate:,} events/s", "%", rounds, f"screen_{rate}_lost_percent")
            for rate in RATES
        ),
        rounds=tuple(rounds),
        notes=(
            f"the other events come from {CONNECTIONS} connections, {EVENTS_PER_FRAME} a frame; {PROBES_PER_S} events/s are timed",
            "states are told twice a second by design, so up to half a second later; what is timed are events",
        ),
    )


class Arrivals:
    """When what was sent arrived, by its number."""

    def __init__(self) -> None:
        self.sent: dict[int, float] = {}
        self.arrived: dict[str, dict[int, float]] = {"screen": {}, "node": {}}

    def note(self, way: str, number: float | None) -> None:
        """It arrived now."""
        if number is not None:
            self.arrived[way].setdefault(int(number), time.perf_counter())

    def milliseconds(self, way: str) -> Milliseconds:
        """How long each took that arrived."""
        return [(at - self.sent[number]) * 1e3 for number, at in self.arrived[way].items() if number in self.sent]


async def _at_rate(
    context: Context, steps: Steps, stack: Stack, caller: Caller, probe: Fleet, fleet: Fleet, rate: int
) -> dict[str, Any]:
    steps.next(f"{rate:,} events/s")
    arrivals = Arrivals()
    async with connected(stack, probe, 1) as (device,):
        tasks = [
            asyncio.create_task(_screen(caller, device, arrivals)),
            asyncio.create_task(_node(stack, device, arrivals)),
        ]
        load = asyncio.create_task(asyncio.to_thread(context.loadgen.run, "acks", _load(context, stack, fleet, rate)))
        await asyncio.sleep(LOAD_WARM_UP_SECONDS)
        await _send(device, arrivals, context.seconds)
        await asyncio.sleep(GRACE_SECONDS)
        answered = await load
        for task in tasks:
            check(not task.done(), f"a subscriber ended: {task}")
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    check(answered["events_unanswered"] == 0, f"{answered['events_unanswered']} events were never answered")
    lost = {
        f"{way}_{rate}_lost_percent": 100 * (1 - len(arrivals.arrived[way]) / len(arrivals.sent))
        for way in arrivals.arrived
    }
    check(lost[f"node_{rate}_lost_percent"] == 0, "the node did not tell everything")
    return {**lost, **{k: v for way in arrivals.arrived for k, v in _quantiles(arrivals, way, rate).items()}}


def _quantiles(arrivals: Arrivals, way: str, rate: int) -> Mapping[str, float]:
    return quantiles(f"{way}_{rate}", arrivals.milliseconds(way))


def _load(context: Context, stack: Stack, fleet: Fleet, rate: int) -> dict[str, Any]:
    return {
        "address": stack.hdp,
        "devices": fleet.path,
        "connections": fleet.num_connections,
        "events_per_frame": EVENTS_PER_FRAME,
        "rate": rate,
        "seconds": context.seconds,
        "warm_up": LOAD_WARM_UP_SECONDS,
    }


async def _send(device: Device, arrivals: Arrivals, seconds: int) -> None:
    """Send numbers at even times."""
    start = time.perf_counter()
    for number in range(seconds * PROBES_PER_S):
        await asyncio.sleep(start + number / PROBES_PER_S - time.perf_counter())
        arrivals.sent[number] = time.perf_counter()
        await device.send(PROBE, float(number))


async def _screen(caller: Caller, device: Device, arrivals: Arrivals) -> None:
    """Follow the device through the api."""
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.port, limit=1 << 22)
    try:
        writer.write(caller.get(f"/api/v1/live?kind=event&device_id={device.id}"))
        head = await reader.readuntil(b"\r\n\r\n")
        check(b" 200 " in head[:16], head.decode())
        while line := await reader.readline():
            if line.startswith(b'data: {"'):
                arrivals.note("screen", json.loads(line[6:]).get("value"))
    finally:
        writer.close()


async def _node(stack: Stack, device: Device, arrivals: Arrivals) -> None:
    """Follow the device at the node."""
    token = (stack.data_dir / "secrets" / "service-token").read_text(encoding="ascii").strip()
    async with aio.insecure_channel(f"127.0.0.1:{stack.ports['grpc']}") as channel:
        stub: Any = DeviceStreamStub(channel)
        request = pb.SubscriptionRequest(device_ids=[str(device.id)], event_types=[PROBE], client_id=NAME)
        async for change in stub.SubscribeToDeviceChanges(request, metadata=[("authorization", f"Bearer {token}")]):
            arrivals.note("node", change.exact_value)
