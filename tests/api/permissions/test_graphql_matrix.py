"""Every GraphQL field, tried by everybody on things that are his and that are not: against the reviewed table, and against REST."""

import os

import pytest

from tests.api.permissions import matrix
from tests.api.permissions.actors import ACTORS, Place, places
from tests.api.permissions.graphql import FIELDS, NESTED, Nested, fields_of_the_schema, operation
from tests.api.permissions.rest import Call
from tests.api.permissions.trying import Client, graphql_outcome, rest_outcome
from tests.api.permissions.twins import TWINS
from tests.api.world import Person, World


def test_every_field_has_a_recipe() -> None:
    assert sorted(fields_of_the_schema()) == sorted(FIELDS)


@pytest.mark.timeout(600)
async def test_everybody_may_do_over_graphql_what_the_table_says_and_nothing_else(client: Client, world: World) -> None:
    found: matrix.Table = {}
    for place in places(world):
        for name in FIELDS:
            document, path = operation(name, place)
            found[name, place.name] = [
                await graphql_outcome(client, document, of(world), *path) for of in ACTORS.values()
            ]
    if os.environ.get("HSE_WRITE_MATRIX"):
        matrix.write("graphql.csv", found)
    assert list(matrix.differences(found, matrix.read("graphql.csv"))) == []


def test_what_a_field_answers_is_what_rest_answers() -> None:
    graphql, rest = matrix.read("graphql.csv"), matrix.read("rest.csv")
    different = [
        (name, place, actor, cell, twin)
        for (name, place), cells in graphql.items()
        if name in TWINS
        for actor, cell, twin in zip(ACTORS, cells, rest[TWINS[name], place], strict=True)
        if cell != _done_alike(twin)
    ]
    assert different == []


@pytest.mark.timeout(600)
async def test_what_a_thing_leads_to_is_what_rest_answers_to_who_asks_for_it_by_itself(
    client: Client, world: World
) -> None:
    graphql, rest = matrix.read("graphql.csv"), Rest(client)
    different = []
    for place in places(world):
        for name, nested in NESTED.items():
            for actor, of, cell in zip(ACTORS, ACTORS.values(), graphql[name, place.name], strict=True):
                expected = await _over_rest(rest, nested, place, of(world))
                if cell != expected:
                    different.append((name, place.name, actor, cell, expected))
    assert different == []


class Rest:
    """What REST answers; the same is asked once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, str] = {}

    async def outcome(self, operation: str, call: Call, person: Person | None) -> str:
        """What somebody gets."""
        key = f"{operation} {call} {person}"
        if key not in self._known:
            self._known[key] = await rest_outcome(self._client, operation, call, person)
        return self._known[key]


async def _over_rest(rest: Rest, nested: Nested, place: Place, person: Person | None) -> str:
    """What a field of a thing answers when REST lets somebody see the thing, and then what the field leads to."""
    twin, given = TWINS[nested.parent.field], nested.parent.given(place)
    names = [part.strip("{}") for part in twin.split("/") if part.startswith("{")]
    path = dict(zip(names, given.path.values(), strict=True))
    parent = await rest.outcome(twin, Call(path, given.params), person)
    if parent not in ("200", "200:1"):
        return "hidden" if parent == "200:0" else parent
    alone = nested.alone(place)
    if alone is None:
        return "null"
    outcome = await rest.outcome(nested.twin, alone, person)
    # What one may not see is not there: none, or nothing.
    missing = "null" if nested.twin.endswith(("}", "/state")) else "200:0"
    return missing if outcome in ("403", "404") else outcome


def _done_alike(status: str) -> str:
    """REST has more than one way to say that it is done."""
    return "200" if status in ("201", "202", "204") else status
