"""Bulk import over REST: the hierarchy out of one table, upsert, both modes, mending, tokens, and what an actor may not reach."""

import csv
import io
import random
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import xlsxwriter

from tests.api.conftest import Client, problem_of
from tests.api.profiled import new_profile
from tests.api.test_door_codes import clerk
from tests.api.world import Person, World

IMPORTS = "/api/v1/imports/sites"
Rows = list[dict[str, str]]

SITE: Rows = [
    {
        "kind": "establishment",
        "name": "North",
        "timezone": "America/Santiago",
        "latitude": "-33.4",
        "longitude": "-70.6",
    },
    {"kind": "area", "establishment": "North", "area_path": "Tower", "type": "tower"},
    {"kind": "area", "establishment": "North", "area_path": "Tower/Floor 2", "type": "floor", "floor": "2"},
    {"kind": "area", "establishment": "North", "area_path": "Tower/Floor 2/Room 201", "type": "office"},
    {"kind": "device", "establishment": "North", "name": "Gate", "type": "gateway", "serial_number": "G-1"},
    {
        "kind": "device",
        "establishment": "North",
        "area_path": "Tower/Floor 2/Room 201",
        "name": "Meter",
        "serial_number": "M-1",
        "gateway": "G-1",
        "mac_address": "001B.4411.3AB7",
        "metadata": '{"circuit": 7}',
    },
    {"kind": "device", "establishment": "North", "area_path": "Tower", "name": "Lock", "enabled": "no"},
    {"kind": "device", "name": "Spare", "serial_number": "S-1"},
]


def as_csv(rows: Rows, delimiter: str = ",") -> bytes:
    columns = sorted({name for row in rows for name in row})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_xlsx(rows: list[list[object]]) -> bytes:
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    return content.getvalue()


async def send(
    api: Client, person: Person, content: bytes, headers: dict[str, str] | None = None, **query: object
) -> Any:
    return await api.post(
        IMPORTS,
        headers={**person.headers, **(headers or {})},
        params=query,  # type: ignore[arg-type]
        files={"file": ("sites.csv", content)},
    )


async def report_of(api: Client, person: Person, rows: Rows, **query: Any) -> dict[str, Any]:
    response = await send(api, person, as_csv(rows), **query)
    assert response.status_code == 200, response.text
    report: dict[str, Any] = response.json()
    return report


def counts(report: dict[str, Any]) -> tuple[int, int, int, int]:
    return report["created"], report["updated"], report["unchanged"], report["failed"]


def failures(report: dict[str, Any]) -> dict[int, str]:
    return {row["line"]: row["code"] for row in report["rows"] if row["outcome"] == "failed"}


async def items(api: Client, person: Person, noun: str) -> dict[str, dict[str, Any]]:
    response = await api.get(f"/api/v1/{noun}", headers=person.headers, params={"limit": 200})
    assert response.status_code == 200, response.text
    return {item["name"]: item for item in response.json()["items"]}


def num_audited(world: World) -> int:
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute("select count(*) from audit_entries").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("seed", range(3))
async def test_a_hierarchy_in_any_order_of_rows_becomes_the_tree(api: Client, world: World, seed: int) -> None:
    rows = random.Random(seed).sample(SITE, len(SITE))
    report = await report_of(api, world.chief, rows)
    assert counts(report) == (8, 0, 0, 0)
    assert [row["line"] for row in report["rows"]] == list(range(2, 10))
    site = (await items(api, world.chief, "establishments"))["North"]
    areas = await items(api, world.chief, "areas")
    devices = await items(api, world.chief, "devices")
    assert (site["latitude"], site["longitude"]) == (-33.4, -70.6)
    assert areas["Room 201"]["parent_area_id"] == areas["Floor 2"]["id"]
    assert areas["Floor 2"]["parent_area_id"] == areas["Tower"]["id"]
    assert areas["Floor 2"]["floor"] == 2
    meter = devices["Meter"]
    assert (meter["establishment_id"], meter["area_id"]) == (site["id"], areas["Room 201"]["id"])
    assert meter["gateway_id"] == devices["Gate"]["id"]
    assert (meter["mac_address"], meter["metadata"]) == ("00:1b:44:11:3a:b7", {"circuit": 7})
    assert devices["Lock"]["is_enabled"] is False
    assert devices["Spare"]["establishment_id"] is None


async def test_the_same_table_again_changes_nothing_and_another_what_it_says(api: Client, world: World) -> None:
    await report_of(api, world.chief, SITE)
    audited = num_audited(world)
    assert counts(await report_of(api, world.chief, SITE)) == (0, 0, 8, 0)
    assert num_audited(world) == audited
    before = (await items(api, world.chief, "devices"))["Meter"]
    moved = {
        "kind": "device",
        "establishment": "North",
        "area_path": "Tower",
        "name": "Main meter",
        "serial_number": "M-1",
    }
    report = await report_of(api, world.chief, [moved, {**SITE[0], "timezone": "Europe/Madrid"}, SITE[4]])
    assert counts(report) == (0, 2, 1, 0)
    after = (await items(api, world.chief, "devices"))["Main meter"]
    assert after["id"] == before["id"]
    assert after["version"] == before["version"] + 1
    assert after["area_id"] == (await items(api, world.chief, "areas"))["Tower"]["id"]
    # What its row leaves empty stays.
    assert (after["metadata"], after["gateway_id"]) == (before["metadata"], before["gateway_id"])
    assert (await items(api, world.chief, "establishments"))["North"]["timezone"] == "Europe/Madrid"


async def test_views_and_audit_entries_are_what_single_requests_would_have_left(api: Client, world: World) -> None:
    report = await report_of(api, world.chief, SITE)
    kinds = {"establishment": "establishments", "area": "areas", "device": "devices"}
    for row in report["rows"]:
        read = (await api.get(f"/api/v1/{kinds[row['kind']]}/{row['id']}", headers=world.chief.headers)).json()
        with psycopg.connect(world.database_url) as connection:
            entry = connection.execute(
                "select action, actor_id, organization_id, before, after, correlation_id is not null"
                " from audit_entries where entity_id = %s",
                [row["id"]],
            ).fetchall()
        [(action, actor_id, organization_id, before, after, is_correlated)] = entry
        assert (action, actor_id, organization_id) == (f"{row['kind']}.create", world.chief.id, world.tenant.id)
        assert (before, is_correlated) == (None, True)
        assert {**after, "created_at": 0, "updated_at": 0} == {**read, "created_at": 0, "updated_at": 0}


async def test_all_or_nothing_keeps_nothing_and_names_every_bad_row(api: Client, world: World) -> None:
    bad = [*SITE, {**SITE[5], "serial_number": "M-2", "name": "Other", "mac_address": "nonsense"}, {"kind": "floor"}]
    audited = num_audited(world)
    problem: Any = problem_of(await send(api, world.chief, as_csv(bad)), 422, "imports.refused")
    report = problem["report"]
    assert counts(report) == (8, 0, 0, 2)
    assert failures(report) == {10: "request.invalid", 11: "request.invalid"}
    assert [row["column"] for row in report["rows"] if row["outcome"] == "failed"] == ["mac_address", "kind"]
    assert report["is_applied"] is False
    assert "North" not in await items(api, world.chief, "establishments")
    assert num_audited(world) == audited


async def test_row_by_row_keeps_the_good_rows_and_what_hangs_on_a_bad_one_says_so(api: Client, world: World) -> None:
    rows = [dict(row) for row in SITE]
    rows[2]["type"] = "x" * 60
    report = await report_of(api, world.chief, rows, mode="row_by_row")
    assert counts(report) == (5, 0, 0, 3)
    assert failures(report) == {4: "request.invalid", 5: "imports.parent-failed", 7: "imports.parent-failed"}
    assert set(await items(api, world.chief, "areas")) == {"Hall", "Tower"}
    rows[0]["latitude"] = "north"
    again = await report_of(api, world.other_chief, rows, mode="row_by_row")
    assert failures(again)[2] == "request.invalid"
    assert failures(again)[3] == "imports.parent-failed"
    assert counts(again) == (1, 0, 0, 7)


async def test_an_error_file_is_mended_and_sent_again(api: Client, world: World) -> None:
    rows = [dict(row) for row in SITE]
    rows[0]["address"] = "=cmd|' /C calc'!A0"
    rows[0]["timezone"] = "Chile"
    rows[5]["ip_address"] = "300.1.1.1"
    content = as_csv(rows, ";").replace(b"-33.4;-70.6", b"-33,4;-70,6")
    first = await send(api, world.chief, content, mode="row_by_row")
    assert counts(first.json()) == (1, 0, 0, 7)
    error_file: str = first.json()["error_file"]
    assert error_file.startswith("\ufeffproblem;")
    assert "'=cmd|" in error_file
    assert ";-33,4;-70,6;" in error_file
    assert "row 2: timezone: 'Chile' is no IANA time zone" in error_file
    mended = error_file.replace(";Chile;", ";America/Santiago;").replace("300.1.1.1", "192.0.2.1")
    second = await send(api, world.chief, mended.encode(), mode="all_or_nothing")
    assert second.status_code == 200, second.text
    assert counts(second.json()) == (7, 0, 0, 0)
    assert second.json()["error_file"] is None
    site = (await items(api, world.chief, "establishments"))["North"]
    assert (site["address"], site["latitude"]) == ("=cmd|' /C calc'!A0", -33.4)


async def test_a_dry_run_says_everything_and_keeps_nothing(api: Client, world: World) -> None:
    audited = num_audited(world)
    rows = [*SITE[:-1], {**SITE[-1], "issue_token": "true"}, {"kind": "device", "name": "X", "establishment": "None"}]
    report = await report_of(api, world.chief, rows, dry_run=True)
    assert counts(report) == (8, 0, 0, 1)
    assert failures(report) == {10: "resource.not-found"}
    assert (report["is_dry_run"], report["is_applied"]) == (True, False)
    assert all(row["token"] is None for row in report["rows"])
    assert num_audited(world) == audited
    assert "North" not in await items(api, world.chief, "establishments")


async def test_tokens_are_told_once_and_never_issued_twice(api: Client, world: World) -> None:
    rows = [{**row, "issue_token": "true"} if row.get("name") in ("Gate", "Lock") else row for row in SITE]
    report = await report_of(api, world.chief, rows)
    tokens = {row["name"]: row["token"] for row in report["rows"] if row["token"] is not None}
    assert set(tokens) == {"Gate", "Lock"}
    with psycopg.connect(world.database_url) as connection:
        right = connection.execute(
            "select name from devices where token_hash = any(select sha256(t::bytea) from unnest(%s::text[]) t) order by name",
            [list(tokens.values())],
        ).fetchall()
        told = connection.execute(
            "select count(*) from audit_entries a where a::text like any(select '%%' || t || '%%' from unnest(%s::text[]) t)",
            [list(tokens.values())],
        ).fetchone()
    assert right == [("Gate",), ("Lock",)]
    assert told == (0,)
    devices = await items(api, world.chief, "devices")
    assert devices["Gate"]["has_token"] is True
    assert devices["Gate"]["version"] == 2
    again = await report_of(api, world.chief, rows)
    assert counts(again) == (0, 0, 8, 0)
    assert all(row["token"] is None for row in again["rows"])
    child = [{**SITE[5], "issue_token": "true"}]
    assert failures(await report_of(api, world.chief, child, mode="row_by_row")) == {2: "devices.child-has-no-token"}


async def test_an_import_under_one_key_is_done_once(api: Client, world: World) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    rows = [{**SITE[-1], "issue_token": "true"}]
    first = await send(api, world.chief, as_csv(rows), key)
    again = await send(api, world.chief, as_csv(rows), key)
    assert first.json()["rows"][0]["token"] is not None
    assert again.json() == first.json()
    other = await send(api, world.chief, as_csv(rows), key, mode="row_by_row")
    problem_of(other, 422, "request.invalid")


async def test_two_rows_for_one_thing_and_names_of_several_are_refused(api: Client, world: World) -> None:
    rows = [*SITE, SITE[0], SITE[1], SITE[4], SITE[6]]
    report = await report_of(api, world.chief, rows, mode="row_by_row")
    assert failures(report) == dict.fromkeys(range(10, 14), "imports.duplicate-row")
    assert "row 2 describes" in next(row["message"] for row in report["rows"] if row["line"] == 10)
    for _ in range(2):
        body = {"name": "Twin", "establishment_id": str(world.tenant.sites[0].id)}
        assert (await api.post("/api/v1/devices", headers=world.chief.headers, json=body)).status_code == 201
    twin = {"kind": "device", "establishment": "Acme 1", "name": "Twin"}
    child = {"kind": "device", "establishment": "Acme 1", "name": "Child", "gateway": "Twin"}
    ambiguous = await report_of(api, world.chief, [twin, child], mode="row_by_row")
    assert failures(ambiguous) == dict.fromkeys((2, 3), "imports.ambiguous")


async def test_a_workbook_is_read_as_a_csv_is(api: Client, world: World) -> None:
    header: list[object] = [
        "Kind",
        "Establishment",
        "AREA PATH",
        "name",
        "type",
        "timezone",
        "latitude",
        "longitude",
        "floor",
    ]
    content = as_xlsx(
        [
            header,
            ["device", "North", "T", "Meter"],
            [],
            ["area", "North", "T", None, "tower", None, None, None, 2],
            ["establishment", None, None, "North", None, "America/Santiago", -33.41, -70],
        ]
    )
    response = await api.post(IMPORTS, headers=world.chief.headers, content=content)
    assert response.status_code == 200, response.text
    assert [(row["line"], row["outcome"]) for row in response.json()["rows"]] == [
        (2, "created"),
        (4, "created"),
        (5, "created"),
    ]
    assert (await items(api, world.chief, "establishments"))["North"]["latitude"] == -33.41
    assert (await items(api, world.chief, "areas"))["T"]["floor"] == 2


async def test_a_formula_in_a_workbook_is_read_as_its_value(api: Client, world: World) -> None:
    content = io.BytesIO()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["kind", "establishment", "name", "enabled"])
        sheet.write_row(1, 0, ["device", "Acme 1"])
        sheet.write_formula(1, 2, '=CONCAT("Met","er")', None, "Meter")
        sheet.write_boolean(1, 3, boolean=False)
    response = await api.post(IMPORTS, headers=world.chief.headers, content=content.getvalue())
    assert response.status_code == 200, response.text
    assert (await items(api, world.chief, "devices"))["Meter"]["is_enabled"] is False


async def test_a_raw_body_is_a_file_too(api: Client, world: World) -> None:
    headers = {**world.chief.headers, "Content-Type": "text/csv"}
    response = await api.post(IMPORTS, headers=headers, content=as_csv(SITE))
    assert counts(response.json()) == (8, 0, 0, 0)


async def test_a_request_larger_than_others_may_be_is_taken_and_one_too_large_refused(
    api: Client, world: World
) -> None:
    wide = [{"kind": "device", "establishment": "Acme 1", "name": f"D{n}", "model": "x" * 200} for n in range(6_000)]
    content = as_csv(wide)
    assert len(content) > 1 << 20
    report = await send(api, world.chief, content, dry_run=True)
    assert counts(report.json()) == (6_000, 0, 0, 0)
    problem_of(await send(api, world.chief, b"x" * (6 << 20)), 413, "request.too-large")


async def test_a_device_gets_the_profile_of_its_organisation_by_name_and_keeps_it(api: Client, world: World) -> None:
    profile_id = str(new_profile(world, world.tenant, name="EM24"))
    new_profile(world, world.other_tenant, name="Foreign")
    row = {"kind": "device", "establishment": "Acme 1", "name": "Meter 7", "serial_number": "7"}
    told = {"profile": "EM24", "modbus": '{"host": "10.0.4.7", "unit_id": 7}'}
    assert counts(await report_of(api, world.admin, [{**row, **told}])) == (1, 0, 0, 0)
    assert counts(await report_of(api, world.admin, [{**row, **told}])) == (0, 0, 1, 0)
    assert counts(await report_of(api, world.admin, [row])) == (0, 0, 1, 0)
    made = (await items(api, world.admin, "devices"))["Meter 7"]
    assert made["profile_id"] == profile_id
    assert made["modbus"] == {"host": "10.0.4.7", "port": 502, "unit_id": 7, "framing": "tcp"}
    wrong = [
        {**row, "serial_number": "8", "profile": "Foreign"},
        {**row, "serial_number": "9", "modbus": '{"host": "127.0.0.1"}'},
        {"kind": "area", "establishment": "Acme 1", "area_path": "Hall", "profile": "EM24"},
    ]
    report = await report_of(api, world.admin, wrong, mode="row_by_row")
    assert failures(report) == {2: "resource.not-found", 3: "request.invalid", 4: "request.invalid"}
    assert "Foreign" in report["rows"][0]["message"]


async def test_who_sees_no_profiles_imports_none(api: Client, world: World) -> None:
    new_profile(world, world.tenant, name="EM24")
    keeper = clerk(world, "read_device", "create_device", "update_device", "read_establishment")
    row = {"kind": "device", "establishment": "Acme 1", "name": "Meter 7"}
    report = await report_of(api, keeper, [{**row, "profile": "EM24"}], mode="row_by_row")
    assert failures(report) == {2: "resource.not-found"}
    assert counts(await report_of(api, keeper, [row])) == (1, 0, 0, 0)
