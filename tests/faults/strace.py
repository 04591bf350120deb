"""System calls that fail, die or dawdle: `strace --inject`, at the start of a core or attached to a running one."""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

from tests.faults.conditions import until


@cache
def why_no_strace() -> str | None:
    """Say why system calls cannot be tampered with here; None when they can."""
    if shutil.which("strace") is None:
        return "strace is missing: apt-get install strace"
    command = ["strace", "-f", "-o", "/dev/null", "-e", "trace=getcwd", "-e", "inject=getcwd:error=EIO"]
    probe = subprocess.run(
        [*command, sys.executable, "-S", "-c", "import os; os.getcwd()"], capture_output=True, check=False
    )
    if b"Input/output error" in probe.stderr:
        return None
    return f"tracing is not permitted here: {probe.stderr.decode(errors='replace').strip()[-200:]}"


def tracer() -> str:
    """Return the path of strace."""
    path = shutil.which("strace")
    assert path is not None
    return path


def dying_at(call: str, number: int) -> list[str]:
    """Return the command that runs a program and kills it at the `number`-th entry of a thread into `call`.

    The tracer stands beside (-D), so that the program keeps its own parent, process id and exit code. Without --seccomp-bpf,
    which would be faster, and under which strace 6.1 miscounts `when` and never gets beyond 1.
    """
    return [
        *(tracer(), "-D", "-f", "-qq", "-o", "/dev/null"),
        *("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"),
    ]


def pretending(calls: str) -> list[str]:
    """Return the command that runs a program whose `calls` are never made, and return 0 as if they had been."""
    return [tracer(), "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:retval=0"]


def counting(calls: str, log: Path) -> list[str]:
    """Return the command that runs a program and writes these calls of it to `log`."""
    return [tracer(), "-D", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", f"trace={calls}"]


def spawn(command: list[str]) -> "subprocess.Popen[bytes]":
    """Start a tracer."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def tampering(pid: int, log: Path, calls: str, injection: str) -> AsyncIterator[None]:
    """Tamper with `calls` of a running process while the block runs."""
    command = [
        "strace",
        "-f",
        "-p",
        str(pid),
        "-o",
        str(log),
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{injection}",
    ]
    tracer = spawn(command)
    try:
        await until(lambda: is_traced_whole(pid), "every thread is traced")
        yield
    finally:
        if tracer.poll() is None:
            tracer.send_signal(signal.SIGINT)
        try:
            await until(lambda: tracer.poll() is not None, "strace lets go")
        finally:
            # It would hold what it traces for ever, also when that is dead.
            tracer.kill()
            tracer.wait()


def is_traced_whole(pid: int) -> bool:
    """Say whether every thread of a process has a tracer."""
    statuses = [task / "status" for task in Path(f"/proc/{pid}/task").iterdir()]
    return all("TracerPid:\t0\n" not in status.read_text(encoding="ascii") for status in statuses)
