"""The worker's minute takes away what has served, and nothing else; the audit log stays for good."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
import sqlalchemy as sa

from hse.adapters.postgres.engine import create_engine
from hse.adapters.postgres.expiry import ROWS_MAX, delete_expired
from hse.adapters.postgres.maintenance import run_maintenance

NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)
USER = "(select id from users)"
HASH = "decode(repeat(%s, 32), 'hex')"


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = create_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "insert into users (email, first_name, last_name, role_id)"
            " select 'a@example.com', 'A', 'B', id from roles where name = 'root'"
        )
        connection.execute("set timezone = 'UTC'")
        yield connection


def left(connection: psycopg.Connection, table: str) -> int:
    row = connection.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


# What is inserted: once as old as it must be to go, and once a minute younger.
OLD_AND_YOUNG = {
    "idempotency_keys": (
        "insert into idempotency_keys (principal_id, key, request_hash, created_at)"
        " values (gen_random_uuid(), 'k', 'h', timestamptz '2030-05-31 12:00' + {span})"
    ),
    "sessions": (
        "insert into sessions (id, user_id, expires_at)"
        f" values (gen_random_uuid(), {USER}, timestamptz '2030-03-03 12:00' + {{span}})"
    ),
    "password_resets": (
        "insert into password_resets (token_hash, user_id, expires_at)"
        f" values (sha256('{{span}}'::bytea), {USER}, timestamptz '2030-05-25 12:00' + {{span}})"
    ),
    "invitations": (
        "insert into invitations (email, first_name, last_name, role_id, status, token_hash, answered_at, expires_at)"
        " select 'b@example.com', 'A', 'B', id, 'rejected', sha256(convert_to('{name}', 'UTF8')),"
        " timestamptz '2030-03-03 12:00' + {span}, now() from roles where name = 'root'"
    ),
    "outgoing_mail": (
        "insert into outgoing_mail (kind, recipient, status, created_at)"
        " values ('k', 'a@example.com', 'sent', timestamptz '2030-05-02 12:00' + {span})"
    ),
    "device_commands": (
        "insert into device_commands (organization_id, device_id, created_by, type, state, dispatch, deadline, finished_at)"
        " select id, id, id, 'ping', 'expired', 'over', '2030-03-01', timestamptz '2030-03-03 12:00' + {span}"
        " from gen_random_uuid() as id"
    ),
    "device_command_groups": (
        "insert into device_command_groups (organization_id, created_by, type, target, deadline, num_commands)"
        " select id, id, 'ping', '{{}}', timestamptz '2030-03-03 12:00' + {span}, 1 from gen_random_uuid() as id"
    ),
}


@pytest.mark.parametrize("table", OLD_AND_YOUNG)
def test_what_has_expired_goes_and_what_has_not_stays(
    engine: sa.Engine, connection: psycopg.Connection, table: str
) -> None:
    statement = OLD_AND_YOUNG[table].replace("sha256('{span}'::bytea)", "sha256(convert_to('{name}', 'UTF8'))")
    for name, span in (("old", "interval '-1 minute'"), ("young", "interval '1 minute'")):
        connection.execute(statement.format(span=span, name=name).encode())
    assert delete_expired(engine, NOW) == 1
    assert left(connection, table) == 1
    assert delete_expired(engine, NOW) == 0


def test_a_session_goes_with_its_tokens_and_a_live_one_keeps_those_that_show_a_theft(
    engine: sa.Engine, connection: psycopg.Connection
) -> None:
    for number, ended_at in enumerate(("2030-03-01", "2030-07-01")):
        connection.execute(
            f"with s as (insert into sessions (id, user_id, expires_at) values (gen_random_uuid(), {USER}, %s) returning id)"
            " insert into refresh_tokens (token_hash, session_id, used_at)"
            " select sha256(convert_to(s.id::text || used::text, 'UTF8')), s.id, used from s,"
            " unnest(array[timestamptz '2030-05-20', timestamptz '2030-05-31']) as used".encode(),
            [ended_at],
        )
        assert left(connection, "refresh_tokens") == 2 * (number + 1)
    delete_expired(engine, NOW)
    assert left(connection, "sessions") == 1
    assert left(connection, "refresh_tokens") == 1


def test_a_session_that_was_ended_early_goes_ninety_days_after_that(
    engine: sa.Engine, connection: psycopg.Connection
) -> None:
    for revoked_at in ("2030-03-03 11:59", "2030-03-03 12:01"):
        connection.execute(
            f"insert into sessions (id, user_id, expires_at, revoked_at) values (gen_random_uuid(), {USER}, %s, %s)".encode(),
            ["2030-07-01", revoked_at],
        )
    assert delete_expired(engine, NOW) == 1
    assert left(connection, "sessions") == 1


def test_a_letter_that_still_waits_stays(engine: sa.Engine, connection: psycopg.Connection) -> None:
    letter = OLD_AND_YOUNG["outgoing_mail"].replace("'sent'", "'pending'").format(span="interval '-1 year'")
    connection.execute(letter.encode())
    assert delete_expired(engine, NOW) == 0


def test_a_command_that_has_not_ended_stays_and_so_does_its_group(
    engine: sa.Engine, connection: psycopg.Connection
) -> None:
    connection.execute(OLD_AND_YOUNG["device_command_groups"].format(span="interval '-1 year'").encode())
    connection.execute(
        "insert into device_commands (organization_id, device_id, created_by, type, deadline, group_id)"
        " select id, id, id, 'ping', '2029-01-01', id from device_command_groups"
    )
    assert delete_expired(engine, NOW) == 0
    ended = "update device_commands set state = 'expired', dispatch = 'over', finished_at = '2029-01-01'"
    connection.execute(ended)
    assert delete_expired(engine, NOW) == 2


def test_a_run_takes_a_bite_and_the_next_run_the_rest(engine: sa.Engine, connection: psycopg.Connection) -> None:
    connection.execute(
        b"insert into idempotency_keys (principal_id, key, request_hash, created_at)"
        b" select gen_random_uuid(), n::text, 'h', '2001-01-01' from generate_series(1, %s) as n",
        [ROWS_MAX + 10],
    )
    assert delete_expired(engine, NOW) == ROWS_MAX
    assert delete_expired(engine, NOW) == 10


def test_the_workers_minute_does_it_and_leaves_the_audit_log(engine: sa.Engine, connection: psycopg.Connection) -> None:
    connection.execute(OLD_AND_YOUNG["outgoing_mail"].format(span="interval '-1 year'").encode())
    connection.execute(
        b"insert into audit_entries (at, actor_kind, action, entity_type) values ('2001-01-01', 'operator', 'a.b', 'a')"
    )
    report = run_maintenance(engine, now=NOW, retention_days=30)
    assert report.rows_expired == 1
    assert left(connection, "audit_entries") == 1
