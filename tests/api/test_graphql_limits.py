"""What one GraphQL operation may ask for."""

import pytest
from graphql import parse

from hse.api.graphql.limits import COST_MAX, refusals_of
from hse.api.graphql.schema import schema
from tests.api.conftest import Client
from tests.api.graphql import data, refusal
from tests.api.world import World

# 200 establishments with 200 areas each.
TOO_MUCH = """{ establishments(first: 200) { edges { node { areas(first: 200) { edges { node { id } } } } } } }"""


def codes(query: str, **variables: object) -> list[str]:
    """The codes with which an operation is refused before it is run."""
    refusals = refusals_of(schema._schema, parse(query), None, variables)
    return [str((refusal.extensions or {})["code"]) for refusal in refusals]


async def test_a_query_that_could_answer_too_much_is_refused(api: Client, world: World) -> None:
    await refusal(api, world.root, TOO_MUCH, "graphql.too-costly")
    await data(api, world.root, TOO_MUCH.replace("areas(first: 200)", "areas(first: 40)"))


@pytest.mark.parametrize(
    "query",
    [
        "query Q($n: Int!) { establishments(first: $n) { edges { node { areas(first: $n) { edges { node { id } } } } } } }",
        "query Q($m: Int! = 200) { establishments(first: $m) { edges { node { areas(first: $m) { edges { node { id } } } } } } }",
        """query { establishments(first: 200) { ...Sites } } fragment Sites on EstablishmentConnection { edges { ...Site } }
           fragment Site on EstablishmentEdge { node { ... on Establishment { ...Parts } } }
           fragment Parts on Establishment { areas(first: 200) { edges { node { id } } } }""",
        """{ establishments(first: 200) { edges { node { ... { a: areas(first: 20) { ...A } b: areas(first: 20) { ...A }
           c: areas(first: 20) { ...A } d: areas(first: 20) { ...A } } } } } }
           fragment A on AreaConnection { edges { node { id } } }""",
        "{ establishments(first: 200) { edges { a: node { areas(first: 20) { edges { node { id } } } } "
        "b: node { areas(first: 20) { edges { node { id } } } } c: node { areas(first: 20) { edges { node { id } } } } } } }",
        "{ establishments(first: 200) { edges { node { metadata a: metadata b: metadata c: metadata d: metadata e: metadata "
        "f: metadata g: metadata h: metadata i: metadata } } } }",
        """query Q($id: UUID!) { userEstablishments(id: $id) { establishment { areas(first: 10) { edges { node { id } } } } } }""",
        "query Q { areas { totalCount } } query R { establishments(first: 200) { edges { node { areas(first: 200) { edges { "
        "node { id } } } } } } }",
    ],
)
def test_neither_variables_nor_fragments_nor_aliases_make_it_cheaper(query: str) -> None:
    assert codes(query, n=200) == ["graphql.too-costly"]


def test_a_variable_that_is_small_makes_it_cheap_and_one_that_is_none_does_not() -> None:
    query = "query Q($n: Int!) { establishments(first: 200) { edges { node { areas(first: $n) { edges { node { id } } } } } } }"
    assert codes(query, n=10) == []
    for wrong in (None, "1", 1.0, True, [1]):
        assert codes(query, n=wrong) == ["graphql.too-costly"]
    assert codes(query, n=-1) == []


async def test_the_cost_says_how_much_is_too_much(api: Client, world: World) -> None:
    response = await api.post("/graphql", headers=world.root.headers, json={"query": TOO_MUCH})
    assert f"{COST_MAX} at most" in response.json()["errors"][0]["message"]


async def test_fields_that_nest_too_deeply_are_refused(api: Client, world: World) -> None:
    query = "{ areas { edges { node { " + "parent { " * 14 + "id" + " }" * 14 + " } } } }"
    await refusal(api, world.chief, query, "graphql.too-deep")
    fits = "{ areas { edges { node { " + "parent { " * 12 + "id" + " }" * 12 + " } } } }"
    await data(api, world.chief, fits)
    deep = "{ areas { edges { node { ...D } } } } fragment D on Area { " + "parent { " * 13 + "id" + " }" * 13 + " }"
    await refusal(api, world.chief, deep, "graphql.too-deep")
    very = "{ areas" + "{ edges" * 300 + "}" * 301
    await refusal(api, world.chief, very, "graphql.too-deep")


async def test_too_many_aliases_are_refused(api: Client, world: World) -> None:
    query = "{ " + " ".join(f"a{number}: areas {{ totalCount }}" for number in range(31)) + " }"
    await refusal(api, world.chief, query, "graphql.too-many-aliases")
    spread = (
        "{ areas { edges { ...E ...E } } } fragment E on AreaEdge { "
        + " ".join(f"a{n}: cursor" for n in range(16))
        + " }"
    )
    await refusal(api, world.chief, spread, "graphql.too-many-aliases")


async def test_a_document_that_is_too_long_is_refused(api: Client, world: World) -> None:
    query = "{ " + "areas { totalCount } " * 260 + "}"
    await refusal(api, world.chief, query, "graphql.too-many-tokens")


async def test_fragments_that_spread_each_other_are_weighed_once(api: Client, world: World) -> None:
    # Walked through, it would be 2^75 fields: no answer, ever.
    chain = " ".join(f"fragment F{n} on Area {{ ...F{n + 1} ...F{n + 1} }}" for n in range(75))
    query = f"{{ areas {{ edges {{ node {{ ...F0 }} }} }} }} {chain} fragment F75 on Area {{ id }}"
    assert codes(query) == ["graphql.too-costly"]
    await refusal(api, world.chief, query, "graphql.too-costly")


async def test_fragments_that_spread_themselves_are_refused(api: Client, world: World) -> None:
    query = "{ areas { edges { node { ...F } } } } fragment F on Area { parent { ...G } } fragment G on Area { ...F }"
    await refusal(api, world.chief, query, "request.invalid")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "request.malformed"),
        ("{ nothing }", "request.invalid"),
        ("{ areas { edges { node { id } } }", "request.malformed"),
        ("{ area(id: 1) { id } }", "request.invalid"),
        ("query Q($id: UUID!) { area(id: $id) { id } }", "request.invalid"),
        ("{ ...F } fragment F on Nothing { id }", "request.invalid"),
    ],
)
async def test_what_does_not_fit_the_schema_is_refused_with_its_place(
    api: Client, world: World, query: str, code: str
) -> None:
    await refusal(api, world.chief, query, code, id="x")


async def test_introspection_costs_nothing_and_does_not_nest(api: Client, world: World) -> None:
    kinds = (
        "{ __schema { types { name fields { name type { name ofType { name ofType { name ofType { name } } } } } } } }"
    )
    assert (await data(api, world.custom, kinds))["__schema"]["types"]
    nested = "{ __schema { types { " + "fields { type { " * 5 + "name" + " } }" * 5 + " } } }"
    await refusal(api, world.custom, nested, "request.invalid")
