"""Memory of an authenticated connection that says nothing: the slope of the ingest process' resident memory.

Between the first and the last step only connections are added, so what the process needs by itself drops out. The kernel's socket
buffers are not part of it; an idle socket has none to speak of.
"""

import time

from benches.context import Context
from benches.counters import resident_bytes
from benches.report import NotMeasured, Result, Wanted, check, figure_of
from benches.stack import Stack, running

NAME = "memory"
STEPS = (1_000, 5_000, 10_000, 20_000)
QUICK_STEPS = (500, 2_000)
# Files that the core and the load generator have open besides their connections.
OTHER_FILES = 256
SETTLE_SECONDS = 2.0


def measure(context: Context) -> Result:
    """Measure all rounds, each on a system that has just started."""
    steps = _steps(context)
    rounds = []
    with context.task(NAME, context.rounds) as progress:
        for number in range(context.rounds):
            progress.next(f"round {number + 1}: {steps[-1]:,} connections")
            with running(context.data_root) as stack:
                resident = _resident_at(context, stack, steps)
            slope = (resident[steps[-1]] - resident[steps[0]]) / (steps[-1] - steps[0])
            rounds.append({"bytes_per_connection": slope, "kib_per_connection": slope / 1024, "resident": resident})
    notes = [f"from {steps[0]:,} to {steps[-1]:,} connections"]
    wanted_last = QUICK_STEPS[-1] if context.is_quick else STEPS[-1]
    if steps[-1] < wanted_last:
        notes.append(f"not {wanted_last:,}: this system allows {context.files_max:,} open files a process")
    figure = figure_of("an idle connection", "KiB", rounds, "kib_per_connection", Wanted(text="<= 8 KiB", at_most=8.0))
    return Result(scenario=NAME, figures=(figure,), rounds=tuple(rounds), notes=tuple(notes))


def _steps(context: Context) -> list[int]:
    possible = context.files_max - OTHER_FILES
    steps = sorted({min(step, possible) for step in (QUICK_STEPS if context.is_quick else STEPS)})
    if len(steps) < 2:
        raise NotMeasured(f"{context.files_max} open files a process are too few for a slope")
    return steps


def _resident_at(context: Context, stack: Stack, steps: list[int]) -> dict[int, int]:
    fleet = stack.add_devices(NAME, steps[-1])
    idle = context.loadgen.start("idle", {"address": stack.hdp, "devices": fleet.path, "steps": steps})
    resident = {}
    try:
        for step in steps:
            check(idle.read()["connected"] == step, f"not all of {step} connections were opened")
            time.sleep(SETTLE_SECONDS)
            num_connections = stack.metrics().value("connections")
            check(num_connections == step, f"{step} connections are open and the core counts {num_connections:.0f}")
            resident[step] = resident_bytes(stack.pid("ingest"))
            idle.go_on()
        idle.stop()
    finally:
        idle.kill()
    return resident
