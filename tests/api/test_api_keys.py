"""API keys: made once, shown once, with a part of their owner's actions, and counted."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from hse.adapters.postgres.api_keys import ApiKeyUses
from hse.adapters.postgres.database import Database
from hse.api.app import Parts
from hse.api.limits import RequestLimits
from hse.domain.identity.api_keys import LIVE_KEYS_MAX
from tests.api.conftest import OUTBOX, Client, problem_of, serving
from tests.api.world import Person, World

KEYS = "/api/v1/api-keys"


async def issue(api: Client, person: Person, *actions: str, **more: Any) -> dict[str, Any]:
    body = {"name": "dashboard", "actions": list(actions), **more}
    response = await api.post(KEYS, headers=person.headers, json=body)
    assert response.status_code == 201, response.text
    issued: dict[str, Any] = response.json()
    return issued


def with_key(issued: dict[str, Any]) -> dict[str, str]:
    return {"X-API-Key": issued["key"]}


def rows(world: World, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(world.database_url) as connection:
        return connection.execute(statement.encode(), values).fetchall()


async def test_a_key_does_what_it_was_made_for_within_its_owners_reach_and_nothing_else(
    api: Client, world: World
) -> None:
    issued = await issue(api, world.admin, "read_establishment", "create_area")
    assert issued["key"].startswith(f"hse_{issued['api_key']['prefix']}_")
    seen = await api.get("/api/v1/establishments", headers=with_key(issued))
    assert [site["name"] for site in seen.json()["items"]] == ["Acme 1"]
    made = await api.post(
        "/api/v1/areas",
        headers=with_key(issued),
        json={"establishment_id": str(world.tenant.sites[0].id), "name": "Room", "type": "office"},
    )
    assert made.status_code == 201, made.text
    problem_of(await api.get("/api/v1/areas", headers=with_key(issued)), 403, "permission.missing")
    # The log says who it was, and by which key.
    ((kind, actor, key),) = rows(
        world, "select actor_kind, actor_id, api_key_id from audit_entries where action = 'area.create'"
    )
    assert (kind, str(actor), str(key)) == ("api_key", str(world.admin.id), issued["api_key"]["id"])


async def test_a_key_of_roots_reaches_what_root_reaches(api: Client, world: World) -> None:
    issued = await issue(api, world.root, "read_organization")
    seen = await api.get("/api/v1/organizations", headers=with_key(issued))
    assert [one["name"] for one in seen.json()["items"]] == ["Acme", "Bolt", "Core"]


async def test_its_text_is_shown_once_and_not_kept(api: Client, world: World) -> None:
    issued = await issue(api, world.chief, "read_area")
    secret = issued["key"].rsplit("_", 1)[1]
    listed = await api.get(KEYS, headers=world.chief.headers)
    read = await api.get(f"{KEYS}/{issued['api_key']['id']}", headers=world.chief.headers)
    assert read.json() == issued["api_key"]
    assert secret not in listed.text + read.text
    kept = rows(world, "select row_to_json(k)::text from api_keys k") + rows(
        world, "select row_to_json(e)::text from audit_entries e"
    )
    assert secret not in str(kept)


async def test_nobody_gives_a_key_what_he_does_not_hold(api: Client, world: World) -> None:
    for person, action in ((world.chief, "create_partner_company"), (world.partner, "create_establishment")):
        body = {"name": "x", "actions": [action]}
        problem_of(await api.post(KEYS, headers=person.headers, json=body), 403, "permission.missing")
    refused: tuple[dict[str, Any], ...] = (
        {"name": "x", "actions": []},
        {"name": "x", "actions": ["create_api_key"]},
        {"name": "x", "actions": ["read_area"], "expires_at": "2001-01-01T00:00:00Z"},
        {"name": "x", "actions": ["read_area"], "requests_per_minute": 7000},
        {"name": "x", "actions": ["read_area"], "secret": "mine"},
    )
    for mistaken in refused:
        problem_of(await api.post(KEYS, headers=world.chief.headers, json=mistaken), 422, "request.invalid")


async def test_a_key_follows_its_owner_down(api: Client, world: World) -> None:
    issued = await issue(api, world.chief, "read_area", "read_audit")
    assert (await api.get("/api/v1/audit-entries", headers=with_key(issued))).status_code == 200
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update users set role_id = (select id from roles where name = 'user') where id = %s", [world.chief.id]
        )
    problem_of(await api.get("/api/v1/audit-entries", headers=with_key(issued)), 403, "permission.missing")


async def test_a_key_makes_no_keys_and_sees_and_ends_none(api: Client, world: World) -> None:
    issued = await issue(api, world.chief, "read_area", "read_user")
    own = f"{KEYS}/{issued['api_key']['id']}"
    body = {"name": "x", "actions": ["read_area"]}
    for method, path, code in (
        ("POST", KEYS, "api-keys.refused"),
        ("GET", KEYS, "api-keys.refused"),
        ("GET", own, "api-keys.refused"),
        ("DELETE", own, "api-keys.refused"),
        ("GET", f"/api/v1/users/{world.chief.id}/api-keys", "api-keys.refused"),
        ("GET", f"/api/v1/users/{world.user.id}/api-keys", "permission.missing"),
    ):
        sent = body if method == "POST" else None
        problem_of(await api.request(method, path, headers=with_key(issued), json=sent), 403, code)


async def test_what_is_no_key_expired_revoked_or_of_somebody_disabled_is_one_answer(api: Client, world: World) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    issued = await issue(api, world.chief, "read_area", expires_at=soon.isoformat())
    assert (await api.get("/api/v1/areas", headers=with_key(issued))).status_code == 200
    key_id, prefix = issued["api_key"]["id"], issued["api_key"]["prefix"]
    wrong = {"X-API-Key": f"hse_{prefix}_{'0' * 64}"}
    answers = [await api.get("/api/v1/areas", headers=wrong)]
    for statement in (
        "update api_keys set expires_at = now() - interval '1 second' where id = %s",
        "update api_keys set expires_at = null, revoked_at = now() where id = %s",
        "with revived as (update api_keys set revoked_at = null where id = %s returning user_id)"
        " update users set is_active = false from revived where users.id = revived.user_id",
    ):
        with psycopg.connect(world.database_url) as connection:
            connection.execute(statement.encode(), [key_id])
        answers.append(await api.get("/api/v1/areas", headers=with_key(issued)))
    details = {str(problem_of(answer, 401, "identity.unauthenticated")["detail"]) for answer in answers}
    assert len(details) == 1


async def test_a_key_is_revoked_by_its_owner_and_by_who_looks_after_him(api: Client, world: World) -> None:
    for person in (world.admin, world.chief, world.partner, world.root):
        issued = await issue(api, world.admin, "read_area")
        path = f"{KEYS}/{issued['api_key']['id']}"
        for stranger in (world.other_chief, world.other_partner, world.user):
            problem_of(await api.delete(path, headers=stranger.headers), 404, "resource.not-found")
        assert (await api.delete(path, headers=person.headers)).status_code == 204, person.email
        assert (await api.delete(path, headers=person.headers)).status_code == 204
        problem_of(await api.get("/api/v1/areas", headers=with_key(issued)), 401, "identity.unauthenticated")
    revoked = rows(world, "select actor_id from audit_entries where action = 'api_key.revoke' order by id")
    assert len(revoked) == 4


async def test_the_keys_of_others_are_for_those_who_look_after_them(api: Client, world: World) -> None:
    await issue(api, world.admin, "read_area")
    path = f"/api/v1/users/{world.admin.id}/api-keys"
    for person in (world.admin, world.chief, world.partner, world.root):
        listed = await api.get(path, headers=person.headers)
        assert [key["name"] for key in listed.json()["items"]] == ["dashboard"], (person.email, listed.text)
    problem_of(await api.get(path, headers=world.other_chief.headers), 404, "resource.not-found")
    problem_of(await api.get(path, headers=world.user.headers), 404, "resource.not-found")


async def test_an_admin_of_one_site_looks_after_the_keys_of_those_who_work_there_alone(
    api: Client, world: World
) -> None:
    """The rule of sessions: a key of the chief's, or of who works elsewhere too, is not his to look at or to end."""
    for owner in (world.chief, world.other_site_admin):
        key = f"{KEYS}/{(await issue(api, owner, 'read_area'))['api_key']['id']}"
        for call in (
            api.get(f"/api/v1/users/{owner.id}/api-keys", headers=world.admin.headers),
            api.get(key, headers=world.admin.headers),
            api.delete(key, headers=world.admin.headers),
        ):
            problem_of(await call, 403, "users.beyond-your-establishments")
        assert (await api.get(key, headers=owner.headers)).json()["revoked_at"] is None
        assert (await api.delete(key, headers=world.partner.headers)).status_code == 204
    above = f"{KEYS}/{(await issue(api, world.partner, 'read_area'))['api_key']['id']}"
    problem_of(await api.delete(above, headers=world.chief.headers), 404, "resource.not-found")


async def test_who_sees_people_and_looks_after_none_is_told_so(api: Client, world: World) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into permissions (role_id, action_name) values (%s, 'read_user')", [world.custom_role]
        )
    key = f"{KEYS}/{world.new_api_key(world.admin)}"
    assert problem_of(await api.get(key, headers=world.custom.headers), 403, "permission.missing")["action"] == (
        "manage_user_sessions"
    )


async def test_its_owner_changes_what_a_key_may_do_until_when_and_how_often(api: Client, world: World) -> None:
    issued = await issue(api, world.chief, "read_area", requests_per_minute=5)
    path = f"{KEYS}/{issued['api_key']['id']}"
    etag = {"If-Match": (await api.get(path, headers=world.chief.headers)).headers["etag"]}
    body = {"name": "meters", "actions": ["read_device", "read_device"], "requests_per_minute": 7}
    changed = await api.patch(path, headers={**world.chief.headers, **etag}, json=body)
    assert changed.status_code == 200, changed.text
    after = changed.json()
    assert (after["name"], after["actions"], after["requests_per_minute"]) == ("meters", ["read_device"], 7)
    assert (after["version"], after["expires_at"]) == (2, None)
    problem_of(await api.get("/api/v1/areas", headers=with_key(issued)), 403, "permission.missing")
    used = await api.get("/api/v1/devices", headers=with_key(issued))
    assert (used.status_code, used.headers["ratelimit-limit"]) == (200, "7")
    stale = await api.patch(path, headers={**world.chief.headers, **etag}, json={"name": "x"})
    problem_of(stale, 412, "resource.stale")
    later = {"expires_at": "2038-01-01T00:00:00Z"}
    assert (await api.patch(path, headers=world.chief.headers, json=later)).json()["expires_at"] == later["expires_at"]
    forever = await api.patch(path, headers=world.chief.headers, json={"expires_at": None})
    assert forever.json()["expires_at"] is None
    ((before, after),) = rows(
        world,
        "select before ->> 'name', after ->> 'name' from audit_entries where action = 'api_key.update'"
        " and before ->> 'name' <> after ->> 'name' and organization_id = %s",
        world.tenant.id,
    )
    assert (before, after) == ("dashboard", "meters")


async def test_a_changed_key_holds_no_more_than_a_new_one_could(api: Client, world: World) -> None:
    path = f"{KEYS}/{(await issue(api, world.chief, 'read_area'))['api_key']['id']}"
    refused: tuple[tuple[dict[str, Any], int, str], ...] = (
        ({"actions": ["create_partner_company"]}, 403, "permission.missing"),
        ({"actions": ["create_api_key"]}, 422, "request.invalid"),
        ({"actions": []}, 422, "request.invalid"),
        ({"name": None}, 422, "request.invalid"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, 422, "request.invalid"),
        ({"requests_per_minute": 7000}, 422, "request.invalid"),
        ({"user_id": str(world.root.id)}, 422, "request.invalid"),
        ({"revoked_at": None}, 422, "request.invalid"),
    )
    for body, status, code in refused:
        problem_of(await api.patch(path, headers=world.chief.headers, json=body), status, code)
    assert (await api.patch(path, headers=world.chief.headers, json={})).json()["version"] == 1


async def test_a_key_is_changed_by_its_owner_alone_and_not_once_it_is_revoked(api: Client, world: World) -> None:
    issued = await issue(api, world.admin, "read_area")
    path, body = f"{KEYS}/{issued['api_key']['id']}", {"name": "x"}
    for person in (world.chief, world.partner, world.root):
        problem_of(await api.patch(path, headers=person.headers, json=body), 403, "api-keys.not-yours")
    for stranger in (world.user, world.other_chief):
        problem_of(await api.patch(path, headers=stranger.headers, json=body), 404, "resource.not-found")
    problem_of(await api.patch(path, headers=with_key(issued), json=body), 403, "api-keys.refused")
    await api.delete(path, headers=world.chief.headers)
    problem_of(await api.patch(path, headers=world.admin.headers, json=body), 409, "api-keys.revoked")


async def test_using_a_key_changes_no_version(api: Client, world: World, uses: ApiKeyUses) -> None:
    issued = await issue(api, world.chief, "read_area")
    ((key_id,),) = rows(world, "select id from api_keys")
    uses.note(key_id, "192.0.2.1", datetime.now(UTC))
    await uses.flush()
    after = (await api.get(f"{KEYS}/{key_id}", headers=world.chief.headers)).json()
    assert (after["use_count"], after["version"]) == (1, 1)
    assert after["updated_at"] == issued["api_key"]["updated_at"]


async def test_nobody_has_more_than_so_many_live_keys(api: Client, world: World) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into api_keys (user_id, name, prefix, secret_hash, actions, requests_per_minute)"
            " select %s, 'k', 'p' || n, decode(repeat('00', 32), 'hex'), '{read_area}', 1 from generate_series(1, %s) n",
            [world.chief.id, LIVE_KEYS_MAX],
        )
    body = {"name": "x", "actions": ["read_area"]}
    problem_of(await api.post(KEYS, headers=world.chief.headers, json=body), 409, "api-keys.too-many")
    await api.delete(f"{KEYS}/{rows(world, 'select id from api_keys limit 1')[0][0]}", headers=world.chief.headers)
    assert (await api.post(KEYS, headers=world.chief.headers, json=body)).status_code == 201


async def test_a_key_has_a_limit_of_its_own_that_only_its_secret_uses_up(api: Client, world: World) -> None:
    issued = await issue(api, world.chief, "read_area", requests_per_minute=2)
    guess = {"X-API-Key": f"hse_{issued['api_key']['prefix']}_{'0' * 64}"}
    for _ in range(5):
        assert (await api.get("/api/v1/areas", headers=guess)).status_code == 401
    answers = [await api.get("/api/v1/areas", headers=with_key(issued)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert problem_of(answers[2], 429, "request.too-many")["limit"] == "key"
    assert answers[1].headers["ratelimit-limit"] == "2"
    assert answers[1].headers["ratelimit-remaining"] == "0"


async def test_the_uses_are_counted_and_written_down_when_the_application_stops(parts: Parts, world: World) -> None:
    async with serving(parts) as api:
        issued = await issue(api, world.chief, "read_area")
        for _ in range(7):
            assert (await api.get("/api/v1/areas", headers=with_key(issued))).status_code == 200
        ((before,),) = rows(world, "select use_count from api_keys")
        assert before == 0
    ((count, is_recent),) = rows(
        world, "select use_count, last_used_at between now() - interval '1 minute' and now() from api_keys"
    )
    assert (count, is_recent) == (7, True)


@pytest.fixture
async def uses(api_database_url: str) -> AsyncIterator[ApiKeyUses]:
    database = Database(api_database_url, pool_size=1, outbox=OUTBOX)
    yield ApiKeyUses(database.engine)
    await database.close()


async def test_the_first_use_from_an_address_is_written_to_the_audit_log_once(
    api: Client, world: World, uses: ApiKeyUses
) -> None:
    issued = await issue(api, world.chief, "read_area")
    ((key_id,),) = rows(world, "select id from api_keys")
    now = datetime.now(UTC)
    for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1"):
        uses.note(key_id, address, now)
        await uses.flush()
    uses.note(key_id, None, now)
    await uses.flush()
    found = rows(world, "select host(address), organization_id from audit_entries where action = 'api_key.first_use'")
    assert sorted(found) == [("192.0.2.1", world.tenant.id), ("2001:db8::1", world.tenant.id)]
    assert rows(world, "select use_count from api_keys") == [(4,)]
    read = await api.get("/api/v1/audit-entries?action=api_key.first_use", headers=world.chief.headers)
    assert {entry["entity_id"] for entry in read.json()["items"]} == {issued["api_key"]["id"]}


async def test_uses_that_cannot_be_written_down_now_stay_counted(world: World, api: Client, uses: ApiKeyUses) -> None:
    await issue(api, world.chief, "read_area")
    ((key_id,),) = rows(world, "select id from api_keys")
    rename = "alter function {} rename to {}"
    names = ["hse_note_api_key_uses", "away"]
    for is_away in (True, False):
        with psycopg.connect(world.database_url) as connection:
            connection.execute(rename.format(*(names if is_away else reversed(names))).encode())
        uses.note(key_id, None, datetime.now(UTC))
        await uses.flush()
    assert rows(world, "select use_count from api_keys") == [(2,)]


async def test_a_key_gets_no_more_than_the_settings_allow(parts: Parts, world: World) -> None:
    async with serving(replace(parts, limits=RequestLimits(key_per_minute_max=5))) as api:
        issued = await issue(api, world.chief, "read_area")
        assert issued["api_key"]["requests_per_minute"] == 5
