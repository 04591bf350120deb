"""Invitations that offer what is not to be given any more: by whom it was offered, or at all."""

from typing import Any
from uuid import UUID

import pytest

from tests.api.conftest import Client, problem_of
from tests.api.inviting import answer, execute, invite, role_ids, token_sent
from tests.api.world import Person, World

MOVED = (
    "update users set organization_id = (select id from organizations where name = 'Bolt')"
    " where email = 'chief@example.com'"
)
PARTNER_MOVED = (
    "update users set partner_company_id = (select id from partner_companies where name = 'Beta')"
    " where email = 'partner@example.com'"
)
LOST = (
    "delete from permissions where action_name = '{}' and role_id = (select id from roles where type = 'system'"
    " and name = 'admin')"
)


@pytest.fixture
def roles(world: World) -> dict[str, UUID]:
    """The system roles by name, and the custom ones of the world."""
    return role_ids(world)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from roles where name = 'spare'",
        "update organizations set is_active = false where name = 'Acme'",
        "update partner_companies set is_active = false where name = 'Alpha'",
        "update users set is_active = false where email = 'chief@example.com'",
        "update users set role_id = (select id from roles where name = 'user' and type = 'system')"
        " where email = 'chief@example.com'",
        "delete from users where email = 'chief@example.com'",
    ],
)
async def test_what_is_not_to_be_given_any_more_cannot_be_accepted(api: Client, world: World, statement: str) -> None:
    """The role is gone, the organisation is disabled, or who invited could not do it any more."""
    body = {"name": "spare", "actions": ["read_area"]}
    spare = (await api.post("/api/v1/roles", headers=world.chief.headers, json=body)).json()["id"]
    assert (await invite(api, world.chief, spare)).status_code == 201
    token = token_sent(world)
    execute(world, statement)
    assert (await answer(api, "preview", token)).json()["is_void"] is True
    problem_of(await answer(api, "accept", token), 409, "invitations.void")
    assert (await answer(api, "reject", token)).status_code == 204


@pytest.mark.parametrize(
    ("by", "offer", "statement"),
    [
        pytest.param("chief", "user", MOVED, id="a chief moved to another organisation"),
        pytest.param("partner", "user", PARTNER_MOVED, id="a partner moved to another company"),
        pytest.param(
            "partner",
            "user",
            "update organizations set partner_company_id = null where name = 'Acme'",
            id="the organisation left his company",
        ),
        pytest.param(
            "admin",
            "user at the first site",
            "delete from user_establishments where user_id = (select id from users where email = 'admin@example.com')",
            id="he does not look after the establishment any more",
        ),
        pytest.param(
            "chief",
            "user at the second site",
            "update users set has_all_establishments = false where email = 'chief@example.com'",
            id="he looks after some establishments only",
        ),
        pytest.param(
            "chief",
            "chief",
            "update users set has_all_establishments = false where email = 'chief@example.com'",
            id="he is no chief any more",
        ),
        pytest.param("chief", "user", LOST.format("create_user"), id="he may not invite any more"),
        pytest.param("chief", "user", LOST.format("read_device"), id="he does not hold what the role holds"),
    ],
)
async def test_an_invitation_is_as_good_as_what_its_inviter_could_do_now(
    api: Client, world: World, roles: dict[str, UUID], by: str, offer: str, statement: str
) -> None:
    first, second = ([str(site.id)] for site in world.tenant.sites)
    offers: dict[str, dict[str, Any]] = {
        "user": {"organization_id": str(world.tenant.id)},
        "user at the first site": {"establishment_ids": first},
        "user at the second site": {"establishment_ids": second},
        "chief": {"has_all_establishments": True},
    }
    role = roles["admin" if offer == "chief" else "user"]
    made = await invite(api, getattr(world, by), role, **offers[offer])
    assert made.status_code == 201, made.text
    token = token_sent(world)
    assert (await answer(api, "preview", token)).json()["is_void"] is False
    execute(world, statement)
    assert (await answer(api, "preview", token)).json()["is_void"] is True
    problem_of(await answer(api, "accept", token), 409, "invitations.void")


async def test_who_is_moved_leaves_no_way_into_the_organisation_behind(
    api: Client, world: World, roles: dict[str, UUID]
) -> None:
    await invite(api, world.chief, roles["admin"], has_all_establishments=True)
    token = token_sent(world)
    moved = {"role_id": str(roles["admin"]), "organization_id": str(world.other_tenant.id)}
    path = f"/api/v1/users/{world.chief.id}/role"
    done = await api.put(path, headers=world.root.headers, json={**moved, "has_all_establishments": True})
    assert done.status_code == 200, done.text
    problem_of(await answer(api, "accept", token), 409, "invitations.void")


@pytest.mark.parametrize(
    ("by", "statement"),
    [
        ("chief", "update users set role_id = (select id from roles where name = 'root'), organization_id = null"),
        ("admin", "update users set has_all_establishments = true"),
        ("partner", "update users set role_id = (select id from roles where name = 'root'), partner_company_id = null"),
    ],
)
async def test_who_rose_since_he_invited_may_still_invite(
    api: Client, world: World, roles: dict[str, UUID], by: str, statement: str
) -> None:
    inviter: Person = getattr(world, by)
    there = {"organization_id": str(world.tenant.id), "establishment_ids": [str(world.tenant.sites[0].id)]}
    assert (await invite(api, inviter, roles["admin"], **there)).status_code == 201
    execute(world, f"{statement} where id = %s", inviter.id)
    assert (await answer(api, "accept", token_sent(world))).status_code == 201
