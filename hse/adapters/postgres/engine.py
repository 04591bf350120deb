"""Connections to the database that `database_url` names."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa


def create_engine(database_url: str) -> sa.Engine:
    """An engine on psycopg 3, whichever of the usual spellings of a PostgreSQL URL it is given.

    Raises `sqlalchemy.exc.ArgumentError` when `database_url` is not a URL.
    """
    url = sa.make_url(database_url)
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+psycopg")
    return sa.create_engine(url, connect_args={"application_name": "hse", "options": "-c timezone=UTC"})


@contextmanager
def transaction(database_url: str) -> Iterator[sa.Connection]:
    """One connection with one transaction, for commands that live for one statement: committed when the block ends."""
    engine = create_engine(database_url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
