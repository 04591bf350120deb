"""Sessions: who sees and ends which, and what somebody is told about himself."""

from typing import Any

import psycopg

from tests.api.conftest import Client, problem_of
from tests.api.test_auth import audited, log_in
from tests.api.world import Person, World


async def sessions(api: Client, person: Person, path: str = "sessions", **params: Any) -> list[dict[str, Any]]:
    response = await api.get(f"/api/v1/{path}", headers=person.headers, params=params)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def of(person: Person) -> str:
    return f"users/{person.id}/sessions"


async def test_everybody_sees_his_own_sessions_and_which_of_them_asks(api: Client, world: World) -> None:
    world.give_password(world.user)
    other = (await log_in(api, world.user)).json()
    seen = {one["id"]: one for one in await sessions(api, world.user)}
    assert set(seen) == {str(world.user.session_id), other["session_id"]}
    assert [seen[str(world.user.session_id)]["is_current"], seen[other["session_id"]]["is_current"]] == [True, False]
    assert seen[other["session_id"]]["address"] == "127.0.0.1"
    assert seen[other["session_id"]]["user_agent"].startswith("python-httpx")


async def test_a_session_that_was_ended_is_over_at_once(api: Client, world: World) -> None:
    world.give_password(world.user)
    other = (await log_in(api, world.user)).json()
    path = f"/api/v1/sessions/{other['session_id']}"
    assert (await api.delete(path, headers=world.user.headers)).status_code == 204
    refused = await api.get("/api/v1/me", headers={"Authorization": f"Bearer {other['access_token']}"})
    problem_of(refused, 401, "identity.unauthenticated")
    again = await api.post("/api/v1/auth/refresh", json={"refresh_token": other["refresh_token"]})
    problem_of(again, 401, "identity.unauthenticated")
    problem_of(await api.delete(path, headers=world.user.headers), 404, "resource.not-found")
    assert len(await sessions(api, world.user)) == 1
    assert ("session.end", str(world.user.id), None) in audited(world)


async def test_who_manages_sessions_ends_those_of_people_in_reach(api: Client, world: World) -> None:
    assert [one["user_id"] for one in await sessions(api, world.chief, of(world.user))] == [str(world.user.id)]
    ended = await api.delete(f"/api/v1/{of(world.user)}", headers=world.chief.headers)
    assert ended.status_code == 204, ended.text
    problem_of(await api.get("/api/v1/me", headers=world.user.headers), 401, "identity.unauthenticated")
    one = f"/api/v1/sessions/{world.custom.session_id}"
    assert (await api.delete(one, headers=world.chief.headers)).status_code == 204
    problem_of(await api.get("/api/v1/me", headers=world.custom.headers), 401, "identity.unauthenticated")


async def test_sessions_out_of_sight_are_not_there(api: Client, world: World) -> None:
    foreign, one = world.other_chief, f"/api/v1/sessions/{world.other_chief.session_id}"
    for call in (
        api.get(f"/api/v1/{of(foreign)}", headers=world.chief.headers),
        api.delete(f"/api/v1/{of(foreign)}", headers=world.chief.headers),
        api.delete(one, headers=world.chief.headers),
        api.delete(one, headers=world.user.headers),
        api.delete(f"/api/v1/sessions/{world.chief.session_id}", headers=world.user.headers),
    ):
        problem_of(await call, 404, "resource.not-found")
    assert (await api.get("/api/v1/me", headers=foreign.headers)).status_code == 200


async def test_an_admin_of_one_site_ends_no_session_of_who_works_elsewhere_too(api: Client, world: World) -> None:
    for call in (
        api.delete(f"/api/v1/sessions/{world.chief.session_id}", headers=world.admin.headers),
        api.delete(f"/api/v1/{of(world.chief)}", headers=world.admin.headers),
        api.get(f"/api/v1/{of(world.chief)}", headers=world.admin.headers),
    ):
        problem_of(await call, 403, "users.beyond-your-establishments")
    assert (await api.get("/api/v1/me", headers=world.chief.headers)).status_code == 200


async def test_who_may_not_manage_sessions_ends_only_his_own(api: Client, world: World) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into permissions (role_id, action_name) values (%s, 'read_user')", [world.custom_role]
        )
    reader = world.custom
    one = f"/api/v1/sessions/{world.user.session_id}"
    assert problem_of(await api.delete(one, headers=reader.headers), 403, "permission.missing")["action"] == (
        "manage_user_sessions"
    )
    assert (await api.delete(f"/api/v1/sessions/{reader.session_id}", headers=reader.headers)).status_code == 204


async def test_everybody_reads_who_he_is_and_what_he_may(api: Client, world: World) -> None:
    me = (await api.get("/api/v1/me", headers=world.custom.headers)).json()
    assert (me["email"], me["hierarchy"], me["has_totp"]) == ("custom@example.com", 5, False)
    assert me["actions"] == ["read_device", "read_establishment", "update_device"]
    assert me["establishments"] == {str(world.tenant.sites[0].id): None}
    assert me["session_id"] == str(world.custom.session_id)


async def test_everybody_changes_his_own_names_and_nothing_else(api: Client, world: World) -> None:
    me = await api.get("/api/v1/me", headers=world.user.headers)
    etag = {"If-Match": me.headers["etag"]}
    changed = await api.patch("/api/v1/me", headers={**world.user.headers, **etag}, json={"first_name": "Eva"})
    assert (changed.json()["first_name"], changed.json()["last_name"]) == ("Eva", "Soto")
    stale = await api.patch("/api/v1/me", headers={**world.user.headers, **etag}, json={"first_name": "Ida"})
    problem_of(stale, 412, "resource.stale")
    for more in ({"email": "x@example.com"}, {"role_id": str(world.custom_role)}, {"first_name": ""}):
        problem_of(await api.patch("/api/v1/me", headers=world.user.headers, json=more), 422, "request.invalid")


async def test_an_api_key_reads_whose_it_is_and_touches_nothing_that_its_owner_signs_in_with(
    api: Client, world: World
) -> None:
    headers = {"X-API-Key": world.add_api_key(world.chief, ["read_device"])}
    me = (await api.get("/api/v1/me", headers=headers)).json()
    assert (me["id"], me["actions"], me["session_id"]) == (str(world.chief.id), ["read_device"], None)
    for call in (
        api.patch("/api/v1/me", headers=headers, json={"first_name": "Eva"}),
        api.get("/api/v1/sessions", headers=headers),
        api.delete(f"/api/v1/sessions/{world.chief.session_id}", headers=headers),
        api.post("/api/v1/me/password", headers=headers, json={"password": "x", "new_password": "y"}),
        api.post("/api/v1/me/totp", headers=headers, json={"password": "x"}),
        api.post("/api/v1/me/totp/confirm", headers=headers, json={"totp_code": "000000"}),
        api.post("/api/v1/me/totp/disable", headers=headers, json={"password": "x"}),
        api.post("/api/v1/me/recovery-codes", headers=headers, json={"password": "x"}),
    ):
        problem_of(await call, 403, "identity.session-needed")
