"""A broker that a site keeps: Mosquitto, with what it has not handed on kept in a file."""

import contextlib
import getpass
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from hse.embedded.ports import free_ports
from hse.embedded.tether import tethered
from tests.faults.conditions import until_in_thread

PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Broker:
    """One Mosquitto."""

    def __init__(self, home: Path, *settings: str) -> None:
        self._home = home
        self._settings = settings or ("allow_anonymous true",)
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, on the same port and with the same file as before."""
        self._home.mkdir(exist_ok=True)
        settings = [
            # Of no effect unless this is root: it gives up its rights otherwise, and cannot read its own files any more.
            f"user {getpass.getuser()}",
            f"listener {self.port} 127.0.0.1",
            *self._settings,
            "persistence true",
            f"persistence_location {self._home}/",
            "autosave_interval 1",
            "max_queued_messages 0",
        ]
        path = self._home / "mosquitto.conf"
        path.write_text("\n".join(settings) + "\n", encoding="utf-8")
        assert PROGRAM is not None
        command = tethered([PROGRAM, "-c", str(path)], death_signal=signal.SIGKILL)
        self._spawn(command)
        await until_in_thread(self._answers, "the broker listens")

    def _spawn(self, command: list[str]) -> None:
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """End it, as an operator does; it writes its file."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=20)
