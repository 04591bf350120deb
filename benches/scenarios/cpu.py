"""What an acknowledged event costs: processor time and bytes to disk, at batches of 100.

The load runs at a fixed rate below what the machine keeps up with. Time is that of `/proc`: the ingest process alone (by thread
name, too), PostgreSQL, and all of `hse up`. With `--profile`, `perf` says where the ingest process spends it.
"""

import shutil
import subprocess
from typing import Any

from benches.context import Context
from benches.counters import cpu_of, cpu_of_threads, cpu_of_tree, written_bytes
from benches.fleet import Fleet
from benches.loadgen import ROOT
from benches.report import Figure, Result, check, figure_of
from benches.stack import Stack, running

NAME = "cpu"
CONNECTIONS = 64
EVENTS_PER_FRAME = 100
EVENTS_PER_SECOND = 50_000
PROFILE_SECONDS = 10
PROFILE_LINES_MAX = 40


def measure(context: Context) -> Result:
    """Measure all rounds."""
    rounds = []
    profile: list[str] = []
    with running(context.data_root) as stack, context.task(NAME, context.rounds + context.has_profile) as steps:
        fleet = stack.add_devices(NAME, CONNECTIONS)
        for number in range(context.rounds):
            steps.next(f"round {number + 1}")
            rounds.append(_round(context, stack, fleet))
        if context.has_profile:
            steps.next("profile")
            profile = _profile(context, stack, fleet)
    threads = sorted(rounds[-1]["thread_us_per_event"].items(), key=lambda item: -item[1])
    by_thread = ", ".join(f"{name} {us:.2f}" for name, us in threads if us >= 0.005)
    return Result(
        scenario=NAME,
        figures=_figures(rounds),
        rounds=(*rounds, *([{"profile": profile}] if profile else ())),
        notes=(
            f"{CONNECTIONS} connections, {EVENTS_PER_FRAME} events a frame, {EVENTS_PER_SECOND:,} events/s",
            f"us per event by thread of the ingest process: {by_thread}",
            *profile,
        ),
    )


def _figures(rounds: list[dict[str, Any]]) -> tuple[Figure, ...]:
    return (
        figure_of("ingest process", "us/event", rounds, "ingest_us"),
        figure_of("ingest process, user", "us/event", rounds, "ingest_user_us"),
        figure_of("ingest process, system", "us/event", rounds, "ingest_system_us"),
        figure_of("PostgreSQL", "us/event", rounds, "postgres_us"),
        figure_of("all of hse up", "us/event", rounds, "tree_us"),
        figure_of("load generator", "us/event", rounds, "loadgen_us"),
        figure_of("journal", "B/event", rounds, "journal_bytes"),
        figure_of("written by the ingest process, whole pages", "B/event", rounds, "written_bytes"),
        figure_of("WAL", "B/event", rounds, "wal_bytes"),
        figure_of("table and index", "B/event", rounds, "table_bytes"),
    )


def _round(context: Context, stack: Stack, fleet: Fleet) -> dict[str, Any]:
    stack.empty_events()
    ingest, postgres = stack.pid("ingest"), stack.pid("postgres")
    # The worker cannot be left out of the whole, and PostgreSQL's backends live as long as the ingest process.
    before = (cpu_of(ingest), cpu_of_tree(postgres), cpu_of_tree(stack.up_pid), cpu_of_threads(ingest))
    written, position, wal = written_bytes(ingest), stack.journal_position(), _wal_position(stack)
    load = _load(context, stack, fleet, context.seconds)
    stack.wait_until_drained()
    cpu = cpu_of(ingest) - before[0]
    postgres_s, tree_s = cpu_of_tree(postgres) - before[1], cpu_of_tree(stack.up_pid) - before[2]
    threads = {name: used - before[3].get(name, 0.0) for name, used in cpu_of_threads(ingest).items()}
    num_events = load["events_acked"]
    sizes = {
        "journal_bytes": (stack.journal_position() - position) / num_events,
        "written_bytes": (written_bytes(ingest) - written) / num_events,
        "wal_bytes": (_wal_position(stack) - wal) / num_events,
        "table_bytes": _table_bytes(stack) / num_events,
    }
    stack.check_rows(num_events)
    share = load["acked_events_per_s"] / EVENTS_PER_SECOND
    check(share > 0.97, f"only {share:.0%} of the offered rate got through")
    return {
        "ingest_us": cpu.total / num_events * 1e6,
        "ingest_user_us": cpu.user / num_events * 1e6,
        "ingest_system_us": cpu.system / num_events * 1e6,
        "postgres_us": postgres_s / num_events * 1e6,
        "tree_us": tree_s / num_events * 1e6,
        "loadgen_us": load["cpu_s"] / num_events * 1e6,
        "thread_us_per_event": {name: used / num_events * 1e6 for name, used in threads.items()},
        **sizes,
        "load": load,
    }


def _load(context: Context, stack: Stack, fleet: Fleet, seconds: int) -> dict[str, Any]:
    return context.loadgen.run("acks", _options(stack, fleet, seconds))


def _options(stack: Stack, fleet: Fleet, seconds: int) -> dict[str, Any]:
    return {
        "address": stack.hdp,
        "devices": fleet.path,
        "connections": fleet.num_connections,
        "events_per_frame": EVENTS_PER_FRAME,
        "rate": EVENTS_PER_SECOND,
        "seconds": seconds,
        "warm_up": 0,
    }


def _profile(context: Context, stack: Stack, fleet: Fleet) -> list[str]:
    """Sample the ingest process under the same load; returns the functions that take most, by share."""
    if shutil.which("perf") is None:
        return ["no profile: perf is not installed"]
    data = stack.data_dir / "perf.data"
    record = ["perf", "record", "-q", "-F", "1999", "-p", str(stack.pid("ingest")), "-o", str(data), "--", "sleep"]
    recording = subprocess.Popen([*record, str(PROFILE_SECONDS)], stderr=subprocess.DEVNULL)
    _load(context, stack, fleet, PROFILE_SECONDS)
    stack.wait_until_drained()
    if recording.wait(60) != 0:
        return ["no profile: perf may not sample here"]
    report = [
        "perf",
        "report",
        "--stdio",
        "-i",
        str(data),
        "--no-children",
        "--sort",
        "dso,symbol",
        "--percent-limit",
        "0.7",
    ]
    done = subprocess.run(report, cwd=ROOT, capture_output=True, text=True, check=False)
    # perf ends each line with the columns of inlined callers, which are empty here.
    lines = [
        " ".join(line.split()).removesuffix(" - -") for line in done.stdout.splitlines() if line and line[0] != "#"
    ]
    return lines[:PROFILE_LINES_MAX]


def _wal_position(stack: Stack) -> int:
    with stack.connect() as connection:
        row = connection.execute("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8").fetchone()
    return int(row[0]) if row else 0


def _table_bytes(stack: Stack) -> int:
    """Bytes of the event table with its index, all partitions; of a hypertable, all chunks."""
    with stack.connect() as connection:
        is_timescale = connection.execute("select event_storage()").fetchone() == ("timescaledb",)
        query = (
            "select hypertable_size('device_events')::int8"
            if is_timescale
            else "select sum(pg_total_relation_size(relid))::int8 from pg_partition_tree('device_events')"
        )
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
