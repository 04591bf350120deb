"""Rows a second from ACK to table with nothing lagging, beside COPY alone (F3) and the design of the source documents.

The load is a closed loop that holds back while more than a second's worth of events is acknowledged and not yet stored; so what
it finds is what the whole chain keeps up for as long as one likes. Two workloads:

- `gateways`: each frame carries one reading of each of a gateway's children, so the rows of 1000 devices arrive mixed. Wanted
  numbers are about this one.
- `devices`: each frame carries 100 readings of one device, so rows of one device arrive in runs.

Every variant starts with an empty table and a checkpoint, and F3 copies the rows of the same frames in the same order.
"""

import time
from typing import Any

from benches.context import Context
from benches.fleet import Fleet
from benches.report import Figure, Result, Wanted, check, figure_of
from benches.servers import literal_design
from benches.stack import Stack, running

NAME = "sustained"
EVENTS_PER_FRAME = 100
INFLIGHT = 8
GATEWAYS, CHILDREN = 10, 100
DEVICES = 256
# More than two full batches, so that the drain never waits for the load; at 200 000 rows/s, a second and a half.
BACKLOG_EVENTS = 300_000
# A consumer that takes events one by one needs no more to be always busy.
LITERAL_BACKLOG_EVENTS = 30_000
SORT_ROWS = 50_000
DRAIN_LAG_MAX_SECONDS = 10.0


def measure(context: Context) -> Result:
    """Measure all rounds, then the long run."""
    with running(context.data_root) as stack:
        gateways = stack.add_devices("gateways", GATEWAYS, children=CHILDREN)
        devices = stack.add_devices("devices", DEVICES)
        rounds = []
        with context.task(NAME, 7 * context.rounds) as steps:
            for number in range(context.rounds):
                one: dict[str, Any] = {}
                for workload, fleet in (("gateways", gateways), ("devices", devices)):
                    for variant in ("hse", "f3_arrival", "f3_sorted", "literal"):
                        if (workload, variant) == ("devices", "literal"):
                            continue
                        steps.next(f"round {number + 1}: {workload}, {variant}")
                        one[f"{workload}_{variant}"] = measure_variant(context, stack, fleet, variant, context.seconds)
                rounds.append(_with_ratios(one))
        soak = _soak(context, stack, gateways) if context.soak_seconds else None
    return Result(
        scenario=NAME,
        figures=_figures(rounds) + (() if soak is None else _soak_figures(soak)),
        rounds=(*rounds, *(() if soak is None else (soak,))),
        notes=(
            f"gateways: {GATEWAYS} connections x {CHILDREN} children; devices: {DEVICES} connections; "
            f"{EVENTS_PER_FRAME} events a frame; load generator and PostgreSQL on the same cores",
            f"F3: one connection, one COPY of rows encoded beforehand; sorted: runs of {SORT_ROWS:,} by (device, time)",
            "literal: ACK from the memory of Valkey with default settings (D0); HSE: fdatasync before ACK (D2)",
            *(() if context.soak_seconds else ("the long run was left out",)),
        ),
    )


def measure_variant(context: Context, stack: Stack, fleet: Fleet, variant: str, seconds: int) -> dict[str, Any]:
    """Measure one variant on empty tables and hold its rows against its count."""
    stack.empty_events()
    if variant == "hse":
        return _load(context, fleet, stack.hdp, stack.metrics_address, stack, seconds)
    if variant == "literal":
        with literal_design(context.loadgen, stack.database_url, fleet.path, context.data_root) as ports:
            addresses = [f"127.0.0.1:{ports[name]}" for name in ("hdp", "metrics")]
            return _load(context, fleet, addresses[0], addresses[1], stack, seconds, is_literal=True)
    report = copy_floor(context, stack, fleet, seconds, sort_rows=SORT_ROWS if variant == "f3_sorted" else 0)
    check(stack.num_rows() == report["rows"], "COPY did not store the rows that it says it did")
    return report


def copy_floor(
    context: Context,
    stack: Stack,
    fleet: Fleet,
    seconds: int,
    *,
    sort_rows: int,
    is_direct: bool = False,
    copy_rows: int = 0,
) -> dict[str, Any]:
    """Run F3 for so many seconds."""
    options = {
        "database_url": stack.database_url,
        "devices": fleet.path,
        "connections": fleet.num_connections,
        "events_per_frame": EVENTS_PER_FRAME,
        "sort_rows": sort_rows,
        "copy_rows": copy_rows,
        "seconds": seconds,
        "direct_compress": is_direct,
    }
    return context.loadgen.run("floor-copy", options, timeout_seconds=seconds + 600)


def _load(
    context: Context,
    fleet: Fleet,
    hdp: str,
    metrics: str,
    stack: Stack,
    seconds: int,
    *,
    is_literal: bool = False,
) -> dict[str, Any]:
    load = context.loadgen.run(
        "acks",
        {
            "address": hdp,
            "metrics": metrics,
            "devices": fleet.path,
            "connections": fleet.num_connections,
            "events_per_frame": EVENTS_PER_FRAME,
            "inflight": INFLIGHT,
            "max": True,
            "backlog_max": LITERAL_BACKLOG_EVENTS if is_literal else BACKLOG_EVENTS,
            "seconds": seconds,
            "warm_up": 2,
        },
        timeout_seconds=seconds + 600,
    )
    check(load["events_unanswered"] == 0, f"{load['events_unanswered']} events were never answered")
    if is_literal:
        _wait_for_rows(stack, load["events_acked"])
    stack.check_rows(load["events_acked"])
    check(load["drain_lag_max_s"] < DRAIN_LAG_MAX_SECONDS, f"the drain lagged {load['drain_lag_max_s']:.1f} s behind")
    return {"rows_per_s": load["stored_events_per_s"], "seconds": seconds, "load": load}


def _wait_for_rows(stack: Stack, num_acked: int) -> None:
    """Wait for the literal design's last batch, which it holds for up to 5 s."""
    deadline = time.monotonic() + 60
    while stack.num_rows() < num_acked and time.monotonic() < deadline:
        time.sleep(0.5)


def _with_ratios(one: dict[str, Any]) -> dict[str, Any]:
    rate = {name: variant["rows_per_s"] for name, variant in one.items()}
    ratios = {
        "by_f3_arrival": rate["gateways_hse"] / rate["gateways_f3_arrival"],
        "by_f3_sorted": rate["gateways_hse"] / rate["gateways_f3_sorted"],
        "by_literal": rate["gateways_hse"] / rate["gateways_literal"],
        "devices_by_f3_arrival": rate["devices_hse"] / rate["devices_f3_arrival"],
        "devices_by_f3_sorted": rate["devices_hse"] / rate["devices_f3_sorted"],
    }
    return {**ratios, **{f"{name}_rows_per_s": value for name, value in rate.items()}, "variants": one}


def _figures(rounds: list[dict[str, Any]]) -> tuple[Figure, ...]:
    return (
        figure_of("HSE / F3 arrival", "x", rounds, "by_f3_arrival", Wanted(text=">= 1.2", at_least=1.2)),
        figure_of("HSE / F3 sorted", "x", rounds, "by_f3_sorted", Wanted(text=">= 0.85", at_least=0.85)),
        figure_of("HSE / literal design", "x", rounds, "by_literal", Wanted(text=">= 10", at_least=10)),
        figure_of("HSE", "rows/s", rounds, "gateways_hse_rows_per_s"),
        figure_of("F3 arrival", "rows/s", rounds, "gateways_f3_arrival_rows_per_s"),
        figure_of("F3 sorted", "rows/s", rounds, "gateways_f3_sorted_rows_per_s"),
        figure_of("literal design", "rows/s", rounds, "gateways_literal_rows_per_s"),
        figure_of("devices: HSE / F3 arrival", "x", rounds, "devices_by_f3_arrival"),
        figure_of("devices: HSE / F3 sorted", "x", rounds, "devices_by_f3_sorted"),
        figure_of("devices: HSE", "rows/s", rounds, "devices_hse_rows_per_s"),
    )


def _soak(context: Context, stack: Stack, fleet: Fleet) -> dict[str, Any]:
    """Run HSE and F3 for minutes each, checkpoints included."""
    one: dict[str, Any] = {"soak_seconds": context.soak_seconds}
    with context.task(f"{NAME}, long run", 3) as steps:
        for variant in ("hse", "f3_arrival", "f3_sorted"):
            steps.next(f"{variant}, {context.soak_seconds} s")
            before = _num_checkpoints(stack)
            one[variant] = measure_variant(context, stack, fleet, variant, context.soak_seconds)
            one[variant]["checkpoints"] = _num_checkpoints(stack) - before
    one["by_f3_arrival"] = one["hse"]["rows_per_s"] / one["f3_arrival"]["rows_per_s"]
    one["by_f3_sorted"] = one["hse"]["rows_per_s"] / one["f3_sorted"]["rows_per_s"]
    return one


def _soak_figures(soak: dict[str, Any]) -> tuple[Figure, ...]:
    title = f"{soak['soak_seconds'] / 60:g} min"
    load = soak["hse"]["load"]
    flat = [
        {
            **soak,
            "rate": soak["hse"]["rows_per_s"],
            "lag": load["drain_lag_max_s"],
            "checkpoints": soak["hse"]["checkpoints"],
        }
    ]
    return (
        figure_of(f"{title}: HSE / F3 arrival", "x", flat, "by_f3_arrival", Wanted(text=">= 1.2", at_least=1.2)),
        figure_of(f"{title}: HSE / F3 sorted", "x", flat, "by_f3_sorted", Wanted(text=">= 0.85", at_least=0.85)),
        figure_of(f"{title}: HSE", "rows/s", flat, "rate"),
        figure_of(f"{title}: greatest drain lag", "s", flat, "lag"),
        figure_of(f"{title}: checkpoints", "", flat, "checkpoints"),
    )


def _num_checkpoints(stack: Stack) -> int:
    with stack.connect() as connection:
        is_new = connection.execute("select to_regclass('pg_stat_checkpointer')").fetchone() != (None,)
        query = (
            "select num_timed + num_requested from pg_stat_checkpointer"
            if is_new
            else "select checkpoints_timed + checkpoints_req from pg_stat_bgwriter"
        )
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
