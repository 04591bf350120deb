"""The Rust program that makes load, floors and peer."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
STOP_TIMEOUT_SECONDS = 120

Report = dict[str, Any]


class LoadgenFailed(Exception):
    """It ended with an error; the message is what it said."""


def build() -> Path:
    """Build the program in release mode and return where it is."""
    command = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "--package",
        "hse-loadgen",
        "--message-format=json-render-diagnostics",
    ]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    executables = [json.loads(line).get("executable") for line in done.stdout.splitlines()]
    return Path(next(path for path in executables if path is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loadgen:
    """The built program."""

    program: Path

    def run(self, mode: str, options: dict[str, Any], *, timeout_seconds: float = 1800) -> Report:
        """Run one mode to its end and return what it reports; raises `LoadgenFailed`."""
        done = subprocess.run(
            self._command(mode, options), capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
        if done.returncode != 0:
            raise LoadgenFailed(f"{mode}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return _report(done.stdout.splitlines()[-1])

    def start(self, mode: str, options: dict[str, Any]) -> "Running":
        """Start a mode that goes on until it is told to stop."""
        return Running(mode, self._command(mode, options))

    def _command(self, mode: str, options: dict[str, Any]) -> list[str]:
        command = [str(self.program), mode]
        for name, value in options.items():
            flag = "--" + name.replace("_", "-")
            if value is True:
                command.append(flag)
            elif isinstance(value, (list, tuple)):
                command += [flag, ",".join(str(one) for one in value)]
            elif value is not None and value is not False:
                command += [flag, str(value)]
        return command


class Running:
    """A mode under way: it prints a line at each step and goes on at a line from here."""

    def __init__(self, mode: str, command: list[str]) -> None:
        self.mode = mode
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def read(self) -> Report:
        """Wait for its next line."""
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise LoadgenFailed(f"{self.mode}: ended with {self._process.wait(STOP_TIMEOUT_SECONDS)}")
        return _report(line)

    def go_on(self) -> None:
        """Start its next step."""
        stdin = _pipe(self._process.stdin)
        stdin.write("\n")
        stdin.flush()

    def stop(self) -> Report:
        """End it orderly and return its last line; raises `LoadgenFailed`."""
        rest, _ = self._process.communicate(timeout=STOP_TIMEOUT_SECONDS)
        if self._process.returncode != 0:
            raise LoadgenFailed(f"{self.mode}: ended with {self._process.returncode}")
        return _report(rest.splitlines()[-1])

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_SECONDS)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise LoadgenFailed("its pipes are closed")
    return pipe


def _report(line: str) -> Report:
    report: Report = json.loads(line)
    return report
