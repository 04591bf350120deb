"""Server processes that a killed predecessor left on a directory.

Both servers change into their data directory, so a process belongs to a directory when its working directory is that one
and its program has the server's name. Process ids from files are not trusted: after a reboot they are somebody else's.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from hse.embedded.account import EmbeddedServerError

POLL_SECONDS = 0.05


def processes_on(directory: Path, program: str) -> list[int]:
    """Return the ids of processes called `program` that work in `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # Processes end while one looks, and those of other users cannot be looked at.
        with contextlib.suppress(OSError):
            works_here = (entry / "cwd").readlink() == directory.resolve()
            if works_here and (entry / "exe").readlink().name.removesuffix(" (deleted)") == program:
                found.append(int(entry.name))
    return found


def clear_leftovers(directory: Path, program: str, *, patience_seconds: float = 10.0) -> None:
    """Wait until no `program` works in `directory`, killing what has not gone after `patience_seconds`.

    The caller holds the lock of the data directory, so what is found has no supervisor any more.
    """
    deadline = time.monotonic() + patience_seconds
    is_killed = False
    while left := processes_on(directory, program):
        if time.monotonic() > deadline:
            if is_killed:
                raise EmbeddedServerError(
                    f"{program} (process {left[0]}) still holds {directory} and does not die: end it first"
                )
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            is_killed = True
            deadline = time.monotonic() + patience_seconds
        time.sleep(POLL_SECONDS)
