"""A thousand Modbus devices at one second, on one core, 5 % of them dead: how late each live one is asked, and what that costs.

Once with an address of its own for each device, once with ten of them behind each gateway. Dead ones take requests and answer none.
Lateness is counted by the devices: from their even grid of seconds, of which the most punctual poll is taken for the origin. `hse
ingest` is bound to one core, and everything else shares the machine with it.
"""

import json
import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from psycopg.types.json import Jsonb

from benches.context import Context
from benches.counters import cpu_of
from benches.fleet import Fleet
from benches.report import Result, Wanted, check, figure_of
from benches.stack import Stack, running, wait_until
from hse.domain.devices.profile_formats import checked_definition

NAME = "modbus"
NUM_DEVICES = 1_000
DEAD_EVERY = 20
INTERVAL_MS = 1_000
LAYOUTS = {"own": 1, "gateway": 10}
# What has to settle: who is dead is found out, and asked ever less often.
WARM_UP_SECONDS = 30
NUM_REGISTERS = 10
ENVIRONMENT = {"HSE_MODBUS_NETWORKS": "127.0.0.0/8"}


def measure(context: Context) -> Result:
    """Measure all rounds."""
    rounds = []
    with context.task(NAME, len(LAYOUTS) * context.rounds) as steps:
        for number in range(context.rounds):
            one: dict[str, Any] = {}
            for layout, slaves_per_gateway in LAYOUTS.items():
                steps.next(f"round {number + 1}: {layout}")
                with running(context.data_root, ENVIRONMENT) as stack:
                    found = _polled(context, stack, slaves_per_gateway)
                one |= {f"{layout}_{name}": value for name, value in found.items()}
            rounds.append(one)
    on_time = Wanted(text="0", at_most=0.0)
    figures = [
        figure
        for layout, title in (("own", "an address each"), ("gateway", "ten behind a gateway"))
        for figure in (
            figure_of(f"lateness p50, {title}", "ms", rounds, f"{layout}_p50_ms"),
            figure_of(f"lateness p99, {title}", "ms", rounds, f"{layout}_p99_ms"),
            figure_of(f"lateness max, {title}", "ms", rounds, f"{layout}_max_ms"),
            figure_of(f"polls missed, {title}", "", rounds, f"{layout}_missed", on_time if layout == "own" else None),
            figure_of(f"hse ingest, {title}", "% of a core", rounds, f"{layout}_ingest_percent"),
        )
    ]
    return Result(
        scenario=NAME,
        figures=tuple(figures),
        rounds=tuple(rounds),
        notes=(
            f"{NUM_DEVICES:,} devices at {INTERVAL_MS} ms, {NUM_REGISTERS} registers each, all told; one in {DEAD_EVERY} dead",
            "hse ingest is bound to one core; the slaves are one thread of another process",
        ),
    )


def _polled(context: Context, stack: Stack, slaves_per_gateway: int) -> dict[str, Any]:
    ingest = stack.pid("ingest")
    for thread in Path(f"/proc/{ingest}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {0})
    fleet = stack.add_devices(NAME, NUM_DEVICES)
    slaves = context.loadgen.start(
        "slaves",
        {
            "gateways": NUM_DEVICES // slaves_per_gateway,
            "slaves_per_gateway": slaves_per_gateway,
            "dead_every": DEAD_EVERY,
            "interval_ms": INTERVAL_MS,
        },
    )
    try:
        _have_polled(stack, fleet, slaves.read()["ports"], slaves_per_gateway)
        wait_until(lambda: stack.metrics().value("modbus_devices") == NUM_DEVICES, "all are polled", timeout_seconds=60)
        time.sleep(WARM_UP_SECONDS)
        slaves.go_on()
        cpu, begun = cpu_of(ingest), time.monotonic()
        time.sleep(context.seconds)
        cpu_seconds, seconds = (cpu_of(ingest) - cpu).total, time.monotonic() - begun
        found = slaves.stop()
    finally:
        slaves.kill()
    num_live = NUM_DEVICES - NUM_DEVICES // DEAD_EVERY
    check(found["slaves_asked"] == num_live, f"{found['slaves_asked']} of {num_live} live devices were asked")
    return {
        "missed": found["missed"],
        "polls": found["polls"],
        **{f"{name}_ms": found["lateness"][f"{name}_us"] / 1e3 for name in ("p50", "p99", "max")},
        "ingest_percent": 100 * cpu_seconds / seconds,
        "slaves_percent": 100 * found["cpu_seconds"] / found["seconds"],
    }


def _have_polled(stack: Stack, fleet: Fleet, ports: list[int], slaves_per_gateway: int) -> None:
    """Give all devices one profile, and each its address."""
    registers = [
        {"point": f"p{number}", "function": 3, "address": number, "type": "u16"} for number in range(NUM_REGISTERS)
    ]
    points = [{"key": register["point"]} for register in registers]
    kept = checked_definition(points, {"kind": "modbus", "poll_interval_ms": INTERVAL_MS, "registers": registers}, None)
    profile = uuid4()
    ids = [one["device_id"] for one in json.loads(fleet.path.read_text(encoding="utf-8"))]
    addresses = [
        (Jsonb({"host": "127.0.0.1", "port": port, "unit_id": unit_id, "framing": "tcp"}), profile, device_id)
        for device_id, (port, unit_id) in zip(
            ids, ((port, unit_id) for port in ports for unit_id in range(1, slaves_per_gateway + 1)), strict=True
        )
    ]
    with stack.connect() as connection:
        connection.execute(
            "insert into device_profiles (id, organization_id, name, points, format)"
            " select %s, organization_id, %s, %s, %s from devices where id = %s",
            [profile, NAME, Jsonb(kept.points), Jsonb(kept.format), ids[0]],
        )
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(
                "update devices set modbus = %s, profile_id = %s, token_hash = null where id = %s", addresses
            )
