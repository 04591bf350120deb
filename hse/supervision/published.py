"""What a running `hse up` tells other programs: `up.json` in the data directory, and the lock beside it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hse.failure import Failure


class AlreadyRunning(Failure):
    """Another `hse up` holds the data directory."""


class NotRunning(Failure):
    """No `hse up` runs on the data directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where everything is. The URLs hold passwords, so the file is closed to other users."""

    ports: dict[str, int]
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    data_dir: str
    pids: dict[str, int]

    def to_json(self) -> str:
        """Return the one line that `hse up --json` prints."""
        return json.dumps(asdict(self))


def publish(data_dir: Path, published: Published) -> None:
    """Write `up.json` so that a reader sees the old one or the new one, never a part."""
    draft = data_dir / "up.json.new"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(published.to_json() + "\n")
    draft.rename(data_dir / "up.json")


def withdraw(data_dir: Path) -> None:
    """Remove `up.json`: what it says is no longer so."""
    (data_dir / "up.json").unlink(missing_ok=True)


def find_published(data_dir: Path) -> Published:
    """Return what the `hse up` that runs on `data_dir` published; raises `NotRunning`."""
    path = data_dir / "up.json"
    if not path.is_file():
        raise NotRunning(
            f"no `hse up` runs on {data_dir}: start one, name another with --data-dir, or set HSE_DATABASE_URL"
        )
    if not _is_locked(data_dir):
        raise NotRunning(f"the `hse up` of {data_dir} was killed: start it again, and it goes on where it was")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Published(**values)


@contextlib.contextmanager
def lock(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this process; raises `AlreadyRunning`. The kernel lets go of it when the process dies."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The descriptor is closed on exec, so no child keeps the lock alive.
    with (data_dir / "up.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            message = f"another `hse up` (process {holder}) runs on {data_dir}: stop it, or use another --data-dir"
            raise AlreadyRunning(message) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _is_locked(data_dir: Path) -> bool:
    try:
        with (data_dir / "up.lock").open("r", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
