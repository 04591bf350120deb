"""The machine as a picture for a terminal; a pure function of what was read, so that it can be drawn to a file as well."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hse.supervision.child import Child, State
from hse.supervision.published import Published
from hse.supervision.readings import Picture, sparkline

UNKNOWN = "-"
SPARKLINE_WIDTH = 60
PICTURE_WIDTH = 104

STATE_STYLES = {
    State.READY: "green",
    State.STARTING: "yellow",
    State.STOPPING: "yellow",
    State.WAITING: "bold red",
    State.STOPPED: "dim",
}
# What the drain's circuit breaker says of the database, in words that say it to people.
CIRCUITS = {"closed": ("answers", "green"), "half-open": ("being tried", "yellow"), "open": ("away", "bold red")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRow:
    """A child as it is shown."""

    name: str
    state: State
    pid: int | None
    restarts: int


def rows_of(children: Sequence[Child]) -> list[ChildRow]:
    """Take what is shown of the children."""
    return [ChildRow(name=child.name, state=child.state, pid=child.pid, restarts=child.restarts) for child in children]


def draw(
    picture: Picture, children: Sequence[ChildRow], published: Published | None, messages: Sequence[str]
) -> RenderableType:
    """Return the whole picture."""
    parts: list[RenderableType] = [_flow(picture), _children(children, published)]
    if messages:
        # Wrapped and not cut: a link that is cut is worth nothing.
        parts.append(Text("\n".join(messages), style="dim", overflow="fold"))
    return Panel(Group(*parts), title="[bold]HSE[/]", subtitle="Ctrl-C drains and stops", border_style="cyan")


def save_svg(path: Path, renderable: RenderableType) -> None:
    """Draw the picture into an SVG file."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=PICTURE_WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(renderable)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(console.export_svg(title="hse up"), encoding="utf-8")


def summary_line(picture: Picture) -> str:
    """Return the picture as one line, for output that is no terminal."""
    core, storage = picture.core, picture.storage
    lag = UNKNOWN if core is None else f"{core.drain_lag_seconds:.1f} s"
    rows = UNKNOWN if storage is None else f"{storage.events_estimate:,}"
    return (
        f"{_rate(picture.events_per_second)} events/s, ACK p50 {_latency(picture.ack_p50_seconds)} "
        f"p99 {_latency(picture.ack_p99_seconds)}, drain lag {lag}, {rows} rows"
    )


def _flow(picture: Picture) -> RenderableType:
    core, storage = picture.core, picture.storage
    numbers = Table.grid(padding=(0, 3), expand=True)
    for _ in range(4):
        numbers.add_column(ratio=1)
    numbers.add_row(
        _figure("events/s", _rate(picture.events_per_second)),
        _figure("ACK p50", _latency(picture.ack_p50_seconds)),
        _figure("ACK p99", _latency(picture.ack_p99_seconds)),
        _figure("connections", UNKNOWN if core is None else f"{core.connections:,.0f}"),
    )
    numbers.add_row(
        _figure(
            "journal",
            UNKNOWN if core is None else f"{_bytes(core.journal_bytes)} in {core.journal_segments:.0f} segments",
        ),
        _figure("drain lag", UNKNOWN if core is None else f"{core.drain_lag_seconds:.2f} s"),
        _figure(
            "database",
            *CIRCUITS.get(core.circuit if core else "", ("not reached", "red")),
        ),
        _figure(
            "dead letters",
            UNKNOWN if storage is None else _dead_letters(storage.dead_letters_pending, storage.dead_letters_permanent),
        ),
    )
    numbers.add_row(
        _figure("rows", UNKNOWN if storage is None else f"{storage.events_estimate:,}"),
        _figure("on disk", UNKNOWN if storage is None else _bytes(storage.event_bytes)),
        _figure("devices", UNKNOWN if storage is None else f"{storage.devices:,}"),
        _figure("stored as", UNKNOWN if storage is None else storage.event_storage),
    )
    peak = max(picture.history, default=0.0)
    line = Text(sparkline(_per_column(picture.history), SPARKLINE_WIDTH), style="cyan")
    line.append(f"  two minutes, peak {_rate(peak)} events/s", style="dim")
    return Group(numbers, Text(), line, Text())


def _children(children: Sequence[ChildRow], published: Published | None) -> RenderableType:
    processes = Table(box=None, padding=(0, 2), header_style="dim", pad_edge=False)
    for heading in ("process", "state", "pid", "restarts"):
        processes.add_column(heading, justify="left" if heading in ("process", "state") else "right")
    for child in children:
        processes.add_row(
            child.name,
            Text(child.state.value, style=STATE_STYLES[child.state]),
            UNKNOWN if child.pid is None else str(child.pid),
            Text(str(child.restarts), style="red" if child.restarts else "dim"),
        )
    both = Table.grid(padding=(0, 4))
    both.add_row(processes, _places(published))
    return both


def _places(published: Published | None) -> RenderableType:
    places = Table(box=None, padding=(0, 2), show_header=False, pad_edge=False)
    if published is not None:
        ports = published.ports
        places.add_row("devices", f"hdp://127.0.0.1:{ports['hdp']}")
        if "hdp_tls" in ports:
            places.add_row("devices, TLS", f"hdps://127.0.0.1:{ports['hdp_tls']}")
        places.add_row("devices, WebSocket", f"ws://127.0.0.1:{ports['ws']}/v1/device")
        if "wss" in ports:
            places.add_row("devices, WebSocket and TLS", f"wss://127.0.0.1:{ports['wss']}/v1/device")
        places.add_row("devices, MQTT", f"mqtt://127.0.0.1:{ports['mqtt']}")
        if "mqtt_tls" in ports:
            places.add_row("devices, MQTT and TLS", f"mqtts://127.0.0.1:{ports['mqtt_tls']}")
        places.add_row("devices, MQTT, WebSocket", f"ws://127.0.0.1:{ports['ws']}/mqtt")
        places.add_row("devices, HTTP", f"http://127.0.0.1:{ports['device_http']}")
        if "device_http_tls" in ports:
            places.add_row("devices, HTTP and TLS", f"https://127.0.0.1:{ports['device_http_tls']}")
        places.add_row("metrics", f"http://127.0.0.1:{ports['ingest_http']}/metrics")
        places.add_row("database", without_password(published.database_url))
        places.add_row("redis", without_password(published.redis_url))
        places.add_row("data", _short(published.data_dir))
    return places


def without_password(url: str) -> str:
    """Return `url` as it may be shown."""
    parts = urlsplit(url)
    user = f"{parts.username}@" if parts.username else ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, f"{user}{parts.hostname or ''}{port}", parts.path, "", ""))


def _per_column(history: Sequence[float]) -> list[float]:
    """Two seconds a column, so that two minutes fit the line."""
    pairs = [history[max(0, end - 2) : end] for end in range(len(history), 0, -2)]
    return [sum(pair) / len(pair) for pair in reversed(pairs)]


def _figure(label: str, value: str, style: str = "bold") -> Text:
    return Text.assemble((f"{label}\n", "dim"), (value, style), "\n")


def _dead_letters(pending: int, permanent: int) -> str:
    return f"{pending:,} waiting, {permanent:,} for good" if pending or permanent else "none"


def _rate(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _latency(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds * 1000:.2f} ms"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _short(path: str) -> str:
    """Return the path as one would type it here."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
