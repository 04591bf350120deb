"""What the interfaces look like from outside, committed beside this file: a change of it is seen in the diff, and on purpose.

`make snapshots` writes them anew.
"""

from collections.abc import Callable
from pathlib import Path

from hse.api.graphql.schema import schema

HERE = Path(__file__).parent


def graphql_schema() -> str:
    """The GraphQL schema in its own language."""
    return f"{schema.as_str()}\n"


SNAPSHOTS: dict[str, Callable[[], str]] = {"schema.graphql": graphql_schema}


def main() -> None:
    """Write every snapshot."""
    for name, make in SNAPSHOTS.items():
        (HERE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
