"""What devices sent that could not be understood or stored: counted and shown at the device, to those whom it concerns."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from tests.api.conftest import Client, problem_of
from tests.api.graphql import data, refusal
from tests.api.world import Person, World

RECEIVED_AT = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "4711 was typed at the door"


def unreadable(payload: bytes, topic: str = "v1/devices/me/telemetry", reason: str = "not JSON") -> bytes:
    """What the core keeps of what it cannot understand."""
    metadata = {"reason": reason, "topic": topic, "payload": payload}
    return msgspec.msgpack.encode([None, "unreadable", None, None, metadata])


def keep(world: World, device_id: UUID, events: Sequence[bytes], status: str = "permanent", **more: Any) -> None:
    """Keep dead letters of a device, a second after each other."""
    values = {"code": "bad_payload", "reason": "not JSON", "source": "mqtt", "first": 0, **more}
    with psycopg.connect(world.database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into dead_letters (device_id, epoch, seq, received_at, code, reason, event, status, source)"
            " values (%s, 1, 1, %s, %s, %s, %s, %s, %s)",
            [
                (
                    device_id,
                    RECEIVED_AT + timedelta(seconds=number),
                    *(values[name] for name in ("code", "reason")),
                    event,
                    status,
                    values["source"],
                )
                for number, event in enumerate(events, values["first"])
            ],
        )


async def summary_of(api: Client, person: Person, device_id: UUID) -> dict[str, Any]:
    response = await api.get(f"/api/v1/devices/{device_id}/dead-letters/summary", headers=person.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def page_of(api: Client, person: Person, device_id: UUID, **params: Any) -> dict[str, Any]:
    response = await api.get(f"/api/v1/devices/{device_id}/dead-letters", headers=person.headers, params=params)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


# --- who sees what ---


async def test_nobody_sees_what_a_device_sent_but_who_may(api: Client, world: World) -> None:
    """The number and the reason are told to who sees the device; what was sent takes an action that users do not hold."""
    device = world.tenant.sites[0].device_id
    keep(world, device, [unreadable(SECRET.encode())])
    listing, counting = f"/api/v1/devices/{device}/dead-letters", f"/api/v1/devices/{device}/dead-letters/summary"
    expected = [
        (world.root, 200, 200),
        (world.partner, 200, 200),
        (world.chief, 200, 200),
        (world.admin, 200, 200),
        (world.user, 200, 403),
        (world.custom, 200, 403),
        (world.other_site_admin, 404, 404),
        (world.other_partner, 404, 404),
        (world.other_chief, 404, 404),
    ]
    query = "query ($id: UUID!) { deviceDeadLetters(id: $id) { edges { node { content } } } }"
    for person, counted, listed in expected:
        answer = await api.get(counting, headers=person.headers)
        assert answer.status_code == counted, person.email
        assert SECRET not in answer.text
        answer = await api.get(listing, headers=person.headers)
        assert answer.status_code == listed, person.email
        assert (SECRET in answer.text) == (listed == 200)
        if listed == 200:
            (edge,) = (await data(api, person, query, id=str(device)))["deviceDeadLetters"]["edges"]
            assert edge["node"]["content"] == SECRET
        else:
            code = {403: "permission.missing", 404: "resource.not-found"}[listed]
            assert SECRET not in str(await refusal(api, person, query, code, id=str(device)))


async def test_an_api_key_sees_what_a_device_sent_only_with_the_action(api: Client, world: World) -> None:
    device = world.tenant.sites[0].device_id
    keep(world, device, [unreadable(SECRET.encode())])
    for actions, status in ((["read_device", "read_telemetry"], 403), (["read_device", "read_dead_letter"], 200)):
        headers = {"X-API-Key": world.add_api_key(world.chief, actions)}
        answer = await api.get(f"/api/v1/devices/{device}/dead-letters", headers=headers)
        assert (answer.status_code, SECRET in answer.text) == (status, status == 200)


async def test_a_device_is_counted_in_graphql_where_it_is_seen(api: Client, world: World) -> None:
    first, second = (site.device_id for site in world.tenant.sites)
    other = world.other_tenant.sites[0].device_id
    for device, count in ((first, 1), (second, 2), (other, 3)):
        keep(world, device, [unreadable(b"?")] * count)
    query = '{ devices(first: 10, sort: "name") { edges { node { deadLetterSummary { numPermanent lastReason } } } } }'
    for person, counts in ((world.chief, [1, 2]), (world.custom, [1]), (world.other_chief, [3])):
        edges = (await data(api, person, query))["devices"]["edges"]
        assert [edge["node"]["deadLetterSummary"]["numPermanent"] for edge in edges] == counts


# --- what is told ---


async def test_what_is_kept_is_counted_with_the_last_reason(api: Client, world: World) -> None:
    device, silent = (site.device_id for site in world.tenant.sites)
    keep(world, device, [b"\x90"] * 2, "pending", code="bad_time", reason="bad_time", first=5)
    keep(world, device, [unreadable(b"?")] * 3)
    keep(world, device, [b"\x90"], "discarded", reason="discarded", first=20)
    row = "ERROR: refused\nDETAIL: Failing row contains (4711)."
    keep(world, device, [b"\x90"], code="refused_by_database", reason=row, first=9)
    assert await summary_of(api, world.user, device) == {
        "device_id": str(device),
        "num_pending": 2,
        "num_permanent": 4,
        "has_more": False,
        "num_removed": 0,
        "last_code": "refused_by_database",
        # What stands behind its first line may be a value.
        "last_reason": "ERROR: refused",
        "last_received_at": "2026-01-01T00:00:09Z",
    }
    nothing = await summary_of(api, world.chief, silent)
    assert (nothing["num_pending"], nothing["num_permanent"], nothing["last_reason"]) == (0, 0, None)
    # Who may see what was sent is told the whole reason.
    assert (await page_of(api, world.chief, device))["items"][0]["reason"] == row


async def test_no_more_than_the_newest_are_counted(api: Client, world: World) -> None:
    device = world.tenant.sites[0].device_id
    keep(world, device, [b"\x90"] * 1000)
    counted = await summary_of(api, world.user, device)
    assert (counted["num_permanent"], counted["has_more"]) == (1000, False)
    keep(world, device, [b"\x90"] * 5, "pending", first=1000)
    counted = await summary_of(api, world.user, device)
    assert (counted["num_pending"], counted["num_permanent"], counted["has_more"]) == (5, 995, True)


async def test_they_are_listed_page_after_page_the_newest_first(api: Client, world: World) -> None:
    device, other = (site.device_id for site in world.tenant.sites)
    # Several of one moment, too: their order is that of their ids.
    keep(world, device, [unreadable(b"%d" % number) for number in range(5)])
    keep(world, device, [unreadable(b"%d" % number) for number in range(10, 15)])
    keep(world, other, [unreadable(b"other")])
    seen, cursor = [], None
    for _ in range(5):
        page = await page_of(api, world.chief, device, limit=3, **({} if cursor is None else {"cursor": cursor}))
        seen += [letter["content"] for letter in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["14", "4", "13", "3", "12", "2", "11", "1", "10", "0"]
    fields = "edges { node { content } } pageInfo { endCursor hasNextPage }"
    query = (
        f"query ($id: UUID!, $after: String) {{ deviceDeadLetters(id: $id, first: 3, after: $after) {{ {fields} }} }}"
    )
    page = (await data(api, world.chief, query, id=str(device)))["deviceDeadLetters"]
    assert page["pageInfo"]["hasNextPage"]
    page = (await data(api, world.chief, query, id=str(device), after=page["pageInfo"]["endCursor"]))[
        "deviceDeadLetters"
    ]
    assert [edge["node"]["content"] for edge in page["edges"]] == ["3", "12", "2"]
    bad = await api.get(
        f"/api/v1/devices/{device}/dead-letters", headers=world.chief.headers, params={"cursor": "nonsense"}
    )
    assert problem_of(bad, 422, "request.invalid")["field"] == "cursor"


A_MESSAGE = [1_767_225_600_000_000, "power", 1.5, "kW", {"phase": 1}]


@pytest.mark.parametrize(
    ("event", "topic", "content", "is_whole"),
    [
        (unreadable(b'{"power": '), "v1/devices/me/telemetry", '{"power": ', True),
        (unreadable(b"\xff\x00a"), "v1/devices/me/telemetry", "\\xff\x00a", True),
        (unreadable(b"x" * 2000), "v1/devices/me/telemetry", "x" * 2000, True),
        (unreadable(b"x" * 2001), "v1/devices/me/telemetry", "x" * 2000, False),
        (unreadable(b"x" * 20_000), None, None, False),
        (
            msgspec.msgpack.encode(A_MESSAGE),
            None,
            '{"time":1767225600000000,"type":"power","value":1.5,"unit":"kW","metadata":{"phase":1}}',
            True,
        ),
        # No event at all, half of one, one with a key that JSON has not, and one that says of itself that it cannot be understood.
        (b"\x01", None, "01", True),
        (b"\x92\x01", None, "9201", True),
        (b"\x91\x81\x91\x01\x02", None, "9181910102", True),
        (
            msgspec.msgpack.encode([1, "unreadable", None, None, {"topic": 1}]),
            None,
            '{"time":1,"type":"unreadable","value":null,"unit":null,"metadata":{"topic":1}}',
            True,
        ),
    ],
)
async def test_what_was_sent_is_shown_as_far_as_it_can_be(
    api: Client, world: World, event: bytes, topic: str | None, content: str | None, is_whole: bool
) -> None:
    device = world.tenant.sites[0].device_id
    keep(world, device, [event])
    (letter,) = (await page_of(api, world.chief, device))["items"]
    assert letter.pop("id").isdigit()
    assert letter == {
        "device_id": str(device),
        "received_at": "2026-01-01T00:00:00Z",
        "source": "mqtt",
        "status": "permanent",
        "code": "bad_payload",
        "reason": "not JSON",
        "topic": topic,
        "content": content,
        "is_whole": is_whole,
        "num_bytes": len(event),
    }
