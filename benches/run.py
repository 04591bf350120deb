"""The command line of the benches: which scenarios, how many rounds, how long, where."""

import argparse
import datetime
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benches import machine
from benches.context import Context
from benches.loadgen import ROOT, Loadgen, LoadgenFailed, build
from benches.report import CheckFailed, NotMeasured, Result, show
from benches.scenarios import (
    ack_latency,
    beside,
    bookings,
    columnstore,
    commands,
    control_plane,
    cpu,
    dashboard,
    deploy,
    history,
    live,
    memory,
    modbus,
    mqtt,
    restart,
    sustained,
)
from benches.stack import running

SCENARIOS: dict[str, Callable[[Context], Result]] = {
    ack_latency.NAME: ack_latency.measure,
    sustained.NAME: sustained.measure,
    columnstore.NAME: columnstore.measure,
    memory.NAME: memory.measure,
    mqtt.NAME: mqtt.measure,
    modbus.NAME: modbus.measure,
    restart.NAME: restart.measure,
    cpu.NAME: cpu.measure,
    control_plane.NAME: control_plane.measure,
    bookings.NAME: bookings.measure,
    deploy.NAME: deploy.measure,
    commands.NAME: commands.measure,
    live.NAME: live.measure,
    beside.NAME: beside.measure,
    dashboard.NAME: dashboard.measure,
    history.NAME: history.measure,
}
RESULTS = ROOT / "benches" / "results"


def main() -> int:
    """Run the chosen scenarios; returns 1 when one of them failed, whatever its numbers."""
    options = _options()
    console = Console()
    data_root = options.data_root or Path(tempfile.gettempdir())
    _, kind, _ = machine.mount_of(data_root)
    if kind in machine.FILE_SYSTEMS_WITHOUT_DISK:
        console.print(f"{data_root} is {kind}: fdatasync means nothing there; name a directory with --data-root")
        return 1
    if options.loadgen is None:
        console.print("building the load generator")
    loadgen = Loadgen(program=options.loadgen or build())
    failed: list[str] = []
    results: list[dict[str, Any]] = []
    with _progress(console) as progress:
        context = _context(options, loadgen, data_root, progress)
        facts = {"machine": machine.facts(data_root), "database": _database_facts(context), "options": _shown(options)}
        for name in options.only or SCENARIOS:
            try:
                result = SCENARIOS[name](context)
            except NotMeasured as reason:
                console.print(f"{name}: not measured: {reason}", style="yellow")
                results.append({"scenario": name, "not_measured": str(reason)})
            except (CheckFailed, LoadgenFailed) as error:
                console.print(f"{name}: no result: {error}", style="red")
                results.append({"scenario": name, "failed": str(error)})
                failed.append(name)
            else:
                show(console, result)
                results.append(result.to_dict())
    path = _keep({**facts, "results": results})
    console.print(f"all numbers are in {path.relative_to(ROOT)}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round each, to see that all of it works")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each scenario (5)")
    parser.add_argument("--seconds", type=int, default=None, help="seconds of one measurement (20)")
    parser.add_argument(
        "--soak-seconds", type=int, default=None, help="seconds of each long run (600); 0 leaves it out"
    )
    parser.add_argument("--history-events", type=int, default=None, help="events of the long history (100 000 000)")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), help="this scenario; may be repeated")
    parser.add_argument("--data-root", type=Path, default=None, help="where data directories are made; on a real disk")
    parser.add_argument("--profile", action="store_true", help="sample the ingest process with perf")
    parser.add_argument("--loadgen", type=Path, default=None, help="a load generator built before")
    return parser.parse_args()


def _context(options: argparse.Namespace, loadgen: Loadgen, data_root: Path, progress: Progress) -> Context:
    quick: bool = options.quick

    def chosen(name: str, of_quick: int, of_full: int) -> int:
        value: int | None = getattr(options, name)
        return value if value is not None else (of_quick if quick else of_full)

    return Context(
        loadgen=loadgen,
        data_root=data_root,
        rounds=chosen("rounds", 1, 5),
        seconds=chosen("seconds", 3, 20),
        soak_seconds=chosen("soak_seconds", 0, 600),
        history_events=int(
            os.environ.get("HSE_BENCH_HISTORY_EVENTS") or chosen("history_events", 500_000, 100_000_000)
        ),
        is_quick=quick,
        files_max=machine.allow_many_files(),
        timescale_url=os.environ.get("HSE_TEST_TIMESCALE_URL") or None,
        has_profile=options.profile,
        progress=progress,
    )


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[step]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _database_facts(context: Context) -> dict[str, str]:
    with running(context.data_root) as stack:
        return stack.database_facts()


def _shown(options: argparse.Namespace) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(options).items()
        if name in ("quick", "rounds", "seconds", "soak_seconds", "history_events")
    }


def _keep(report: dict[str, Any]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    path = RESULTS / f"{now:%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(json.dumps({"measured_at": now.isoformat(), **report}, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    raise SystemExit(main())
