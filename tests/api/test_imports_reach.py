"""Bulk import within one's reach: what one may not see is not there, and nobody does by a table what he may not do by hand."""

import psycopg

from tests.api.conftest import Client
from tests.api.test_imports import SITE, Rows, counts, failures, items, report_of
from tests.api.world import World


async def test_a_foreign_or_unassigned_establishment_is_as_if_it_were_not_there(api: Client, world: World) -> None:
    def rows_for(name: str, organization: str) -> Rows:
        return [
            {
                "kind": "area",
                "establishment": name,
                "area_path": "Mine",
                "type": "office",
                "organization": organization,
            },
            {"kind": "device", "establishment": name, "name": "Mine", "organization": organization},
            {
                "kind": "device",
                "establishment": name,
                "area_path": "Hall",
                "name": "Mine",
                "organization": organization,
            },
        ]

    async def told(name: str, organization: str) -> list[tuple[str, str]]:
        report = await report_of(api, world.admin, rows_for(name, organization), mode="row_by_row")
        return [(row["code"], row["message"].replace(name, "?")) for row in report["rows"]]

    nothing = await told("Nowhere", "")
    assert {code for code, _ in nothing} == {"resource.not-found"}
    assert await told("Acme 2", "") == nothing
    assert await told("Bolt 1", "") == nothing
    foreign = await told("Bolt 1", "Bolt")
    assert {code for code, _ in foreign} == {"resource.not-found"}
    by_id = str(world.other_tenant.id)
    assert [(code, text.replace(by_id, "Bolt")) for code, text in await told("Bolt 1", by_id)] == foreign
    assert "Mine" not in await items(api, world.root, "devices")
    # A device that stands where one may not see it is not found by its number either, nor moved.
    hidden = [{"kind": "device", "establishment": "Acme 2", "name": "Hidden", "serial_number": "H-1"}]
    await report_of(api, world.chief, hidden)
    mine = [{"kind": "device", "establishment": "Acme 1", "name": "Mine", "serial_number": "H-1"}]
    assert failures(await report_of(api, world.admin, mine, mode="row_by_row")) == {2: "resource.taken"}


async def test_rows_pass_the_permissions_of_single_requests(api: Client, world: World) -> None:
    rows = [
        {"kind": "establishment", "name": "Acme 1", "address": "Here"},
        {"kind": "area", "establishment": "Acme 1", "area_path": "New", "type": "office"},
        {"kind": "device", "establishment": "Acme 1", "area_path": "Hall", "name": "Acme 1 meter", "model": "iEM"},
        {"kind": "device", "name": "Spare"},
    ]
    for person, expected in (
        (world.user, dict.fromkeys((2, 3, 4), "permission.missing") | {5: "permission.missing"}),
        (world.admin, {5: "permission.missing"}),
        (world.chief, {}),
    ):
        report = await report_of(api, person, rows, mode="row_by_row", dry_run=True)
        assert failures(report) == expected, person.email
    partner = [{**row, "organization": "Acme"} for row in rows]
    assert failures(await report_of(api, world.partner, partner, mode="row_by_row", dry_run=True)) == {}
    no_organization = await report_of(api, world.partner, rows, mode="row_by_row")
    assert set(failures(no_organization).values()) == {"request.invalid"}
    assert set(failures(await report_of(api, world.other_partner, partner, mode="row_by_row")).values()) == {
        "resource.not-found"
    }


async def test_an_admin_who_imports_an_establishment_works_there_at_once(api: Client, world: World) -> None:
    assert counts(await report_of(api, world.admin, SITE[:-1])) == (7, 0, 0, 0)
    assert set(await items(api, world.admin, "establishments")) == {"Acme 1", "North"}
    assert "Meter" in await items(api, world.admin, "devices")
    assert "North" not in await items(api, world.other_site_admin, "establishments")


async def test_the_bad_rows_that_only_the_database_knows_are_found_among_many(api: Client, world: World) -> None:
    await report_of(
        api, world.chief, [{"kind": "device", "establishment": "Acme 2", "name": "H", "serial_number": "N-70"}]
    )
    rows = [
        {"kind": "device", "establishment": "Acme 1", "name": f"New {number}", "serial_number": f"N-{number}"}
        for number in range(300)
    ]
    report = await report_of(api, world.admin, rows, mode="row_by_row")
    assert counts(report) == (299, 0, 0, 1)
    assert failures(report) == {72: "resource.taken"}
    with psycopg.connect(world.database_url) as connection:
        found = connection.execute("select count(*) from devices where serial_number like 'N-%'").fetchone()
        audited = connection.execute(
            "select count(*) from audit_entries where after->>'serial_number' like 'N-%'"
        ).fetchone()
    assert found == (300,)
    assert audited == (300,)
