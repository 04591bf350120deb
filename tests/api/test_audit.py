"""The audit log over REST: everybody reads what happened within his reach, in pages, the newest first."""

from typing import Any

import psycopg

from tests.api.conftest import Client, problem_of
from tests.api.world import Person, World

ENTRIES = "/api/v1/audit-entries"


async def entries(api: Client, person: Person, **params: Any) -> list[dict[str, Any]]:
    response = await api.get(ENTRIES, headers=person.headers, params=params)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def rename_everything(api: Client, world: World) -> None:
    """One change in each tenant and at each site of the first one."""
    sites = [*world.tenant.sites, *world.other_tenant.sites, *world.direct_tenant.sites]
    for path in (
        *(f"areas/{site.area_id}" for site in sites),
        *(f"organizations/{tenant.id}" for tenant in (world.tenant, world.other_tenant, world.direct_tenant)),
        f"partner-companies/{world.partner_company}",
    ):
        changed = await api.patch(f"/api/v1/{path}", headers=world.root.headers, json={"name": f"New {path}"[:60]})
        assert changed.status_code == 200, changed.text


async def test_a_change_is_there_with_who_where_before_and_after(api: Client, world: World) -> None:
    site = world.tenant.sites[0]
    headers = {**world.chief.headers, "X-Correlation-Id": "what-i-did"}
    changed = await api.patch(f"/api/v1/areas/{site.area_id}", headers=headers, json={"name": "Foyer"})
    assert changed.status_code == 200
    (entry,) = await entries(api, world.chief)
    assert entry["action"] == "area.update"
    assert (entry["before"]["name"], entry["after"]["name"]) == ("Hall", "Foyer")
    assert (entry["actor_kind"], entry["actor_id"]) == ("user", str(world.chief.id))
    assert entry["correlation_id"] == "what-i-did"
    assert entry["establishment_id"] == str(site.id)


async def test_everybody_reads_what_happened_within_his_reach(api: Client, world: World) -> None:
    await rename_everything(api, world)
    first, second = (f"areas/{site.area_id}" for site in world.tenant.sites)
    own = f"organizations/{world.tenant.id}"
    for person, expected in (
        (world.partner, {first, second, own, f"partner-companies/{world.partner_company}"}),
        (world.chief, {first, second, own}),
        # Not what happened at the establishment that he is not assigned to.
        (world.admin, {first, own}),
        (world.other_site_admin, {second, own}),
    ):
        seen = {entry["after"]["name"] for entry in await entries(api, person)}
        assert seen == {f"New {path}"[:60] for path in expected}, person.email
    assert len(await entries(api, world.root)) == 8
    for person in (world.user, world.custom):
        problem_of(await api.get(ENTRIES, headers=person.headers), 403, "permission.missing")


async def test_the_newest_come_first_in_pages_that_repeat_and_lose_nothing(api: Client, world: World) -> None:
    await rename_everything(api, world)
    ids: list[int] = []
    cursor = None
    while True:
        params = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = (await api.get(ENTRIES, headers=world.root.headers, params=params)).json()
        ids += [entry["id"] for entry in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        # What comes in meanwhile is newer than every page to come.
        await api.patch(f"/api/v1/organizations/{world.tenant.id}", headers=world.root.headers, json={"name": cursor})
    assert len(ids) == 8
    assert ids == sorted(set(ids), reverse=True)


async def test_it_is_filtered_by_who_what_and_when(api: Client, world: World) -> None:
    await rename_everything(api, world)
    area = str(world.tenant.sites[0].area_id)
    await api.patch(f"/api/v1/areas/{area}", headers=world.chief.headers, json={"floor": 3})
    assert len(await entries(api, world.root, entity_type="area")) == 5
    assert len(await entries(api, world.root, entity_type="area", entity_id=area)) == 2
    assert len(await entries(api, world.root, actor_id=str(world.chief.id))) == 1
    assert len(await entries(api, world.root, action="organization.update")) == 3
    with psycopg.connect(world.database_url) as connection:
        connection.execute("update audit_entries set at = at - interval '1 day' where entity_type <> 'area'")
        row = connection.execute("select min(at) from audit_entries where entity_type = 'area'").fetchone()
        assert row is not None
        moment = row[0].isoformat()
    assert len(await entries(api, world.root, **{"from": moment})) == 5
    assert len(await entries(api, world.root, to=moment)) == 4
    naive = await api.get(ENTRIES, headers=world.root.headers, params={"from": "2030-01-01T00:00:00"})
    problem_of(naive, 422, "request.invalid")


async def test_nobody_changes_what_was_written(api: Client, world: World, api_database_url: str) -> None:
    await rename_everything(api, world)
    for statement in ("update audit_entries set action = 'x'", "delete from audit_entries"):
        with psycopg.connect(api_database_url) as connection:
            connection.execute("set role hse_api")
            try:
                connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            raise AssertionError(statement)
