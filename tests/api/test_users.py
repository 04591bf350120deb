"""People over REST: who may act on whom, what nobody gives away, and what counts at once."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.api.conftest import Client, problem_of
from tests.api.world import Person, World

YOURSELF = (403, "users.yourself")
ABOVE = (403, "users.above-you")
BEYOND = (403, "users.beyond-your-establishments")
MISSING = (403, "permission.missing")
UNSEEN = (404, "resource.not-found")
UNFIT = (409, "roles.does-not-fit")
NOT_HELD = (403, "roles.action-not-held")

# Who acts on whom, by changing, disabling or deleting; None when he may.
ACTS: list[tuple[str, str, tuple[int, str] | None]] = [
    ("root", "partner", None),
    ("root", "other_chief", None),
    ("root", "user", None),
    ("partner", "root", UNSEEN),
    ("partner", "other_partner", UNSEEN),
    ("partner", "chief", None),
    ("partner", "user", None),
    ("partner", "other_chief", UNSEEN),
    ("chief", "partner", UNSEEN),
    ("chief", "admin", None),
    ("chief", "other_site_admin", None),
    ("chief", "user", None),
    ("chief", "custom", None),
    ("chief", "other_chief", UNSEEN),
    ("admin", "chief", BEYOND),
    ("admin", "other_site_admin", BEYOND),
    ("admin", "user", None),
    ("admin", "custom", None),
    ("other_site_admin", "user", BEYOND),
    ("user", "custom", UNSEEN),
    ("custom", "user", UNSEEN),
]


@pytest.fixture
def role_ids(world: World) -> dict[str, UUID]:
    """The roles by name, and some that a test needs."""
    with psycopg.connect(world.database_url) as connection:
        system = dict(connection.execute("select name, id from roles where type = 'system'").fetchall())
        statement = "insert into roles (name, type, hierarchy, organization_id, partner_company_id, establishment_id)"
        values = {
            "foreign": (world.other_tenant.id, None, None),
            "of_partner": (None, world.partner_company, None),
            "everywhere": (None, None, None),
            "of_site": (world.tenant.id, None, world.tenant.sites[0].id),
            "of_other_site": (world.tenant.id, None, world.tenant.sites[1].id),
            "strong": (world.tenant.id, None, None),
        }
        for name, (organization, partner, site) in values.items():
            made = connection.execute(
                f"{statement} values (%s, 'custom', 5, %s, %s, %s) returning id", [name, organization, partner, site]
            ).fetchone()
            assert made is not None
            system[name] = made[0]
            action = "read_partner_company" if name == "strong" else "read_device"
            connection.execute("insert into permissions (role_id, action_name) values (%s, %s)", [made[0], action])
    return {**system, "custom": world.custom_role}


def expect(response: Any, refusal: tuple[int, str] | None, what: object) -> None:
    if refusal is None:
        assert response.status_code in (200, 204), (what, response.text)
    else:
        assert response.status_code == refusal[0], (what, response.text)
        assert response.json()["code"] == refusal[1], (what, response.text)


async def assign(api: Client, by: Person, whom: Person, role_id: UUID, **more: Any) -> Any:
    return await api.put(f"/api/v1/users/{whom.id}/role", headers=by.headers, json={"role_id": str(role_id), **more})


async def places(api: Client, by: Person, whom: Person, *wanted: tuple[UUID, UUID | None]) -> Any:
    body = [{"establishment_id": str(site), "role_id": None if role is None else str(role)} for site, role in wanted]
    return await api.put(f"/api/v1/users/{whom.id}/establishments", headers=by.headers, json={"establishments": body})


@pytest.mark.parametrize(("actor", "target", "refusal"), ACTS)
async def test_everybody_acts_on_those_below_him_and_within_his_establishments(
    api: Client, world: World, actor: str, target: str, refusal: tuple[int, str] | None
) -> None:
    by, whom = getattr(world, actor), getattr(world, target)
    path = f"/api/v1/users/{whom.id}"
    # A user may read nobody, so that for him everybody is out of sight.
    expect(await api.patch(path, headers=by.headers, json={"first_name": "New"}), refusal, "change")
    expect(await api.patch(path, headers=by.headers, json={"is_active": False}), refusal, "disable")
    expect(await api.delete(path, headers=by.headers), refusal, "delete")


async def test_an_equal_may_be_acted_on_and_a_higher_one_not(api: Client, world: World) -> None:
    """A partner company's own people, of whom one has a lower role."""
    colleague = world.add_person_now("colleague@example.com", "partner", partner_company_id=world.partner_company)
    expect(await api.patch(f"/api/v1/users/{colleague.id}", headers=world.partner.headers, json={}), None, "equal")
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update users set role_id = (select id from roles where name = 'root') where id = %s", [colleague.id]
        )
    response = await api.patch(f"/api/v1/users/{colleague.id}", headers=world.partner.headers, json={"first_name": "X"})
    expect(response, ABOVE, "higher")


async def test_nobody_disables_deletes_or_promotes_himself(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    for person in (world.root, world.partner, world.chief, world.admin):
        path = f"/api/v1/users/{person.id}"
        expect(await api.patch(path, headers=person.headers, json={"is_active": False}), YOURSELF, "disable")
        expect(await api.delete(path, headers=person.headers), YOURSELF, "delete")
        expect(await assign(api, person, person, role_ids["user"]), YOURSELF, "role")
        expect(await api.patch(path, headers=person.headers, json={"last_name": "New"}), None, "rename")
    expect(await places(api, world.admin, world.admin, (world.tenant.sites[0].id, None)), YOURSELF, "places")


async def test_roles_are_given_downwards_and_where_they_fit(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    # Who gives whom what; the refusals leave everybody as he was.
    table: list[tuple[str, str, str, tuple[int, str] | None]] = [
        ("admin", "user", "root", ABOVE),
        ("admin", "user", "partner", ABOVE),
        ("chief", "user", "partner", ABOVE),
        ("partner", "user", "root", ABOVE),
        ("partner", "user", "partner", UNFIT),
        ("root", "user", "root", UNFIT),
        ("root", "partner", "admin", UNFIT),
        ("root", "user", "foreign", UNFIT),
        ("root", "user", "of_partner", UNFIT),
        ("root", "user", "of_site", UNFIT),
        ("chief", "user", "foreign", UNSEEN),
        ("chief", "user", "of_partner", UNSEEN),
        ("chief", "user", "strong", NOT_HELD),
        ("admin", "user", "of_other_site", UNSEEN),
        ("admin", "chief", "user", BEYOND),
        ("admin", "other_site_admin", "user", BEYOND),
        ("user", "custom", "user", UNSEEN),
        ("partner", "user", "strong", None),
        ("admin", "user", "custom", None),
        ("admin", "user", "everywhere", None),
        ("admin", "custom", "admin", None),
        ("chief", "admin", "user", None),
        ("partner", "admin", "admin", None),
        ("root", "partner", "of_partner", None),
        ("root", "partner", "everywhere", None),
    ]
    for by, whom, role, refusal in table:
        response = await assign(api, getattr(world, by), getattr(world, whom), role_ids[role])
        expect(response, refusal, (by, whom, role))


async def test_a_role_counts_from_the_next_request_on(api: Client, world: World, role_ids: dict[str, UUID]) -> None:
    assert (await api.get("/api/v1/users", headers=world.admin.headers)).status_code == 200
    expect(await assign(api, world.chief, world.admin, role_ids["user"]), None, "demoted")
    expect(await api.get("/api/v1/users", headers=world.admin.headers), MISSING, "with the same token")


async def test_a_chief_is_made_by_those_who_reach_everything(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    admin, user = role_ids["admin"], role_ids["user"]
    everywhere = {"has_all_establishments": True}
    colleague = world.add_person_now(
        "third@example.com", "user", organization_id=world.tenant.id, sites=[world.tenant.sites[0]]
    )
    expect(await assign(api, world.admin, colleague, admin, **everywhere), (403, "users.chief-not-yours"), "admin")
    expect(await assign(api, world.chief, colleague, user, **everywhere), (422, "request.invalid"), "a user")
    for person in (world.root, world.partner, world.chief):
        made = await assign(api, person, colleague, admin, **everywhere)
        assert made.json()["has_all_establishments"] is True, made.text
        await assign(api, person, colleague, admin)
    seen = await api.get("/api/v1/establishments", headers=colleague.headers)
    assert len(seen.json()["items"]) == 1


async def test_a_person_who_moves_leaves_the_establishments_of_the_old_organisation(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    there = {"organization_id": str(world.other_tenant.id)}
    expect(await assign(api, world.partner, world.user, role_ids["user"], **there), UNSEEN, "foreign")
    expect(await assign(api, world.root, world.user, role_ids["user"], **there), None, "moved")
    listed = await api.get(f"/api/v1/users/{world.user.id}/establishments", headers=world.root.headers)
    assert listed.json()["items"] == []
    both = {**there, "partner_company_id": str(world.partner_company)}
    expect(await assign(api, world.root, world.user, role_ids["user"], **both), (422, "request.invalid"), "both")


async def test_establishments_are_assigned_within_what_one_looks_after(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    first, second = (site.id for site in world.tenant.sites)
    foreign = world.other_tenant.sites[0].id
    table: list[tuple[str, str, list[tuple[UUID, UUID | None]], tuple[int, str] | None]] = [
        ("admin", "user", [(second, None)], UNSEEN),
        ("admin", "user", [(foreign, None)], UNSEEN),
        ("admin", "chief", [(first, None)], BEYOND),
        ("other_site_admin", "user", [(second, None)], BEYOND),
        ("partner", "user", [(second, None)], MISSING),
        ("root", "user", [(foreign, None)], (422, "request.invalid")),
        ("root", "partner", [(first, None)], (422, "request.invalid")),
        ("chief", "user", [(first, None), (first, None)], (422, "request.invalid")),
        ("chief", "user", [(first, role_ids["of_other_site"])], UNFIT),
        ("chief", "user", [(first, role_ids["admin"])], UNFIT),
        ("chief", "user", [(first, role_ids["partner"])], ABOVE),
        ("chief", "user", [(first, role_ids["foreign"])], UNSEEN),
        ("chief", "user", [(first, role_ids["strong"])], NOT_HELD),
        ("root", "user", [(first, role_ids["of_partner"])], UNFIT),
        ("admin", "user", [(first, role_ids["of_site"])], None),
        ("chief", "user", [(first, role_ids["custom"]), (second, role_ids["of_other_site"])], None),
        ("admin", "user", [(first, None)], BEYOND),
        ("chief", "user", [], None),
        ("admin", "user", [(first, None)], None),
    ]
    for by, whom, wanted, refusal in table:
        response = await places(api, getattr(world, by), getattr(world, whom), *wanted)
        expect(response, refusal, (by, whom, wanted))


async def test_the_role_at_an_establishment_takes_the_place_of_his_own_there(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    first, second = (site.id for site in world.tenant.sites)
    assert (await places(api, world.chief, world.user, (first, role_ids["of_site"]), (second, None))).status_code == 200
    seen = await api.get("/api/v1/areas", headers=world.user.headers)
    assert [item["establishment_id"] for item in seen.json()["items"]] == [str(second)]


async def test_what_stands_elsewhere_stays_when_an_admin_assigns(api: Client, world: World) -> None:
    """Assignments that one does not reach are not among those that a request replaces, nor are they shown."""
    second = world.tenant.sites[1].id
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into user_establishments (user_id, establishment_id) values (%s, %s)", [world.user.id, second]
        )
    listed = await api.get(f"/api/v1/users/{world.user.id}/establishments", headers=world.admin.headers)
    assert [item["establishment_id"] for item in listed.json()["items"]] == [str(world.tenant.sites[0].id)]


async def test_disabling_shuts_out_at_once_and_enabling_asks_to_sign_in_again(api: Client, world: World) -> None:
    key = world.add_api_key(world.admin, ["read_area"])
    path = f"/api/v1/users/{world.admin.id}"
    for headers in (world.admin.headers, {"X-API-Key": key}):
        assert (await api.get("/api/v1/areas", headers=headers)).status_code == 200
    await api.patch(path, headers=world.chief.headers, json={"is_active": False})
    await api.patch(path, headers=world.chief.headers, json={"is_active": True})
    for headers in (world.admin.headers, {"X-API-Key": key}):
        problem_of(await api.get("/api/v1/areas", headers=headers), 401, "identity.unauthenticated")


async def test_people_are_listed_within_reach_and_found_by_what_they_are_called(api: Client, world: World) -> None:
    async def emails(person: Person, **params: Any) -> set[str]:
        response = await api.get("/api/v1/users", headers=person.headers, params={"limit": 100, **params})
        assert response.status_code == 200, response.text
        return {item["email"].partition("@")[0] for item in response.json()["items"]}

    own = {"chief", "admin", "second", "user", "user-2", "custom"}
    assert await emails(world.root) == own | {"root", "partner", "other-partner", "other-chief"}
    assert await emails(world.partner) == own | {"partner"}
    assert await emails(world.admin) == own
    assert await emails(world.root, q="OTHER-") == {"other-partner", "other-chief"}
    assert await emails(world.root, organization_id=str(world.other_tenant.id)) == {"other-chief"}
    assert await emails(world.chief, role_id=str(world.custom_role)) == {"custom"}
    assert await emails(world.chief, is_active="false") == set()
    sites = [str(site.id) for site in world.tenant.sites]
    assert await emails(world.chief, establishment_id=sites[1]) == {"second"}
    assert await emails(world.admin, establishment_id=sites[1]) == set(), "who works there is not told to him"
    problem_of(await api.get("/api/v1/users", headers=world.user.headers), *MISSING)
    foreign = await api.get(f"/api/v1/users/{world.other_chief.id}", headers=world.chief.headers)
    problem_of(foreign, *UNSEEN)


async def test_there_is_no_way_to_make_a_user_but_an_invitation(api: Client, world: World) -> None:
    response = await api.post("/api/v1/users", headers=world.root.headers, json={"email": "x@example.com"})
    assert response.status_code == 405


async def test_of_two_roots_who_end_each_other_at_once_one_stays(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    for number, way in enumerate(("disable", "delete", "demote")):
        other = world.add_person_now(f"root-{number}@example.com", "root")

        async def end(by: Person, whom: Person, way: str = way) -> Any:
            path = f"/api/v1/users/{whom.id}"
            if way == "disable":
                return await api.patch(path, headers=by.headers, json={"is_active": False})
            if way == "delete":
                return await api.delete(path, headers=by.headers)
            return await assign(api, by, whom, role_ids["admin"], organization_id=str(world.tenant.id))

        answers = await asyncio.gather(end(world.root, other), end(other, world.root))
        with psycopg.connect(world.database_url) as connection:
            roots = connection.execute(
                "select count(*) from users join roles on roles.id = role_id where hierarchy = 1 and users.is_active"
            ).fetchone()
            assert roots == (1,), (way, [answer.text for answer in answers])
            # For the next way: the first root as he was.
            connection.execute("delete from users where email like 'root%'")
        world.root = world.add_person_now(f"root-again-{number}@example.com", "root")


async def test_the_last_root_is_refused_when_another_went_before_him(api: Client, world: World) -> None:
    """Held up between the look at himself and the deed, the second one finds that the first has ended him."""
    other = world.add_person_now("other-root@example.com", "root")
    with psycopg.connect(world.database_url) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtextextended('the last root', 0))")
        attempt = asyncio.create_task(
            api.patch(f"/api/v1/users/{world.root.id}", headers=other.headers, json={"is_active": False})
        )
        await waits_for_lock(world.database_url)
        connection.execute("update users set is_active = false where id = %s", [other.id])
    problem_of(await attempt, 409, "users.last-root")


async def waits_for_lock(database_url: str) -> None:
    """Until a statement of the api waits for an advisory lock."""
    deadline = asyncio.get_running_loop().time() + 20
    with psycopg.connect(database_url, autocommit=True) as connection:
        statement = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        while connection.execute(statement).fetchone() == (0,):
            assert asyncio.get_running_loop().time() < deadline, "nothing waits"
            await asyncio.sleep(0.01)


async def test_a_role_that_is_changed_while_it_is_given_is_given_as_it_becomes(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    """The giver must hold what the role holds when it is given: who changes it meanwhile is waited for."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"role {role_ids['custom']}"])
        attempt = asyncio.create_task(assign(api, world.chief, world.user, role_ids["custom"]))
        await waits_for_lock(world.database_url)
        connection.execute(
            "insert into permissions (role_id, action_name) values (%s, 'read_partner_company')", [role_ids["custom"]]
        )
    expect(await attempt, NOT_HELD, "given as it is now")


async def test_a_key_promotes_nobody_beyond_what_it_holds(api: Client, world: World, role_ids: dict[str, UUID]) -> None:
    key = {"X-API-Key": world.add_api_key(world.chief, ["read_user", "read_role", "assign_role"])}
    path, body = f"/api/v1/users/{world.user.id}/role", {"role_id": str(role_ids["admin"])}
    expect(await api.put(path, headers=key, json=body), NOT_HELD, "through a key")
    expect(await api.put(path, headers=world.chief.headers, json=body), None, "himself")


async def test_every_change_of_a_person_is_in_the_audit_log(
    api: Client, world: World, role_ids: dict[str, UUID]
) -> None:
    await assign(api, world.chief, world.user, role_ids["custom"])
    await places(api, world.chief, world.user)
    await api.patch(f"/api/v1/users/{world.user.id}", headers=world.chief.headers, json={"is_active": False})
    await api.delete(f"/api/v1/users/{world.user.id}", headers=world.chief.headers)
    with psycopg.connect(world.database_url) as connection:
        rows = connection.execute(
            "select action, actor_id, organization_id from audit_entries where entity_id = %s order by id",
            [str(world.user.id)],
        ).fetchall()
    assert [row[0] for row in rows] == ["user.update", "user.assign_establishments", "user.update", "user.delete"]
    assert {row[1:] for row in rows} == {(world.chief.id, world.tenant.id)}


async def test_a_person_who_is_not_there_is_not_found(api: Client, world: World, role_ids: dict[str, UUID]) -> None:
    nobody = Person(uuid4(), "", uuid4(), "")
    expect(await assign(api, world.root, nobody, role_ids["user"]), UNSEEN, "role")
    expect(await places(api, world.root, nobody), UNSEEN, "places")
    expect(await assign(api, world.root, world.user, uuid4()), UNSEEN, "unknown role")
