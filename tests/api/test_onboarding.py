"""The first steps: which are left follows from what is there."""

import re
from typing import Any

import psycopg
from litestar import Litestar

from tests.api.conftest import Client, problem_of
from tests.api.world import Person, World


async def steps(api: Client, person: Person) -> dict[str, bool]:
    response = await api.get("/api/v1/onboarding", headers=person.headers)
    assert response.status_code == 200, response.text
    return {step["name"]: step["is_done"] for step in response.json()["steps"]}


async def test_an_admin_s_steps_are_done_by_doing_them(api: Client, world: World) -> None:
    tenant = world.add_tenant_now("Fresh")
    chief = world.add_person_now("fresh@example.com", "admin", organization_id=tenant.id, is_chief=True)
    assert await steps(api, chief) == {
        "verify_email": True,
        "choose_password": False,
        "turn_on_second_factor": False,
        "organization_details": False,
        "first_establishment": False,
        "areas": False,
        "devices": False,
        "invite_the_team": False,
    }
    refused = problem_of(
        await api.post("/api/v1/onboarding/complete", headers=chief.headers), 409, "onboarding.steps-left"
    )
    assert refused["steps"] == ["choose_password", "organization_details", "first_establishment"]
    world.give_password(chief)
    details = {"contact_email": "office@example.com"}
    own = f"/api/v1/organizations/{tenant.id}"
    assert (await api.patch(own, headers=chief.headers, json=details)).status_code == 200
    place: dict[str, Any] = {"organization_id": str(tenant.id), "name": "First", "timezone": "UTC"}
    assert (await api.post("/api/v1/establishments", headers=chief.headers, json=place)).status_code == 201
    with psycopg.connect(world.database_url) as connection:
        (role,) = connection.execute(
            "select id::text from roles where type = 'system' and name = 'user'"
        ).fetchone() or [""]
    invited = {"email": "n@example.org", "first_name": "N", "last_name": "P", "role_id": role}
    assert (await api.post("/api/v1/invitations", headers=chief.headers, json=invited)).status_code == 201
    left = [name for name, is_done in (await steps(api, chief)).items() if not is_done]
    assert left == ["turn_on_second_factor", "areas", "devices"]
    done = await api.post("/api/v1/onboarding/complete", headers=chief.headers)
    assert done.json()["onboarded_at"] is not None
    again = await api.post("/api/v1/onboarding/complete", headers=chief.headers)
    assert again.json()["onboarded_at"] == done.json()["onboarded_at"]


async def test_a_partner_sets_up_its_company_an_organisation_and_an_admin(api: Client, world: World) -> None:
    found = await steps(api, world.partner)
    assert found["first_organization"]
    assert [found[name] for name in ("partner_company_details", "invite_an_admin")] == [False, False]


async def test_a_user_has_his_own_steps_only(api: Client, world: World) -> None:
    assert set(await steps(api, world.user)) == {"verify_email", "choose_password", "turn_on_second_factor"}


async def test_every_step_leads_to_an_operation_that_there_is(app: Litestar, api: Client, world: World) -> None:
    known = [re.sub(r"{[^}]+}", "[^/]+", path) for path in app.openapi_schema.to_schema()["paths"]]
    for person in (world.root, world.partner, world.chief, world.user):
        found = (await api.get("/api/v1/onboarding", headers=person.headers)).json()["steps"]
        assert [step for step in found if not any(re.fullmatch(path, step["href"]) for path in known)] == []
