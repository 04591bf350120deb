"""A command and its answer: REST with `wait`, the worker, gRPC, the device, and all the way back; beside the same command straight
over gRPC to the node, which keeps nothing.

The difference is what it costs that a command survives every process: two transactions of the api, three of the worker, and the
notifications between them. Once with one command after the other, once with fifty devices at once; the ways take turns within each
round.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from grpc import aio

from benches.callers import UNLIMITED, Caller, Connection, Milliseconds, add_callers, quantiles
from benches.context import Context, Steps
from benches.devices import Device, connected
from benches.report import Result, check, figure_of
from benches.stack import Stack, running
from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.ingest_stubs.devices_pb2_grpc import DeviceStreamStub

NAME = "commands"
AT_ONCE = 50
WAIT_SECONDS = 20
COMMAND_TYPE, PARAMS = "open_door", {"seconds": "5"}

# One command to this device, to its answer.
Send = Callable[[Device], Awaitable[None]]


def measure(context: Context) -> Result:
    """Measure all rounds."""
    with running(context.data_root, UNLIMITED) as stack, context.task(NAME, 4 * context.rounds) as steps:
        fleet = stack.add_devices(NAME, AT_ONCE)
        (caller,) = add_callers(stack, 1)

        async def measured() -> list[dict[str, Any]]:
            async with connected(stack, fleet, AT_ONCE) as devices:
                return [await _round(context, steps, stack, caller, devices) for _ in range(context.rounds)]

        rounds = asyncio.run(measured())
    figures = [
        figure_of(f"{title}, {quantile}", "ms", rounds, f"{way}_{number}_{quantile}")
        for number, many in ((1, "one after the other"), (AT_ONCE, f"{AT_ONCE} devices at once"))
        for way, title in (("durable", f"REST to result, {many}"), ("bare", f"gRPC to the node, {many}"))
        for quantile in ("p50", "p99")
    ]
    return Result(
        scenario=NAME,
        figures=(
            figure_of("p50 / p50 straight to the node", "x", rounds, "p50_ratio"),
            *figures,
            figure_of(f"commands/s, {AT_ONCE} devices at once", "/s", rounds, "durable_per_s"),
        ),
        rounds=tuple(rounds),
        notes=(
            "closed loops; devices and callers are one Python process on the same cores, which is part of both ways",
            "no path polls: the worker and the waiting request are notified by the database",
        ),
    )


async def _round(
    context: Context, steps: Steps, stack: Stack, caller: Caller, devices: Sequence[Device]
) -> dict[str, Any]:
    token = (stack.data_dir / "secrets" / "service-token").read_text(encoding="ascii").strip()
    found: dict[str, Any] = {}
    by_device = {}

    async def durable(device: Device) -> None:
        path = f"/api/v1/devices/{device.id}/commands?wait={WAIT_SECONDS}"
        status, body = await by_device[device.id].ask(
            caller.post(path, {"type": COMMAND_TYPE, "params": PARAMS, "timeout_seconds": 60})
        )
        check(status == 200 and b'"state":"succeeded"' in body, f"{status}: {body[:300].decode()}")

    async with aio.insecure_channel(f"127.0.0.1:{stack.ports['grpc']}") as channel:
        stub: Any = DeviceStreamStub(channel)

        async def bare(device: Device) -> None:
            command = pb.DeviceCommand(device_id=str(device.id), command_type=COMMAND_TYPE, params=PARAMS)
            answer = await stub.SendDeviceCommand(command, timeout=60, metadata=[("authorization", f"Bearer {token}")])
            check(answer.success, answer.message)

        for number in (1, len(devices)):
            # Opened for each: the api closes what is silent for some seconds.
            by_device |= {device.id: await Connection.open(caller.port) for device in devices[:number]}
            for name, send in (("durable", durable), ("bare", bare)):
                steps.next(f"{name}, {number} at once")
                # The first ones find connections, statements and the worker's call cold.
                await _repeat(send, devices[:number], 1.0)
                taken = await _repeat(send, devices[:number], context.seconds / 2)
                found |= quantiles(f"{name}_{number}", taken)
                found[f"{name}_per_s"] = len(taken) / (context.seconds / 2)
            for one in by_device.values():
                one.close()
    return {**found, "p50_ratio": found["durable_1_p50"] / found["bare_1_p50"]}


async def _repeat(send: Send, devices: Sequence[Device], seconds: float) -> Milliseconds:
    """Each device gets a command as soon as it has answered the one before, for so long."""
    taken: Milliseconds = []
    deadline = time.perf_counter() + seconds

    async def repeat(device: Device) -> None:
        for _ in itertools.count():
            start = time.perf_counter()
            if start >= deadline:
                return
            await send(device)
            taken.append((time.perf_counter() - start) * 1e3)

    await asyncio.gather(*(repeat(one) for one in devices))
    return taken
