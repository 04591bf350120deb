"""TimescaleDB with direct-to-columnstore COPY, beside COPY alone (F3) into the same hypertable by rows.

Needs a TimescaleDB of 2.28.1 or newer that no production uses: its URL is HSE_TEST_TIMESCALE_URL. A database of its own is
made there and dropped afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from benches.context import Context
from benches.report import NotMeasured, Result, Wanted, check, figure_of
from benches.scenarios.sustained import CHILDREN, GATEWAYS, SORT_ROWS, copy_floor, measure_variant
from benches.stack import Stack, running

NAME = "columnstore"
DATABASE = "hse_bench"


def measure(context: Context) -> Result:
    """Measure all rounds."""
    if context.timescale_url is None:
        raise NotMeasured("HSE_TEST_TIMESCALE_URL is not set: there is no TimescaleDB to measure")
    rounds = []
    with own_database(context.timescale_url) as url:
        environment = {"HSE_DATABASE_URL": url, "HSE_DIRECT_COLUMNSTORE": "true"}
        with running(context.data_root, environment) as stack, context.task(NAME, 4 * context.rounds) as steps:
            facts = stack.database_facts()
            if facts["event_storage"] != "timescaledb":
                raise NotMeasured("the database of HSE_TEST_TIMESCALE_URL has no TimescaleDB")
            fleet = stack.add_devices(NAME, GATEWAYS, children=CHILDREN)
            for number in range(context.rounds):
                one: dict[str, Any] = {}
                for variant in ("hse", "f3_arrival", "f3_sorted"):
                    steps.next(f"round {number + 1}: {variant}")
                    one[variant] = measure_variant(context, stack, fleet, variant, context.seconds)
                    if variant == "hse":
                        _check_columnstore(stack)
                steps.next(f"round {number + 1}: COPY to the columnstore")
                stack.empty_events()
                one["f3_direct"] = copy_floor(
                    context, stack, fleet, context.seconds, sort_rows=SORT_ROWS, is_direct=True, copy_rows=SORT_ROWS
                )
                rate = {name: variant["rows_per_s"] for name, variant in one.items()}
                rounds.append(
                    {
                        "by_f3": rate["hse"] / rate["f3_arrival"],
                        "by_f3_direct": rate["hse"] / rate["f3_direct"],
                        **{f"{name}_rows_per_s": value for name, value in rate.items()},
                        "variants": one,
                    }
                )
    figures = (
        figure_of("HSE, direct / F3 arrival", "x", rounds, "by_f3", Wanted(text=">= 3", at_least=3)),
        figure_of("HSE, direct / COPY direct, sorted", "x", rounds, "by_f3_direct"),
        figure_of("HSE, direct", "rows/s", rounds, "hse_rows_per_s"),
        figure_of("F3 arrival, by rows", "rows/s", rounds, "f3_arrival_rows_per_s"),
        figure_of("F3 sorted, by rows", "rows/s", rounds, "f3_sorted_rows_per_s"),
        figure_of("COPY direct, sorted, 50 000 rows each", "rows/s", rounds, "f3_direct_rows_per_s"),
    )
    return Result(scenario=NAME, figures=figures, rounds=tuple(rounds), notes=(f"{facts}",))


def _check_columnstore(stack: Stack) -> None:
    """See that the rows went where the scenario says."""
    query = """
        select count(*) filter (where is_compressed), count(*)
        from timescaledb_information.chunks where hypertable_name = 'device_events'
    """
    with stack.connect() as connection:
        row = connection.execute(query).fetchone()
    check(row is not None and 0 < row[0] == row[1], f"columnstore chunks, all chunks: {row}")


@contextmanager
def own_database(url: str) -> Iterator[str]:
    """Make a database on the server of `url`; drop it afterwards."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"drop database if exists {DATABASE} with (force)")
        connection.execute(f"create database {DATABASE}")
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{DATABASE}"))
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"drop database if exists {DATABASE} with (force)")
