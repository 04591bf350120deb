"""The OpenAPI document: complete, open to everybody, and with examples that work."""

import json
from typing import Any

import pytest

from hse.api.openapi import TAGS, codes
from tests.api.booked import new_booking, new_guest, new_template
from tests.api.conftest import Client
from tests.api.profiled import new_profile, new_provisioning_key
from tests.api.snapshots import openapi_document
from tests.api.world import World
from tests.checks.test_domain import domain_errors

DOCUMENT: dict[str, Any] = json.loads(openapi_document())
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}

# Who was invited has no account yet, nor has who reads a calendar: the token of the letter or the link is his proof.
OPENED_BY_A_SECRET = {f"/api/v1/invitations/{answer}" for answer in ("preview", "accept", "reject")} | {
    "/api/v1/booking-calendars/{area_id}/{token}"
}


async def test_the_document_is_open_to_everybody(api: Client) -> None:
    document = await api.get("/docs/openapi.json")
    assert document.json() == DOCUMENT
    assert document.headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors")


def test_every_code_of_the_domain_stands_in_the_document() -> None:
    listed = DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert {error.code for error in domain_errors()} <= set(listed)
    assert listed == sorted(codes())


def test_operations_have_short_names_of_their_own_a_summary_and_a_tag_that_is_explained() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))
    for key, operation in OPERATIONS.items():
        assert operation["summary"], key
        assert set(operation["tags"]) <= TAGS.keys(), key


def test_refusals_are_declared_where_they_apply() -> None:
    change = OPERATIONS["PATCH /api/v1/areas/{area_id}"]["responses"]
    assert {"200", "400", "401", "403", "404", "409", "412", "413", "422", "429", "503"} == change.keys()
    assert "ETag" in change["200"]["headers"]
    listed = OPERATIONS["GET /api/v1/areas"]["responses"]
    assert {"200", "401", "403", "422", "429", "503"} == listed.keys()
    assert OPERATIONS["GET /health/liveness"]["responses"].keys() == {"200"}
    for key, operation in OPERATIONS.items():
        is_public = operation.get("security") == []
        path = key.split(" ")[1]
        assert is_public == (not path.startswith("/api/v1") or "/auth/" in path or path in OPENED_BY_A_SECRET), key


def test_bodies_refuse_what_they_do_not_know() -> None:
    for key, operation in OPERATIONS.items():
        for media_type in operation.get("requestBody", {}).get("content", {}).values():
            for schema in media_type["schema"].get("oneOf", [media_type["schema"]]):
                if "$ref" in schema:
                    name = schema["$ref"].rsplit("/", 1)[1]
                    assert DOCUMENT["components"]["schemas"][name]["additionalProperties"] is False, key


# A file has no example here: `docs/bulk-import.md` describes it, and `test_imports` sends it.
WITH_BODY = [
    key for key, operation in OPERATIONS.items() if "requestBody" in operation and key != "POST /api/v1/imports/sites"
]


@pytest.mark.parametrize("key", WITH_BODY)
async def test_the_example_of_a_body_has_the_form_of_the_operation(api: Client, world: World, key: str) -> None:
    method, path = key.split(" ")
    for media_type, content in OPERATIONS[key]["requestBody"]["content"].items():
        assert media_type == "application/json"
        filled = path.replace("{", "").replace("}", "") if "{" not in path else _filled(path, world)
        response = await api.request(method, filled, headers=world.root.headers, json=content["example"])
        assert response.status_code < 500, response.text
        assert response.status_code != 400, response.text
        if response.status_code == 422:
            # A value that has the right form, and is not one that is there.
            assert response.json()["code"] != "request.invalid" or "errors" not in response.json(), response.text


def _filled(path: str, world: World) -> str:
    site = world.tenant.sites[0]
    guest, companion = new_guest(world, world.tenant, site), new_guest(world, world.tenant, site)
    known = {
        "partner_company_id": world.partner_company,
        "organization_id": world.tenant.id,
        "establishment_id": site.id,
        "area_id": site.area_id,
        "device_id": site.device_id,
        "role_id": world.custom_role,
        "user_id": world.second_user.id,
        "api_key_id": world.new_api_key(world.root),
        "guest_id": guest,
        "companion_id": companion,
        "booking_id": new_booking(world, world.tenant, site, guest),
        "template_id": new_template(world, world.tenant),
        "profile_id": new_profile(world, world.tenant),
        "key_id": new_provisioning_key(world, world.tenant),
    }
    return path.format(**{name: value for name, value in known.items() if f"{{{name}}}" in path})
