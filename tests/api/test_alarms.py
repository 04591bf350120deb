"""Alarms from the event in the outbox to what people read, and who is told at once."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from hse.adapters.postgres.engine import create_engine
from hse.wiring.outbox import HANDLERS, EventDispatcher
from tests.api.conftest import Client, problem_of
from tests.api.graphql import data, nodes
from tests.api.world import Site, World

START = datetime(2030, 1, 1, tzinfo=UTC)


def report(world: World, device_id: UUID, minute: int = 0, **said: Any) -> None:
    """Put an alarm event into the outbox, as the core does."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "insert into event_outbox (time, device_id, event_type, value, unit, metadata) values (%s, %s, 'alarm', 7, 'ppm', %s)",
            [START + timedelta(minutes=minute), device_id, json.dumps(said)],
        )


def handle(world: World) -> EventDispatcher:
    """Do what the worker does, to the end."""
    engine = create_engine(world.database_url)
    dispatcher = EventDispatcher(engine=engine, handlers=HANDLERS)
    while dispatcher.dispatch_batch() > 0:
        pass
    engine.dispose()
    return dispatcher


def site_of(world: World) -> Site:
    """Where the admin and the user work."""
    return world.tenant.sites[0]


async def test_an_alarm_is_read_where_its_device_stands(api: Client, world: World) -> None:
    site = site_of(world)
    report(world, site.device_id, 1, alarm_type="smoke", severity="critical", message="Smoke in the hall")
    report(world, site.device_id, 2, alarm_type="smoke", severity="critical", message="More smoke")
    report(world, world.tenant.sites[1].device_id, 3, alarm_type="leak")
    report(world, world.other_tenant.sites[0].device_id, 4, alarm_type="leak")
    handle(world)
    (alarm,) = (await api.get("/api/v1/alarms", headers=world.user.headers)).json()["items"]
    expected = {
        "organization_id": str(world.tenant.id),
        "establishment_id": str(site.id),
        "device_id": str(site.device_id),
        "type": "smoke",
        "severity": "critical",
        "state": "active",
        "message": "More smoke",
        "num_reports": 2,
        "raised_at": "2030-01-01T00:01:00Z",
        "cleared_at": None,
        "value": 7.0,
        "unit": "ppm",
    }
    assert {name: alarm[name] for name in expected} == expected
    chief = (await api.get("/api/v1/alarms", headers=world.chief.headers)).json()["items"]
    assert [one["type"] for one in chief] == ["leak", "smoke"], "the newest is first"
    report(world, site.device_id, 9, alarm_type="smoke", state="cleared")
    handle(world)
    after = (await api.get(f"/api/v1/alarms/{alarm['id']}", headers=world.user.headers)).json()
    assert (after["state"], after["cleared_at"]) == ("cleared", "2030-01-01T00:09:00Z")
    problem_of(
        await api.get(f"/api/v1/alarms/{alarm['id']}", headers=world.other_chief.headers), 404, "resource.not-found"
    )


async def test_a_list_takes_filters(api: Client, world: World) -> None:
    first, second = world.tenant.sites
    report(world, first.device_id, 1, alarm_type="smoke", severity="critical")
    report(world, first.device_id, 2, alarm_type="smoke", active=False)
    report(world, second.device_id, 3, alarm_type="leak", severity="minor", message="Under the sink")
    handle(world)
    for params, expected in (
        ({"state": "active"}, ["leak"]),
        ({"severity": "critical"}, ["smoke"]),
        ({"device_id": str(first.device_id)}, ["smoke"]),
        ({"establishment_id": str(second.id)}, ["leak"]),
        ({"organization_id": str(world.tenant.id), "sort": "raised_at"}, ["smoke", "leak"]),
        ({"q": "sink"}, ["leak"]),
        ({"type": "smoke", "state": "active"}, []),
    ):
        answer = await api.get("/api/v1/alarms", headers=world.chief.headers, params=params)
        assert [one["type"] for one in answer.json()["items"]] == expected, params
    for wrong in ({"state": "nope"}, {"severity": "bad"}):
        assert (await api.get("/api/v1/alarms", headers=world.chief.headers, params=wrong)).status_code == 422


async def test_an_alarm_stays_where_it_was_when_its_device_moves(api: Client, world: World) -> None:
    first, second = world.tenant.sites
    report(world, first.device_id, 1, alarm_type="smoke")
    handle(world)
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "update devices set establishment_id = %s, area_id = null where id = %s", [second.id, first.device_id]
        )
    assert len((await api.get("/api/v1/alarms", headers=world.user.headers)).json()["items"]) == 1
    assert (await api.get("/api/v1/alarms", headers=world.other_site_admin.headers)).json()["items"] == []
    report(world, first.device_id, 2, alarm_type="smoke", state="cleared")
    report(world, first.device_id, 3, alarm_type="smoke")
    handle(world)
    (there,) = (await api.get("/api/v1/alarms", headers=world.other_site_admin.headers)).json()["items"]
    assert (there["state"], there["establishment_id"]) == ("active", str(second.id))


async def test_an_alarm_of_a_device_that_is_gone_is_left(world: World) -> None:
    report(world, uuid4())
    assert handle(world).counts.events == {("alarm", "handled"): 1}


async def test_it_is_read_over_graphql_with_its_device(api: Client, world: World) -> None:
    site = site_of(world)
    report(world, site.device_id, alarm_type="smoke")
    handle(world)
    asked = '{ alarms(state: "active") { edges { node { id type device { name } establishment { name } } } } }'
    (alarm,) = nodes((await data(api, world.user, asked))["alarms"])
    assert (alarm["type"], alarm["device"]["name"], alarm["establishment"]["name"]) == (
        "smoke",
        "Acme 1 meter",
        "Acme 1",
    )
    asked = "query($id: UUID!) { alarm(id: $id) { state device { alarms { totalCount } } } }"
    found = await data(api, world.user, asked, id=alarm["id"])
    assert found["alarm"] == {"state": "active", "device": {"alarms": {"totalCount": 1}}}
    asked = "query($id: UUID!) { device(id: $id) { alarms { edges { node { id } } } } }"
    found = await data(api, world.custom, asked, id=str(site.device_id))
    assert found["device"]["alarms"]["edges"] == [], "who sees the device need not see its alarms"


async def test_who_listens_is_told_at_once_and_without_what_the_device_wrote(world: World) -> None:
    site = site_of(world)
    with psycopg.connect(world.database_url, autocommit=True) as listening:
        listening.execute("listen hse_notices")
        report(world, site.device_id, alarm_type="smoke", message="a secret")
        handle(world)
        (notice,) = [json.loads(one.payload) for one in listening.notifies(timeout=20, stop_after=1)]
    assert (notice["kind"], notice["state"], notice["severity"]) == ("alarm", "active", "major")
    assert notice["establishment_id"] == str(site.id)
    assert "secret" not in json.dumps(notice)


def test_nobody_writes_alarms_through_the_api(world: World, api_database_url: str) -> None:
    world.new_alarm(world.tenant, site_of(world))
    with psycopg.connect(api_database_url, autocommit=True) as connection:
        connection.execute("set role hse_api")
        for statement in ("update device_alarms set state = 'acknowledged'", "delete from device_alarms"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
