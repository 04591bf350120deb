"""`hse doctor`: what is missing or wrong on this machine, and how to mend each."""

import importlib
import importlib.util
import json
import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import typer

from hse.adapters.postgres.engine import transaction
from hse.adapters.postgres.migrate import current, head
from hse.cli.options import DataDir, settings_with
from hse.cli.place import place_of
from hse.embedded import postgres, valkey
from hse.embedded.account import EmbeddedServerError
from hse.embedded.ports import is_free
from hse.settings import Settings, SettingsError, data_dir_of, port_variable_of, ports_of
from hse.simulation.meters import SamplesMissing, samples_directory
from hse.supervision.published import NotRunning, find_published

GIBIBYTE = 1 << 30
# Beside the journal at its largest: WAL, and room for the database to grow while somebody reacts.
DATABASE_ROOM_BYTES = 6 * GIBIBYTE
# Sockets are not all: segments, database connections, libraries.
OTHER_FILES = 256
CLOCK_SKEW_MAX = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `mend` says what to do when it is not well. A note limits, but keeps nothing from running."""

    what: str
    is_well: bool
    detail: str
    mend: str = ""
    is_note: bool = False


def doctor(data_dir: DataDir = None) -> None:
    """Say what is missing or wrong, and how to mend it. Exit code 1 when something is."""
    try:
        settings = settings_with(data_dir)
    except SettingsError as error:
        for mistake in error.mistakes:
            _print(Finding(what="settings", is_well=False, detail=mistake, mend="change or unset the variable"))
        raise typer.Exit(1) from error
    checks: list[Callable[[Settings], Finding]] = [
        _toolchain,
        _extension,
        _embedded_postgres,
        _embedded_valkey,
        _samples,
        _open_files,
        _scheduling,
        _data_directory,
        _disk,
        _ports,
        lambda _: _database(data_dir),
        lambda _: _clock(data_dir),
        lambda _: _journal(data_dir, data_dir_of(settings)),
    ]
    findings = [check(settings) for check in checks]
    for finding in findings:
        _print(finding)
    if not all(finding.is_well or finding.is_note for finding in findings):
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    verdict = "ok" if finding.is_well else "note" if finding.is_note else "WRONG"
    print(f"{verdict:5} {finding.what}: {finding.detail}")
    if not finding.is_well:
        print(f"      mend: {finding.mend}")


def _toolchain(_: Settings) -> Finding:
    cargo = shutil.which("cargo")
    if cargo is None:
        mend = "install it from https://rustup.rs; only building the extension needs it"
        return Finding(what="Rust", is_well=False, is_note=True, detail="no cargo on PATH", mend=mend)
    told = subprocess.run([cargo, "--version"], capture_output=True, text=True, check=False)
    mend = "run `rustup toolchain install stable`"
    return Finding(what="Rust", is_well=told.returncode == 0, detail=(told.stdout or told.stderr).strip(), mend=mend)


def _extension(_: Settings) -> Finding:
    spec = importlib.util.find_spec("hse._ingest_core")
    if spec is None:
        return Finding(what="ingest core", is_well=False, detail="the extension is not built", mend="run `make dev`")
    return Finding(what="ingest core", is_well=True, detail=str(spec.origin))


def _embedded_postgres(settings: Settings) -> Finding:
    return _embedded("embedded PostgreSQL", lambda: postgres.binaries() / "postgres", settings.database_url)


def _embedded_valkey(settings: Settings) -> Finding:
    return _embedded("embedded Valkey", valkey.binary, settings.redis_url)


def _embedded(what: str, find: Callable[[], Path], given_url: str | None) -> Finding:
    if given_url is not None:
        return Finding(what=what, is_well=True, detail="not used: a URL is set")
    try:
        program = find()
    except EmbeddedServerError as error:
        return Finding(what=what, is_well=False, detail=str(error), mend="run `make dev`")
    return Finding(
        what=what,
        is_well=os.access(program, os.X_OK),
        detail=str(program),
        mend="the wheel has no program for this machine: set HSE_DATABASE_URL and HSE_REDIS_URL to servers of your own",
    )


def _samples(_: Settings) -> Finding:
    try:
        return Finding(what="recorded readings", is_well=True, detail=str(samples_directory()))
    except SamplesMissing as error:
        detail, _colon, mend = str(error).partition(": ")
        return Finding(what="recorded readings", is_well=False, detail=detail, mend=mend)


def _open_files(settings: Settings) -> Finding:
    # `hse ingest` raises its soft limit to the hard one by itself.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.connections_max + OTHER_FILES
    return Finding(
        what="open files",
        is_well=limit >= needed or limit == resource.RLIM_INFINITY,
        is_note=True,
        detail=f"hard limit {limit}, wanted {needed} for {settings.connections_max} connections",
        mend=f"as root `ulimit -Hn {needed}`, or set HSE_CONNECTIONS_MAX to {max(limit - OTHER_FILES, 1)} or less",
    )


def _scheduling(_: Settings) -> Finding:
    is_well = _may_go_first()
    return Finding(
        what="scheduling",
        is_well=is_well,
        is_note=True,
        detail="the ingest core may go first" if is_well else "ACKs wait for whatever else keeps this machine busy",
        mend="allow `hse ingest` a real-time priority of 1: `LimitRTPRIO=1` for systemd, `--ulimit rtprio=1` for a container",
    )


def _may_go_first() -> bool:
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return True
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def _data_directory(settings: Settings) -> Finding:
    path = data_dir_of(settings)
    what = "data directory"
    if not path.exists():
        parent = next(directory for directory in path.parents if directory.exists())
        mend = f"make it yours, or name another with --data-dir: {parent}"
        return Finding(what=what, is_well=os.access(parent, os.W_OK), detail=f"{path}, to be made", mend=mend)
    status = path.stat()
    if status.st_uid != os.geteuid():
        detail, mend = (
            f"{path} belongs to user id {status.st_uid}",
            f"run as that user, or `chown -R {os.geteuid()} {path}`",
        )
        return Finding(what=what, is_well=False, detail=detail, mend=mend)
    is_closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return Finding(what=what, is_well=is_closed, detail=str(path), mend=f"others may write there: `chmod go-w {path}`")


def _disk(settings: Settings) -> Finding:
    path = data_dir_of(settings)
    existing = path if path.exists() else next(directory for directory in path.parents if directory.exists())
    free = shutil.disk_usage(existing).free
    needed = settings.journal_bytes_max + DATABASE_ROOM_BYTES
    return Finding(
        what="disk",
        is_well=free >= needed,
        detail=f"{free / GIBIBYTE:.1f} GiB free, wanted {needed / GIBIBYTE:.1f} (HSE_JOURNAL_BYTES_MAX and room for the database)",
        mend="free some, choose another --data-dir, or lower HSE_JOURNAL_BYTES_MAX",
    )


def _ports(settings: Settings) -> Finding:
    wanted = ports_of(settings)
    try:
        ours = set(find_published(data_dir_of(settings)).ports.values())
    except NotRunning:
        ours = set()
    taken = [
        f"{port} ({port_variable_of(name)}) is taken"
        for name, port in wanted.items()
        if port not in ours and not is_free(port, settings.bind_host)
    ]
    if not taken:
        return Finding(what="ports", is_well=True, detail=", ".join(map(str, wanted.values())))
    return Finding(
        what="ports", is_well=False, detail=", ".join(taken), mend="set another port, or run `hse up --ports auto`"
    )


def _database(data_dir: Path | None) -> Finding:
    what = "database"
    try:
        url = place_of(data_dir).database_url
        present, newest = current(url), head()
    except NotRunning:
        return Finding(what=what, is_well=True, detail="not running; `hse up` starts it")
    except sa.exc.OperationalError as error:
        detail = str(error.orig).strip().splitlines()[0]
        return Finding(what=what, is_well=False, detail=detail, mend="start the server, or correct HSE_DATABASE_URL")
    return Finding(
        what=what, is_well=present == newest, detail=f"schema {present}, newest {newest}", mend="run `hse migrate`"
    )


def _clock(data_dir: Path | None) -> Finding:
    """Events more than 24 hours ahead are refused by this machine's clock, so a wrong clock refuses or misfiles."""
    what = "clock"
    try:
        with transaction(place_of(data_dir).database_url) as connection:
            theirs: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    except (NotRunning, sa.exc.OperationalError):
        return Finding(
            what=what, is_well=True, detail=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, with nothing to compare"
        )
    skew = abs(theirs - datetime.now(UTC))
    mend = "let both machines follow a time server (`timedatectl set-ntp true`)"
    return Finding(
        what=what, is_well=skew <= CLOCK_SKEW_MAX, detail=f"{skew.total_seconds():.3f} s from the database's", mend=mend
    )


def _journal(data_dir: Path | None, directory: Path) -> Finding:
    """The database's cursor lies between the journal's own and its end, unless one of them is not the other's."""
    what = "journal"
    lanes = sorted((directory / "journal").glob("lane-*"))
    if not lanes or importlib.util.find_spec("hse._ingest_core") is None:
        return Finding(what=what, is_well=True, detail=f"none to read in {directory}")
    core = importlib.import_module("hse._ingest_core")
    try:
        with transaction(place_of(data_dir).database_url) as connection:
            stored = {
                str(row.journal_id): row.position
                for row in connection.execute(sa.text("select journal_id, position from ingest_cursor"))
            }
    except (NotRunning, sa.exc.SQLAlchemyError):
        stored = {}
    for lane in lanes:
        try:
            journal = json.loads(core.inspect_journal(str(lane)))
        except (OSError, ValueError, RuntimeError) as error:
            return Finding(what=what, is_well=False, detail=str(error), mend="see `hse journal inspect`")
        disagreement = disagreement_of(journal, stored.get(journal["journal_id"]))
        if disagreement is not None:
            mend = "bring back the database or the data directory that belongs to the other, from the same time"
            return Finding(what=what, is_well=False, detail=f"{lane}: {disagreement}", mend=mend)
    return Finding(
        what=what,
        is_well=True,
        detail=f"{len(lanes)} lane(s), in agreement with the database" if stored else f"{len(lanes)} lane(s)",
    )


def disagreement_of(journal: dict[str, Any], stored_position: int | None) -> str | None:
    """Say why an inspected journal and the position that the database holds for it cannot belong together."""
    state = journal["tail"]["state"]
    if state not in ("sealed", "open", "torn"):
        return f"its tail is {state}; the core refuses to open it: `hse journal inspect` says where"
    if stored_position is None:
        return None
    freed_to, end = journal["cursor"]["position"], journal["end"]
    if stored_position > end:
        return f"the database has stored up to {stored_position}, and the journal ends at {end}: it is an older copy"
    if stored_position < freed_to:
        return f"the journal was freed up to {freed_to}, and the database has {stored_position}: it is an older copy"
    return None
