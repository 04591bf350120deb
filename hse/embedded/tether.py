"""Run a command that dies with its parent, as another user if asked to.

    python tether.py PARENT_PID DEATH_SIGNAL UID:GID|- COMMAND [ARGUMENT ...]

`PR_SET_PDEATHSIG` asks the kernel to send DEATH_SIGNAL to this process when the thread that started it ends, so a `kill -9` of
the supervisor leaves nothing behind. The setting survives `execve`, but a change of user clears it: hence the order below.
It is a program of its own, and not a `preexec_fn`, because code between fork and exec may deadlock when the parent has threads.
It is started as a file with `-I -S`, before any user can be changed, so the virtual environment may be closed to that user.
"""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str | Path], *, death_signal: int, account: tuple[int, int] | None = None) -> list[str]:
    """Return the command line that runs `command` tethered to the calling process; spawn it from the main thread."""
    ids = "-" if account is None else f"{account[0]}:{account[1]}"
    tether = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), ids]
    return tether + [str(part) for part in command]


def main(arguments: list[str]) -> NoReturn:
    """Change the user, tie this process to its parent, and become the command."""
    parent, death_signal, ids, *command = arguments
    if ids != "-":
        uid, gid = (int(part) for part in ids.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):
        # The parent died before the kernel was told: no signal will ever come.
        sys.exit(1)
    os.umask(0o077)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
