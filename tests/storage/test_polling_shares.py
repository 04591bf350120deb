"""Who polls what: shares are held for a while, evenly, and by one node at a time."""

import time
from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa

LEASE_MS = 60_000


@pytest.fixture
def core(engine: sa.Engine) -> Iterator[psycopg.Connection]:
    """A connection under the core's role, with nobody holding anything."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("delete from polling_nodes")
        connection.execute("update polling_shares set holder = null, until = null")
        connection.execute("set role hse_ingest")
        yield connection


class Node:
    """A node that asks for shares again and again."""

    def __init__(self, core: psycopg.Connection) -> None:
        self.core = core
        self.holder: UUID = uuid4()
        self.shares: list[int] = []
        self.num_nodes = 0

    def ask(self, lease_ms: int = LEASE_MS) -> int:
        """Ask, keep the fair part of what is answered, and return how much it is."""
        statement = "select held, num_fair, num_nodes from hold_polling_shares(%s, 'node', %s::smallint[], %s)"
        row = self.core.execute(statement, [self.holder, self.shares, lease_ms]).fetchone()
        assert row is not None
        held, num_fair, self.num_nodes = row
        self.shares = held[:num_fair]
        return len(self.shares)


def test_a_node_alone_holds_all_and_asks_for_them_again(core: psycopg.Connection) -> None:
    node = Node(core)
    assert [node.ask(), node.ask()] == [16, 16]
    assert node.num_nodes == 1
    # After a crash it does not know what it held, and finds it again.
    node.shares = []
    assert node.ask() == 16


def test_a_second_node_gets_its_part_once_the_first_has_given_it_away(core: psycopg.Connection) -> None:
    first, second = Node(core), Node(core)
    assert first.ask() == 16
    assert second.ask() == 0
    # The first hears that half is enough; until it asks again it may still be polling the rest.
    assert first.ask() == 8
    assert second.ask() == 0
    assert first.ask() == 8
    assert second.ask() == 8
    assert not set(first.shares) & set(second.shares)
    assert (first.num_nodes, second.num_nodes) == (2, 2)


def test_what_a_silent_node_held_is_free_when_its_lease_has_run_out(core: psycopg.Connection) -> None:
    silent, other = Node(core), Node(core)
    assert silent.ask(lease_ms=200) == 16
    assert other.ask() == 0
    deadline = time.monotonic() + 20
    while other.ask() < 16:
        assert time.monotonic() < deadline, "the lease did not run out"
    # Who was silent is told that it has nothing, whatever it thinks.
    silent.ask()
    assert not set(silent.shares) & set(other.shares)


def test_who_leaves_has_nobody_wait(core: psycopg.Connection) -> None:
    leaving, other = Node(core), Node(core)
    leaving.ask()
    other.ask()
    core.execute("select leave_polling(%s)", [leaving.holder])
    assert other.ask() == 16
    assert other.num_nodes == 1


def test_the_core_reaches_the_shares_through_the_functions_alone(core: psycopg.Connection) -> None:
    for table in ("polling_nodes", "polling_shares"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            core.execute(f"select from {table}")
