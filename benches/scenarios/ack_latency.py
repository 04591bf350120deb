"""How long a device waits for its ACK at half of the maximum rate, beside the disk alone (F1).

256 connections send single events. A round: the closed loop finds the maximum that the whole chain keeps up with, down to the table
(what could be acknowledged in a burst is more, and a backlog grows); the open loop runs at half of it, and its latencies count from
the intended send; then F1 writes and syncs as many bytes at a time as the journal wrote in its groups.
"""

from typing import Any

from benches.context import Context
from benches.counters import Metrics
from benches.fleet import Fleet
from benches.report import Result, Wanted, check, figure_of
from benches.stack import Stack, running

NAME = "ack-latency"
CONNECTIONS = 256
INFLIGHT = 8
# More than two full batches, so that the drain never waits for the load.
BACKLOG_EVENTS = 150_000
GROUP_BYTES_MAX = 16 << 20
# An open loop that got less through than this did not run at the rate it states.
KEPT_UP_SHARE = 0.97


def measure(context: Context) -> Result:
    """Measure all rounds."""
    rounds = []
    with running(context.data_root) as stack, context.task(NAME, 3 * context.rounds) as steps:
        fleet = stack.add_devices(NAME, CONNECTIONS)
        for number in range(context.rounds):
            steps.next(f"round {number + 1}: maximum")
            pace = {"max": True, "metrics": stack.metrics_address, "backlog_max": BACKLOG_EVENTS}
            maximum = _load(context, stack, fleet, pace)["stored_events_per_s"]
            steps.next(f"round {number + 1}: half of {maximum:,.0f}/s")
            rounds.append(_half_rate(context, stack, fleet, round(maximum / 2)))
            steps.next(f"round {number + 1}: F1")
            rounds[-1] |= _floor(context, stack, rounds[-1]["group_bytes"])
            rounds[-1] |= {
                "maximum_per_s": maximum,
                "p99_by_f1_p99": rounds[-1]["ack_p99_ms"] / rounds[-1]["f1_p99_ms"],
                "p50_by_f1_p50": rounds[-1]["ack_p50_ms"] / rounds[-1]["f1_p50_ms"],
                "p99_by_arrivals_p99": rounds[-1]["ack_p99_ms"] / rounds[-1]["f1_arrivals_p99_ms"],
            }
    late = sum(one["kept_up"] < KEPT_UP_SHARE for one in rounds)
    notes = [
        f"{CONNECTIONS} connections, one event a frame, at most {INFLIGHT} frames in flight; Poisson arrivals",
        "F1 p99 counts writes; by arrivals counts what events that come at even times would wait (a stall counts by its length)",
    ]
    if late:
        notes.append(f"in {late} rounds less than {KEPT_UP_SHARE:.0%} of the offered rate got through")
    return Result(scenario=NAME, figures=_figures(rounds), rounds=tuple(rounds), notes=tuple(notes))


def _figures(rounds: list[dict[str, Any]]) -> tuple[Any, ...]:
    return (
        figure_of("ACK p99 / F1 p99", "x", rounds, "p99_by_f1_p99", Wanted(text="<= 2.5", at_most=2.5)),
        figure_of("ACK p99", "ms", rounds, "ack_p99_ms", Wanted(text="< 10 ms", at_most=10.0)),
        figure_of("ACK p50", "ms", rounds, "ack_p50_ms"),
        figure_of("ACK p50 / F1 p50", "x", rounds, "p50_by_f1_p50"),
        figure_of("ACK p99 / F1 p99 by arrivals", "x", rounds, "p99_by_arrivals_p99"),
        figure_of("F1 p99", "ms", rounds, "f1_p99_ms"),
        figure_of("F1 p99 by arrivals", "ms", rounds, "f1_arrivals_p99_ms"),
        figure_of("F1 p50", "ms", rounds, "f1_p50_ms"),
        figure_of("maximum rate", "events/s", rounds, "maximum_per_s"),
        figure_of("offered rate", "events/s", rounds, "offered_per_s"),
        figure_of("records a group", "", rounds, "group_records"),
        figure_of("bytes a group", "B", rounds, "group_bytes"),
    )


def _half_rate(context: Context, stack: Stack, fleet: Fleet, rate: int) -> dict[str, Any]:
    before, position_before = stack.metrics(), stack.journal_position()
    load = _load(context, stack, fleet, {"rate": rate}, is_drained_first=True)
    after = stack.metrics()
    num_groups = after.value("journal_append_seconds_count") - before.value("journal_append_seconds_count")
    check(num_groups > 0, "the core says that it wrote no group to its journal")
    return {
        "offered_per_s": rate,
        "kept_up": load["acked_events_per_s"] / rate,
        "ack_p50_ms": load["latency"]["p50_us"] / 1e3,
        "ack_p99_ms": load["latency"]["p99_us"] / 1e3,
        "group_records": after.mean_since(before, "journal_group_records"),
        "group_bytes": _group_bytes((stack.journal_position() - position_before) / num_groups),
        "core_ack_mean_ms": after.mean_since(before, "ack_latency_seconds") * 1e3,
        "core_append_mean_ms": after.mean_since(before, "journal_append_seconds") * 1e3,
        "load": load,
    }


def _load(
    context: Context, stack: Stack, fleet: Fleet, pace: dict[str, Any], *, is_drained_first: bool = False
) -> dict[str, Any]:
    if not is_drained_first:
        stack.empty_events()
    before = _counts(stack.metrics())
    rows_before = stack.num_rows()
    load = context.loadgen.run(
        "acks",
        {
            "address": stack.hdp,
            "devices": fleet.path,
            "connections": fleet.num_connections,
            "inflight": INFLIGHT,
            "seconds": context.seconds,
            "warm_up": 2 if context.is_quick else 4,
            **pace,
        },
    )
    stack.check_rows(rows_before + load["events_acked"])
    check(load["events_unanswered"] == 0, f"{load['events_unanswered']} events were never answered")
    taken = _counts(stack.metrics()) - before
    check(taken == load["events_acked"], f"{load['events_acked']} ACKs were counted outside and {taken:.0f} inside")
    return load


def _counts(metrics: Metrics) -> float:
    return metrics.value("events_accepted_total") + metrics.value("events_rejected_total")


def _floor(context: Context, stack: Stack, group_bytes: int) -> dict[str, Any]:
    options = {
        "directory": stack.data_dir / "journal",
        "bytes": [group_bytes],
        "seconds": context.seconds,
    }
    floor = context.loadgen.run("floor-fdatasync", options)["sizes"][0]
    return {
        "f1_p50_ms": floor["latency"]["p50_us"] / 1e3,
        "f1_p99_ms": floor["latency"]["p99_us"] / 1e3,
        "f1_arrivals_p99_ms": floor["arrivals"]["p99_us"] / 1e3,
        "f1": floor,
    }


def _group_bytes(mean_bytes: float) -> int:
    return min(max(1, round(mean_bytes)), GROUP_BYTES_MAX)
