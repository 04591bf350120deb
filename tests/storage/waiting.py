"""Waiting for what another connection is doing, with a deadline and without guesses about time."""

import time
from concurrent.futures import Future

import sqlalchemy as sa

DEADLINE_SECONDS = 20.0

WAITING = sa.text(
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    " and query like :query"
)


def wait_until_blocked(engine: sa.Engine, query: str, *, count: int = 1, unless: Future[object] | None = None) -> None:
    """Returns once `count` statements like `query` wait for a lock, or `unless` is done; fails after 20 s."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while unless is None or not unless.done():
            if connection.execute(WAITING, {"query": query}).scalar_one() >= count:
                return
            assert time.monotonic() < deadline, f"after {DEADLINE_SECONDS} s no {count} statements like {query} wait"
            time.sleep(0.01)
