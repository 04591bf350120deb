"""A refusal names what is wrong as it is written in the request, not as the program calls it."""

from typing import Any

import pytest

from tests.api.conftest import Client, problem_of
from tests.api.world import World

SERIES = {"device_id": "00000000-0000-0000-0000-000000000000", "type": "power", "from": "2030-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("audit-entries", {"from": "x", "to": "y"}, {"from", "to"}),
        ("areas", {"q": "x" * 201}, {"q"}),
        ("device-commands", {"state": "nope"}, {"state"}),
        ("live", {"device_id": "x"}, {"device_id"}),
        ("telemetry/series", {**SERIES, "device_id": "x", "to": "y"}, {"device_id", "to"}),
        ("telemetry/series", SERIES, {"to"}),
    ],
)
async def test_a_parameter_is_called_what_it_is_in_the_request(
    api: Client, world: World, path: str, params: dict[str, Any], expected: set[str]
) -> None:
    answer = await api.get(f"/api/v1/{path}", headers=world.root.headers, params=params)
    errors: Any = problem_of(answer, 422, "request.invalid")["errors"]
    assert {one["field"] for one in errors} == expected
    assert {one["in"] for one in errors} == {"query"}
    assert all(one["reason"] for one in errors)


async def test_so_is_one_that_is_refused_later_on(api: Client, world: World) -> None:
    answer = await api.get("/api/v1/live", headers=world.root.headers, params={"kind": "x"})
    problem: Any = problem_of(answer, 422, "request.invalid")
    assert (problem["field"], problem["detail"].partition(":")[0]) == ("kind", "kind")


async def test_so_is_a_header(api: Client, world: World) -> None:
    body = {"establishment_id": str(world.tenant.sites[0].id), "name": "Hall", "type": "office"}
    headers = {**world.root.headers, "Idempotency-Key": "x" * 201}
    errors: Any = problem_of(await api.post("/api/v1/areas", headers=headers, json=body), 422, "request.invalid")[
        "errors"
    ]
    assert [(one["field"], one["in"]) for one in errors] == [("Idempotency-Key", "header")]


async def test_so_is_a_field_of_the_body(api: Client, world: World) -> None:
    path, body = f"/api/v1/users/{world.user.id}/establishments", {"establishments": [{"establishment_id": "x"}]}
    errors: Any = problem_of(await api.put(path, headers=world.root.headers, json=body), 422, "request.invalid")[
        "errors"
    ]
    assert [(one["field"], one["in"]) for one in errors] == [("establishments[0].establishment_id", "body")]
