"""What a deployment of the control plane does to the ACK: 5,000 events/s, with the api and the worker left alone, and with both
restarted all the time. The two take turns within each round.
"""

import os
import signal
import threading
from typing import Any

from benches.context import Context
from benches.report import Result, check, figure_of
from benches.stack import Stack, running

NAME = "deploy"
EVENTS_PER_S = 5_000
CONNECTIONS = 100
PAUSE_SECONDS = 1.0
RESTARTED = ("api", "worker")


def measure(context: Context) -> Result:
    """Measure all rounds."""
    rounds = []
    with running(context.data_root) as stack, context.task(NAME, 2 * context.rounds) as steps:
        fleet = stack.add_devices(NAME, CONNECTIONS)
        for number in range(context.rounds):
            one: dict[str, Any] = {}
            for variant in ("calm", "deploying"):
                steps.next(f"round {number + 1}: {variant}")
                stack.empty_events()
                restarts = Restarts(stack)
                if variant == "deploying":
                    restarts.start()
                load = context.loadgen.run(
                    "acks",
                    {
                        "address": stack.hdp,
                        "devices": fleet.path,
                        "connections": fleet.num_connections,
                        "rate": EVENTS_PER_S,
                        "seconds": context.seconds,
                        "warm_up": 2,
                    },
                )
                restarts.stop()
                check(load["events_unanswered"] == 0, f"{load['events_unanswered']} events were never answered")
                check(load["reconnects"] == 0, f"{load['reconnects']} devices were cut off")
                stack.check_rows(load["events_acked"])
                one |= {
                    f"{variant}_p50_ms": load["latency"]["p50_us"] / 1e3,
                    f"{variant}_p99_ms": load["latency"]["p99_us"] / 1e3,
                    f"{variant}_restarts": restarts.count,
                }
            rounds.append({**one, "p99_ratio": one["deploying_p99_ms"] / one["calm_p99_ms"]})
    return Result(
        scenario=NAME,
        figures=(
            figure_of("ACK p99 while deploying / left alone", "x", rounds, "p99_ratio"),
            figure_of("ACK p99, left alone", "ms", rounds, "calm_p99_ms"),
            figure_of("ACK p99, while deploying", "ms", rounds, "deploying_p99_ms"),
            figure_of("ACK p50, left alone", "ms", rounds, "calm_p50_ms"),
            figure_of("ACK p50, while deploying", "ms", rounds, "deploying_p50_ms"),
            figure_of("restarts", "", rounds, "deploying_restarts"),
        ),
        rounds=tuple(rounds),
        notes=(
            f"{EVENTS_PER_S:,} single events/s from {CONNECTIONS} connections, open loop; no event lost, no device cut off",
            "the restarting processes take their start-up's processor time from the same two cores",
        ),
    )


class Restarts:
    """Ends the api and the worker as soon as they are back; `hse up` starts them again."""

    def __init__(self, stack: Stack) -> None:
        self.count = 0
        self._stack = stack
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End, if it was begun."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(PAUSE_SECONDS):
            for name in RESTARTED:
                try:
                    os.kill(self._stack.pid(name), signal.SIGTERM)
                except (KeyError, ProcessLookupError):
                    continue
                self.count += 1
