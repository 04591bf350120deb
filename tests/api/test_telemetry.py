"""The history over REST and GraphQL: what is answered, to whom, and how it is downloaded."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from litestar import Litestar

from hse.adapters.postgres.engine import create_engine
from hse.adapters.sheets import BYTE_ORDER_MARK
from tests.api.conftest import Client, problem_of
from tests.api.graphql import ask, data, refusal
from tests.api.test_graphql import counted
from tests.api.world import Person, World
from tests.storage.drain import Reading, drain

START = datetime(2025, 9, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
Z = "%Y-%m-%dT%H:%M:%SZ"


def report(world: World, *events: Reading) -> None:
    """Let devices report."""
    engine = create_engine(world.database_url)
    drain(engine, events)
    engine.dispose()


def meter(world: World, number: int = 0) -> UUID:
    """A device of the first tenant."""
    return world.tenant.sites[number].device_id


async def get(api: Client, person: Person, path: str, **params: Any) -> Any:
    """What is answered, which must be an answer."""
    response = await api.get(f"/api/v1/{path}", headers=person.headers, params=params)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_device_s_events_come_page_after_page(api: Client, world: World) -> None:
    device = meter(world)
    events = [
        Reading(time=START + n * HOUR, device_id=device, value=n / 4, event_type=("door", "power")[n % 2], unit="kW")
        for n in range(7)
    ]
    report(world, *events, Reading(time=START, device_id=meter(world, 1), value=99.0))
    path, seen, cursor = f"devices/{device}/events", [], None
    while True:
        page = await get(api, world.user, path, limit=3, **({} if cursor is None else {"cursor": cursor}))
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [one["value"] for one in seen] == [n / 4 for n in reversed(range(7))]
    assert seen[0] == {
        "time": (START + 6 * HOUR).strftime(Z),
        "device_id": str(device),
        "event_type": "door",
        "value": 1.5,
        "unit": "kW",
        "metadata": None,
        "source": None,
    }
    limits = {
        "from": (START + HOUR).strftime(Z),
        "to": (START + 5 * HOUR).strftime(Z),
        "type": ["power"],
        "sort": "time",
    }
    assert [one["value"] for one in (await get(api, world.user, path, **limits))["items"]] == [0.25, 0.75]
    other = f"/api/v1/devices/{meter(world, 1)}/events"
    first = (await get(api, world.user, path, limit=3))["next_cursor"]
    taken = await api.get(other, headers=world.chief.headers, params={"cursor": first})
    assert problem_of(taken, 422, "request.invalid")["field"] == "cursor"
    for wrong in (
        {"sort": "value"},
        {"from": "2025-01-01T00:00:00"},
        {"limit": 201},
        {"cursor": "e30"},
        {"type": [""]},
    ):
        response = await api.get(f"/api/v1/{path}", headers=world.user.headers, params=wrong)
        problem_of(response, 422, "request.invalid")


async def test_whose_history_one_may_not_read(api: Client, world: World) -> None:
    own, hidden, foreign = meter(world), meter(world, 1), world.other_tenant.sites[0].device_id
    report(world, *(Reading(time=START, device_id=device, value=1.0) for device in (own, hidden, foreign)))
    window = {"from": START.strftime(Z), "to": (START + HOUR).strftime(Z), "type": "temperature"}
    for device in (hidden, foreign, uuid4()):
        for path, params in (
            (f"devices/{device}/events", {}),
            (f"devices/{device}/events.csv", window),
            (f"devices/{device}/state", {}),
            ("telemetry/states", {"device_id": [str(own), str(device)]}),
            ("telemetry/latest", {"device_id": [str(own), str(device)]}),
            ("telemetry/series", {"device_id": [str(own), str(device)], **window}),
            ("telemetry/series.csv", {"device_id": [str(device)], **window}),
        ):
            response = await api.get(f"/api/v1/{path}", headers=world.user.headers, params=params)
            assert problem_of(response, 404, "resource.not-found")["entity_id"] == str(device)
    # He sees devices and not what they report.
    for path, params in ((f"devices/{own}/events", {}), ("telemetry/series", {"device_id": [str(own)], **window})):
        response = await api.get(f"/api/v1/{path}", headers=world.custom.headers, params=params)
        assert problem_of(response, 403, "permission.missing")["action"] == "read_telemetry"


async def test_a_day_is_the_site_s_own(api: Client, world: World) -> None:
    """In Santiago the 7th of September 2025 has 23 hours: from 04:00 UTC to 03:00."""
    device = meter(world)
    hours = [
        Reading(time=START + n * HOUR, device_id=device, value=1.0, event_type="power", unit="kWh") for n in range(96)
    ]
    report(world, *hours)
    params = {"device_id": str(device), "type": "power", "function": ["sum", "count"]}
    window = {"from": "2025-09-06T12:00:00Z", "to": "2025-09-08T12:00:00Z"}
    found = await get(api, world.user, "telemetry/series", step="1d", **params, **window)
    assert (found["step"], found["timezone"]) == ("1d", "America/Santiago")
    assert found["times"] == ["2025-09-06T04:00:00Z", "2025-09-07T04:00:00Z", "2025-09-08T03:00:00Z"]
    assert found["until"] == "2025-09-09T03:00:00Z"
    (series,) = found["series"]
    assert (series["sum"], series["count"], series["avg"]) == ([24.0, 23.0, 21.0], [24, 23, 21], None)
    assert (series["unit"], series["has_several_units"]) == ("kWh", False)
    in_utc = await get(api, world.user, "telemetry/series", step="1d", timezone="UTC", **params, **window)
    assert in_utc["series"][0]["sum"] == [24.0, 24.0, 24.0]
    chosen = await get(api, world.user, "telemetry/series", points=10, **params, **window)
    assert (chosen["step"], len(chosen["times"])) == ("6h", 8)
    refused = {**params, **window, "step": "1s"}
    response = await api.get("/api/v1/telemetry/series", headers=world.user.headers, params=refused)
    assert problem_of(response, 422, "request.invalid")["field"] == "step"


async def test_a_download_holds_every_event_and_no_formula(api: Client, world: World) -> None:
    device = meter(world)
    report(
        world, *(Reading(time=START + n * timedelta(seconds=1), device_id=device, value=float(n)) for n in range(4500))
    )
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into device_events values (%s, %s, '=cmd()', -1.5, '@SUM(A1)', '{\"=1+1\": \"x,y\"}', 'hdp')",
            [START + 2 * HOUR, device],
        )
    response = await api.get(
        f"/api/v1/devices/{device}/events.csv",
        headers=world.user.headers,
        params={"from": START.strftime(Z), "to": (START + 3 * HOUR).strftime(Z)},
    )
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in response.headers["content-disposition"]
    assert response.text.startswith(BYTE_ORDER_MARK)
    header, *rows = csv.reader(io.StringIO(response.text.removeprefix(BYTE_ORDER_MARK)))
    assert header == ["time", "device_id", "event_type", "value", "unit", "source", "metadata"]
    assert [row[3] for row in rows[:-1]] == [f"{n}.0" for n in range(4500)]
    assert rows[-1][2:] == ["'=cmd()", "-1.5", "'@SUM(A1)", "hdp", '{"=1+1":"x,y"}']
    typed = await api.get(
        f"/api/v1/devices/{device}/events.csv",
        headers=world.user.headers,
        params={"from": START.strftime(Z), "to": (START + 3 * HOUR).strftime(Z), "type": "=cmd()"},
    )
    assert len(typed.text.splitlines()) == 2


async def test_a_download_ends_when_its_reader_may_read_no_more(app: Litestar, api: Client, world: World) -> None:
    device = meter(world)
    report(world, *(Reading(time=START + n * timedelta(seconds=1), device_id=device, value=1.0) for n in range(4500)))
    url = f"/api/v1/devices/{device}/events.csv"
    params = {"from": START.strftime(Z), "to": (START + 3 * HOUR).strftime(Z)}
    with counted(app) as statements:
        await api.get(url, headers=world.user.headers, params=params)
    # Three pages, and each of them is read in a transaction that asks who he is, and for the device: a session that has ended in
    # between reads no further.
    read = [number for number, one in enumerate(statements) if "from named_events" in one]
    assert len(read) == 3
    for number in read:
        assert "hse_enter_session" in statements[number - 2]
        assert "hse_name_devices" in statements[number - 1]


async def test_series_are_downloaded_with_their_gaps(api: Client, world: World) -> None:
    device = meter(world)
    report(
        world,
        Reading(time=START, device_id=device, value=1.0, event_type="=power", unit="-W"),
        Reading(time=START + 2 * HOUR, device_id=device, value=-3.5, event_type="=power", unit="-W"),
    )
    response = await api.get(
        "/api/v1/telemetry/series.csv",
        headers=world.user.headers,
        params={
            "device_id": str(device),
            "type": "=power",
            "function": ["avg", "count"],
            "step": "1h",
            "from": START.strftime(Z),
            "to": (START + 3 * HOUR).strftime(Z),
        },
    )
    _, *rows = csv.reader(io.StringIO(response.text))
    assert [row[0] for row in rows] == [(START + n * HOUR).strftime(Z) for n in range(3)]
    assert [row[2:] for row in rows] == [
        ["'=power", "'-W", "1.0", "1"],
        ["'=power", "'-W", "", "0"],
        ["'=power", "'-W", "-3.5", "1"],
    ]


async def test_graphql_reads_the_same_history(api: Client, world: World) -> None:
    device = meter(world)
    report(
        world, *(Reading(time=START + n * HOUR, device_id=device, value=float(n), event_type="power") for n in range(5))
    )
    query = """
        query ($id: UUID!, $since: DateTime!, $until: DateTime!, $after: String) {
            deviceEvents(id: $id, types: ["power"], first: 2, after: $after) {
                edges { node { time value } } pageInfo { endCursor }
            }
            latestEvents(deviceIds: [$id]) { eventType value }
            series(asked: {deviceIds: [$id], types: ["power"], since: $since, until: $until, step: "1h", functions: ["max"]}) {
                step times series { deviceId eventType max avg }
            }
        }"""
    window = {"since": START.strftime(Z), "until": (START + 2 * HOUR).strftime(Z)}
    found = await data(api, world.user, query, id=str(device), **window)
    assert [edge["node"]["value"] for edge in found["deviceEvents"]["edges"]] == [4.0, 3.0]
    assert found["series"]["step"] == "1h"
    assert found["series"]["series"] == [
        {"deviceId": str(device), "eventType": "power", "max": [0.0, 1.0], "avg": None}
    ]
    assert [one["value"] for one in found["latestEvents"]] == (
        [] if datetime.now(UTC) - timedelta(days=366) > START else [4.0]
    )
    further = await data(
        api, world.user, query, id=str(device), after=found["deviceEvents"]["pageInfo"]["endCursor"], **window
    )
    assert [edge["node"]["value"] for edge in further["deviceEvents"]["edges"]] == [2.0, 1.0]
    for field in (
        "deviceEvents(id: $id) { pageInfo { endCursor } }",
        "latestEvents(deviceIds: [$id]) { value }",
        "deviceStates(deviceIds: [$id]) { status }",
    ):
        one = f"query ($id: UUID!) {{ {field} }}"
        foreign = str(world.other_tenant.sites[0].device_id)
        await refusal(api, world.user, one, "resource.not-found", id=foreign)
        await refusal(api, world.custom, one, "permission.missing", id=str(device))


async def test_the_states_of_many_devices_are_loaded_at_once(app: Litestar, api: Client, world: World) -> None:
    now = datetime.now(UTC)
    report(world, *(Reading(time=now, device_id=meter(world, n), value=float(n)) for n in range(2)))
    query = "{ devices(first: 50) { edges { node { id state { status isLive lastEvent { value } } } } } }"
    with counted(app) as statements:
        found = await data(api, world.chief, query)
    states = {UUID(edge["node"]["id"]): edge["node"]["state"] for edge in found["devices"]["edges"]}
    assert states == {
        meter(world, n): {"status": "unknown", "isLive": False, "lastEvent": {"value": float(n)}} for n in range(2)
    }
    # The newest hours, and the events in them; of both devices together.
    assert len([one for one in statements if "named_events" in one]) == 2
    # Who sees devices and not what they report sees no state, and everything else.
    seen = await ask(api, world.custom, query)
    assert "errors" not in seen
    assert [edge["node"]["state"] for edge in seen["data"]["devices"]["edges"]] == [None]


@pytest.mark.parametrize("name", ["root", "partner", "admin", "user"])
async def test_the_system_roles_read_what_devices_report(api: Client, world: World, name: str) -> None:
    state = await get(api, getattr(world, name), f"devices/{meter(world)}/state")
    assert (state["status"], state["is_live"], state["last_event"]) == ("unknown", False, None)
