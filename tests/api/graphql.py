"""Ask GraphQL and look at what it answers."""

from typing import Any

from tests.api.conftest import Client
from tests.api.world import Person


async def ask(api: Client, person: Person, query: str, **variables: Any) -> dict[str, Any]:
    """The whole answer, errors included."""
    body = {"query": query, "variables": variables}
    response = await api.post("/graphql", headers=person.headers, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def data(api: Client, person: Person, query: str, **variables: Any) -> Any:
    """The data of an answer without errors."""
    answer = await ask(api, person, query, **variables)
    assert "errors" not in answer, answer
    return answer["data"]


async def refusal(api: Client, person: Person, query: str, code: str, **variables: Any) -> dict[str, Any]:
    """The extensions of the first error, which must have this code."""
    answer = await ask(api, person, query, **variables)
    assert answer.get("errors"), answer
    error: dict[str, Any] = answer["errors"][0]
    assert error["extensions"]["code"] == code, error
    assert error["extensions"]["correlationId"]
    extensions: dict[str, Any] = error["extensions"]
    return extensions


def nodes(connection: dict[str, Any]) -> list[dict[str, Any]]:
    """The things in a connection."""
    return [edge["node"] for edge in connection["edges"]]


def names(connection: dict[str, Any]) -> list[str]:
    """The names in a connection."""
    return [node["name"] for node in nodes(connection)]
