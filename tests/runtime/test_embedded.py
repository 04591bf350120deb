"""The embedded servers: closed to others, gone with their parent, and back after a kill -9."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

from hse.embedded.account import EmbeddedServerError, let_account_reach, server_account
from hse.embedded.leftovers import processes_on
from hse.embedded.ports import free_ports
from hse.embedded.postgres import EmbeddedPostgres, prepare_postgres
from hse.embedded.secrets import password
from hse.embedded.valkey import prepare_valkey
from tests.conftest import running, wait_until


@pytest.fixture
def postgres(tmp_path: Path) -> EmbeddedPostgres:
    return prepare_postgres(tmp_path / "home", port=free_ports(1)[0], settings={"shared_buffers": "16MB"})


def committed_rows(server: EmbeddedPostgres) -> int:
    with psycopg.connect(server.url("postgres")) as connection:
        row = connection.execute("select count(*) from kept").fetchone()
    assert row is not None
    return int(row[0])


def test_postgres_keeps_what_was_committed_through_a_kill(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(postgres, log) as process:
        with psycopg.connect(postgres.url("postgres")) as connection:
            connection.execute("create table kept as select generate_series(1, 1000)")
        process.kill()
        process.wait()
    # The lock file of the killed server is still there; its backends may be, too.
    again = prepare_postgres(tmp_path / "home", port=postgres.port, settings=postgres.settings)
    with running(again, log):
        assert committed_rows(again) == 1000


def test_postgres_refuses_a_wrong_password_on_every_way_in(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    assert postgres.socket_directory is not None
    with running(postgres, tmp_path / "log"):
        for host in ("127.0.0.1", str(postgres.socket_directory)):
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(host=host, port=postgres.port, user="hse", password="hse", dbname="postgres")


def test_what_is_kept_is_closed_to_other_users(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for path in (home / "postgres", home / "secrets", home / "secrets" / "postgres"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    (home / "secrets" / "postgres").chmod(0o644)
    with pytest.raises(EmbeddedServerError, match="chmod 600"):
        prepare_postgres(home, port=postgres.port)


def test_a_password_is_made_once_and_is_not_a_default(tmp_path: Path) -> None:
    account = server_account()
    first = password(tmp_path / "a" / "secrets", "postgres", account)
    assert password(tmp_path / "a" / "secrets", "postgres", account) == first
    assert password(tmp_path / "b" / "secrets", "postgres", account) != first
    assert len(first) >= 32


def test_a_death_during_initdb_leaves_nothing_half_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "postgres.new").mkdir(parents=True)
    (home / "postgres.new" / "half").touch()
    server = prepare_postgres(home, port=free_ports(1)[0])
    assert (server.cluster / "PG_VERSION").exists()
    assert not (home / "postgres.new").exists()


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home" / "postgres").mkdir(parents=True)
    (tmp_path / "home" / "postgres" / "letter.txt").write_text("mine")
    with pytest.raises(EmbeddedServerError, match="move it away"):
        prepare_postgres(tmp_path / "home", port=free_ports(1)[0])
    assert (tmp_path / "home" / "postgres" / "letter.txt").read_text() == "mine"


def test_valkey_keeps_its_data_through_a_stop_and_wants_its_password(tmp_path: Path) -> None:
    import valkey

    server = prepare_valkey(tmp_path / "home", port=free_ports(1)[0])
    with running(server, tmp_path / "log"):
        with valkey.Valkey.from_url(server.url()) as client:
            client.set("kept", "yes")
        with valkey.Valkey(port=server.port) as stranger, pytest.raises(valkey.AuthenticationError):
            stranger.get("kept")
    again = prepare_valkey(tmp_path / "home", port=server.port)
    with running(again, tmp_path / "log"), valkey.Valkey.from_url(again.url()) as client:
        assert client.get("kept") == b"yes"


def test_a_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code = """
        import subprocess, sys, time
        from pathlib import Path
        from hse.embedded.postgres import prepare_postgres
        server = prepare_postgres(Path(sys.argv[1]), port=int(sys.argv[2]))
        subprocess.Popen(server.command(), env=server.environment(), cwd="/", start_new_session=True)
        while not server.is_ready():
            time.sleep(0.02)
        print("ready", flush=True)
        time.sleep(600)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(home), str(free_ports(1)[0])]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        assert processes_on(home / "postgres", "postgres")
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not processes_on(home / "postgres", "postgres"), "every server process is gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the servers as himself")
def test_the_servers_user_reaches_a_directory_below_a_closed_one(tmp_path: Path) -> None:
    account = server_account()
    closed = tmp_path / "closed"
    (closed / "home").mkdir(parents=True)
    target = closed / "home" / "file"
    target.touch(mode=0o666)

    def may_open() -> bool:
        return (
            subprocess.run(
                ["/bin/cat", target], user=account.uid, group=account.gid, extra_groups=[], check=False
            ).returncode
            == 0
        )

    closed.chmod(0o700)
    let_account_reach(target, account)
    assert may_open()
    assert closed.stat().st_mode & 0o007 == 0
    # A chmod narrows the mask of the access-control list; that is noticed and mended.
    closed.chmod(0o700)
    assert not may_open()
    let_account_reach(target, account)
    assert may_open()
