"""What the interfaces look like from outside, committed beside this file: a change of it is seen in the diff, and on purpose.

`make snapshots` writes them anew.
"""

import json
from collections.abc import Callable
from pathlib import Path

from hse.api.app import Parts, create_app
from hse.api.graphql.schema import schema
from hse.api.openapi import document_of
from hse.settings import Settings
from hse.wiring.api import compose_api

HERE = Path(__file__).parent


def graphql_schema() -> str:
    """The GraphQL schema in its own language."""
    return f"{schema.as_str()}\n"


def openapi_document() -> str:
    """The OpenAPI document. What it says does not depend on the database, which nobody opens."""
    return json.dumps(document_of(create_app(unopened_parts())), indent=1, ensure_ascii=False) + "\n"


def unopened_parts() -> Parts:
    """The parts of an application that is looked at and not started."""
    return compose_api(Settings(database_url="postgresql://nobody@127.0.0.1:1/none", secret_key="0" * 64))


SNAPSHOTS: dict[str, Callable[[], str]] = {"schema.graphql": graphql_schema, "openapi.json": openapi_document}


def main() -> None:
    """Write every snapshot."""
    for name, make in SNAPSHOTS.items():
        (HERE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
