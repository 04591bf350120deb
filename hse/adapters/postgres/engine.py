"""Connections to the database that `database_url` names."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

# The server gives up a process that is gone without a word, together with the locks that it held.
OPTIONS = (
    "-c timezone=UTC -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=30000"
)


def psycopg_url(database_url: str) -> sa.URL:
    """The URL for psycopg 3, whichever of the usual spellings of a PostgreSQL URL it is given.

    Raises `sqlalchemy.exc.ArgumentError` when `database_url` is not a URL.
    """
    url = sa.make_url(database_url)
    return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgres", "postgresql"} else url


def create_engine(database_url: str) -> sa.Engine:
    """An engine for commands and jobs. Raises `sqlalchemy.exc.ArgumentError` when `database_url` is not a URL."""
    url = psycopg_url(database_url)
    options = {"application_name": "hse", "options": OPTIONS}
    # What was to be stored is none of the log's business when a statement fails.
    return sa.create_engine(url, connect_args=options, hide_parameters=True)


@contextmanager
def transaction(database_url: str) -> Iterator[sa.Connection]:
    """One connection with one transaction, for commands that live for one statement: committed when the block ends."""
    engine = create_engine(database_url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
