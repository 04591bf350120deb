"""Every REST operation, tried by everybody on things that are his and that are not, against the reviewed table."""

import os
from collections.abc import Iterator

import pytest
from litestar import Litestar

from hse.api.app import Parts, create_app
from tests.api.permissions import matrix
from tests.api.permissions.actors import ACTORS, places
from tests.api.permissions.rest import RECIPES
from tests.api.permissions.trying import Client, rest_outcome
from tests.api.world import World

METHODS = ("get", "post", "put", "patch", "delete")


def operations(app: Litestar) -> Iterator[str]:
    """Every operation below /api/v1 that the OpenAPI document shows."""
    for path, item in app.openapi_schema.to_schema()["paths"].items():
        if path.startswith("/api/v1"):
            yield from (f"{method.upper()} {path}" for method in METHODS if method in item)


def test_every_operation_has_a_recipe(parts: Parts) -> None:
    assert sorted(operations(create_app(parts))) == sorted(RECIPES)


@pytest.mark.timeout(600)
async def test_everybody_may_do_over_rest_what_the_table_says_and_nothing_else(client: Client, world: World) -> None:
    found: matrix.Table = {}
    for place in places(world):
        for operation, recipe in RECIPES.items():
            found[operation, place.name] = [
                await rest_outcome(client, operation, recipe(place), of(world)) for of in ACTORS.values()
            ]
    if os.environ.get("HSE_WRITE_MATRIX"):
        matrix.write("rest.csv", found)
    assert list(matrix.differences(found, matrix.read("rest.csv"))) == []
