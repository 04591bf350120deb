"""Devices that speak HTTP: ThingsBoard's device API and InfluxDB's write API, and what a 2xx promises."""

import asyncio
import gzip
import hashlib
import json
from uuid import uuid4

import pytest
import requests

from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.device_http import HttpDevice
from tests.faults.test_mqtt import dead_letters
from tests.faults.test_mqtt_formats import give_profile, mapping, point
from tests.faults.test_mqtt_thingsboard import add_key, desire, until_known
from tests.faults.wire import Credentials

NUM_KILLS = 6


@pytest.fixture
def http_device(shared_core: Core, device: Credentials) -> HttpDevice:
    """The test's device."""
    return HttpDevice.of(shared_core.device_http_port, device)


async def stored(database: Database, device: Credentials, count: int) -> list[tuple[object, ...]]:
    """Wait until so many events of a device are stored; return type, value, metadata and source of each."""
    select = (
        "select event_type, value, metadata, source from device_events where device_id = %s order by event_type, value"
    )
    return await database.rows(select, [device.device_id], count, f"{count} events are stored")


async def test_telemetry_that_was_answered_is_stored(
    http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    answer = await http_device.api("POST", "telemetry", json={"temperature": 21.5})
    assert (answer.status_code, answer.content) == (200, b"")
    timed = [{"ts": 1_767_225_600_000, "values": {"humidity": 40, "state": "on"}}]
    assert (await http_device.api("POST", "telemetry", json=timed)).status_code == 200
    assert await stored(database, device, 3) == [
        ("humidity", 40.0, None, "http"),
        ("state", None, {"value": "on"}, "http"),
        ("temperature", 21.5, None, "http"),
    ]


async def test_what_cannot_be_understood_is_kept_and_said_so(
    http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    answer = await http_device.api("POST", "telemetry", data=b"21.5 C")
    assert answer.status_code == 400
    assert "kept as a dead letter: not JSON" in answer.json()["message"]
    ((code, reason, _),) = await dead_letters(database, device, 1)
    assert code == "bad_payload"
    assert str(reason).startswith("not JSON")


async def test_who_is_not_known_is_told_so_and_nothing_else(
    shared_core: Core, http_device: HttpDevice, device: Credentials
) -> None:
    stranger = HttpDevice(shared_core.device_http_port, f"{device.token}x")
    for answer in (
        await stranger.api("POST", "telemetry", json={"a": 1}),
        await stranger.api("GET", "rpc"),
        await stranger.api("GET", "attributes"),
        await stranger.write("a value=1"),
        await http_device.ask("POST", "/api/v2/write", data=b"a value=1"),
        await http_device.ask("POST", "/api/v2/write", headers={"Authorization": f"Basic {device.token}"}),
    ):
        assert answer.status_code == 401
        assert device.token not in answer.text
    log = await asyncio.to_thread(shared_core.log_path.read_text)
    assert device.token not in log


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("DELETE", "/api/v2/write", 405),
        ("GET", "/api/v1/token/telemetry", 405),
        ("GET", "/ping", 204),
        ("POST", "/api/v1/token", 404),
    ],
)
async def test_what_is_not_served_is_said_so(http_device: HttpDevice, method: str, path: str, status: int) -> None:
    assert (await http_device.ask(method, path)).status_code == status


async def test_a_report_waits_for_the_control_plane_and_a_question_is_answered(
    http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    assert (await http_device.api("POST", "attributes", json={"firmware": "2"})).status_code == 200
    select = "select event_type, metadata from event_outbox where device_id = %s"
    await until_in_thread(lambda: database.execute(select, [device.device_id]), "the report is in the outbox")
    assert database.execute(select, [device.device_id]) == [("attributes_reported", {"firmware": "2"})]
    desire(database, device, {"interval": 60, "mode": "eco"})
    everything = await http_device.api("GET", "attributes")
    assert everything.json() == {
        "client": {"firmware": "1.2", "rssi": -70},
        "shared": {"interval": 60, "mode": "eco"},
    }
    some = await http_device.api("GET", "attributes", params={"clientKeys": "rssi,none", "sharedKeys": "mode"})
    assert some.json() == {"client": {"rssi": -70}, "shared": {"mode": "eco"}}


async def test_who_waits_for_updates_is_told_what_is_otherwise(
    http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    desire(database, device, {"interval": 60, "mode": "eco"})
    nothing = await http_device.api("GET", "attributes/updates", params={"timeout": 100})
    assert nothing.status_code == 408
    asked = asyncio.create_task(http_device.api("GET", "attributes/updates", params={"timeout": 20_000}))
    version = 2
    while not asked.done():
        # Whether it waits already cannot be seen: it is changed until it is told.
        await asyncio.to_thread(desire, database, device, {"interval": version, "mode": "eco"}, version)
        version += 1
        await asyncio.sleep(0.1)
    told = (await asked).json()
    assert set(told) == {"interval"}


async def test_who_is_disabled_while_he_waits_for_updates_is_told_nothing(
    shared_core: Core, http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    assert (await http_device.api("GET", "attributes/updates", params={"timeout": 100})).status_code == 408
    asked = asyncio.create_task(http_device.api("GET", "attributes/updates", params={"timeout": 20_000}))
    await asyncio.sleep(0.5)
    database.execute("update devices set is_enabled = false where id = %s", [device.device_id])
    another = HttpDevice.of(shared_core.device_http_port, device)
    for _ in range(1000):
        if (await another.post_json({"a": 1})).status_code == 401:
            break
    desire(database, device, {"password": "new"})
    answer = await asked
    assert (answer.status_code, "password" in answer.text) == (401, False)


async def test_a_device_asks_by_rpc(http_device: HttpDevice) -> None:
    answer = await http_device.api("POST", "rpc", json={"method": "getSessionLimits", "params": {}})
    assert answer.json()["maxPayloadSize"] == 256 << 10
    refused = await http_device.api("POST", "rpc", json={"method": "getWeather"})
    assert refused.json() == {"error": "no method of this name is served here"}
    assert (await http_device.api("POST", "rpc", data=b"{}")).status_code == 400


async def test_a_device_lets_itself_be_claimed(
    http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    code = uuid4().hex
    assert (await http_device.api("POST", "claim", json={"secretKey": code, "durationMs": 60_000})).status_code == 200
    assert (await http_device.api("POST", "claim", json={"secretKey": "short"})).status_code == 400
    select = "select code_hash from device_claims where device_id = %s"
    assert database.execute(select, [device.device_id]) == [(hashlib.sha256(code.upper().encode()).digest(),)]
    database.execute("update device_claims set created_by = gen_random_uuid() where device_id = %s", [device.device_id])
    assert (await http_device.api("POST", "claim", json={"secretKey": code})).status_code == 409


async def test_a_device_without_a_token_is_given_one(
    shared_core: Core, http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    key, secret = add_key(database, device)
    request = {"deviceName": uuid4().hex, "provisionDeviceKey": key, "provisionDeviceSecret": secret}
    wrong = await http_device.ask("POST", "/api/v1/provision", json=request | {"provisionDeviceKey": "no"})
    assert wrong.json() == {"status": "FAILURE", "errorMsg": "not provisioned"}
    answer = (await http_device.ask("POST", "/api/v1/provision", json=request)).json()
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    newcomer = HttpDevice(shared_core.device_http_port, answer["credentialsValue"])
    assert (await newcomer.api("POST", "telemetry", json={"a": 1})).status_code == 200


async def test_json_is_read_as_the_profile_says(
    shared_core: Core, http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    points = [point("power", "W"), point("energy", "kWh")]
    mappings = [mapping("$.em.w", "power"), mapping("$.em.wh", "energy", 0.001)]
    time = {"path": "$.ts", "form": "s"}
    give_profile(database, device, points, {"kind": "json", "items": "$.data", "time": time, "mappings": mappings})
    await until_known(shared_core, database)
    reading = {"ts": 1_767_225_600, "em": {"w": 500, "wh": 1500}, "left": "out"}
    answer = await http_device.post_json({"data": [reading]})
    assert (answer.status_code, answer.content) == (200, b"")
    # Who can set no header has its token in the path; packed or not.
    packed = gzip.compress(json.dumps({"data": [{**reading, "em": {"w": 7}}]}).encode())
    path = f"/hse/v1/json/{device.token}"
    answer = await http_device.ask("POST", path, data=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 200
    rows = await stored(database, device, 3)
    assert [row[:2] for row in rows] == [("energy", 1.5), ("power", 7), ("power", 500)]
    select = "select distinct extract(epoch from time)::int, unit from device_events where device_id = %s order by unit"
    assert database.execute(select, [device.device_id]) == [(1_767_225_600, "W"), (1_767_225_600, "kWh")]
    refused = await http_device.post_json({"data": [{"ts": 1, "other": 1}]})
    assert (refused.status_code, refused.json()["message"]) == (
        400,
        "kept as a dead letter: nothing that the profile maps",
    )
    ((code, reason, _),) = await dead_letters(database, device, 1)
    assert (code, reason) == ("bad_payload", "nothing that the profile maps")


async def test_senml_is_read_where_the_profile_says_so(
    shared_core: Core, http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    give_profile(database, device, [point("m:temp", "Cel")], {"kind": "senml"})
    await until_known(shared_core, database)
    pack = [{"bn": "m:", "bt": 1_767_225_600, "n": "temp", "u": "Cel", "v": 21.5}]
    assert (await http_device.post_json(pack)).status_code == 200
    assert [row[:2] for row in await stored(database, device, 1)] == [("m:temp", 21.5)]


async def test_json_without_a_profile_is_an_object_of_values(
    shared_core: Core, http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    assert (await http_device.post_json({"temperature": 21.5})).status_code == 200
    assert [row[:2] for row in await stored(database, device, 1)] == [("temperature", 21.5)]
    stranger = HttpDevice(shared_core.device_http_port, "nobody")
    assert (await stranger.post_json({"a": 1})).status_code == 401
    assert (await stranger.ask("POST", "/hse/v1/json/", json={"a": 1})).status_code == 401
    assert (await http_device.ask("POST", "/hse/v1/json", json={"a": 1})).status_code == 401
    assert (await http_device.ask("GET", "/hse/v1/json")).status_code == 405


LINES = "cpu,host=a usage=1.5,cores=4i 1767225600000000000\nmem,host=a free=2 1767225600000000000\n"


async def test_lines_that_were_answered_are_stored(
    http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    plain = await http_device.write(LINES, params={"org": "o", "bucket": "b"})
    assert (plain.status_code, plain.content) == (204, b"")
    packed = gzip.compress(b"disk,host=a used=7 1767225600")
    headers = {"Content-Encoding": "gzip"}
    assert (await http_device.write(packed, headers=headers, params={"precision": "s"})).status_code == 204
    rows = await stored(database, device, 4)
    assert [row[:2] for row in rows] == [("cpu.cores", 4), ("cpu.usage", 1.5), ("disk.used", 7), ("mem.free", 2)]
    assert {json.dumps(row[2]) for row in rows} == {'{"host": "a"}'}
    select = "select distinct extract(epoch from time)::int from device_events where device_id = %s"
    assert database.execute(select, [device.device_id]) == [(1_767_225_600,)]


async def test_a_line_that_cannot_be_read_is_kept_and_the_others_are_stored(
    http_device: HttpDevice, database: Database, device: Credentials
) -> None:
    assert (await http_device.write("ok value=1\nno fields\n")).status_code == 204
    assert [row[:2] for row in await stored(database, device, 1)] == [("ok", 1)]
    ((code, reason, _),) = await dead_letters(database, device, 1)
    assert (code, reason) == ("bad_payload", "a field without a value")
    refused = await http_device.write("no fields")
    assert (refused.status_code, refused.json()["message"]) == (400, "kept as a dead letter: bad_payload")


async def test_what_is_too_much_at_a_time_is_refused(http_device: HttpDevice) -> None:
    many = "\n".join(f"m f={number}" for number in range(10_001))
    for options, status in (
        ({"lines": many}, 413),
        ({"lines": b"x" * (300 << 10)}, 413),
        ({"lines": gzip.compress(b"x" * (10 << 20)), "headers": {"Content-Encoding": "gzip"}}, 413),
        ({"lines": b"no gzip", "headers": {"Content-Encoding": "gzip"}}, 400),
        ({"lines": b"x", "headers": {"Content-Encoding": "br"}}, 415),
        ({"lines": b"a value=1", "params": {"precision": "h"}}, 400),
        ({"lines": b"", "headers": {}}, 204),
    ):
        answer = await http_device.write(**options)
        assert answer.status_code == status, (status, answer.text)


async def test_a_stranger_may_say_little_and_answers_are_counted(shared_core: Core, http_device: HttpDevice) -> None:
    before = await asyncio.to_thread(shared_core.metric, "http_answers_total")
    large = await http_device.ask("POST", "/api/v1/provision", data=b"x" * 5000)
    assert large.status_code == 413
    assert await asyncio.to_thread(shared_core.metric, "http_answers_total") == before + 1


async def test_a_refusal_is_heard_however_much_was_on_its_way(shared_core: Core, http_device: HttpDevice) -> None:
    stranger = HttpDevice(shared_core.device_http_port, "nobody")
    for _ in range(5):
        for size in (1 << 20, 3 << 20):
            data = b"x" * size
            assert (await stranger.write(data)).status_code == 401
            assert (await http_device.write(data)).status_code == 413
            assert (await http_device.ask("POST", "/nowhere", data=data)).status_code == 404


async def test_http_is_served_over_tls(shared_core: Core, device: Credentials) -> None:
    url = f"https://127.0.0.1:{shared_core.device_http_tls_port}/api/v1/{device.token}/telemetry"
    authority = str(shared_core.settings["tls_certificate_path"])
    answer = await asyncio.to_thread(requests.post, url, json={"a": 1}, verify=authority, timeout=30)
    assert answer.status_code == 200


async def test_a_connection_that_says_nothing_is_closed(new_core: NewCore) -> None:
    core = new_core(keepalive_s=1)
    await core.started()
    reader, writer = await asyncio.open_connection("127.0.0.1", core.device_http_port)
    async with asyncio.timeout(20):
        writer.write(b"POST /api/v2/write HTTP/1.1\r\nHost: a\r\n")
        assert (await reader.read()).split(b"\r\n")[0] in (b"", b"HTTP/1.1 408 Request Timeout")
    writer.close()


async def test_who_asks_on_and_on_and_never_reads_is_closed(new_core: NewCore) -> None:
    core = new_core(keepalive_s=1)
    await core.started()
    _, writer = await asyncio.open_connection("127.0.0.1", core.device_http_port, limit=1024)

    async def ask_on() -> None:
        for _ in range(1000):
            writer.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
            await writer.drain()

    async with asyncio.timeout(30):
        # Until what the system holds between both is full, and then until the core has had enough.
        with pytest.raises(ConnectionError):
            await ask_on()
    writer.close()


async def test_a_body_that_does_not_come_in_time_is_asked_for_again(new_core: NewCore, device: Credentials) -> None:
    """Telegraf lets go of what is answered with 408."""
    core = new_core(keepalive_s=1)
    await core.started()
    reader, writer = await asyncio.open_connection("127.0.0.1", core.device_http_port)
    async with asyncio.timeout(20):
        head = f"POST /api/v2/write HTTP/1.1\r\nHost: a\r\nAuthorization: Token {device.token}\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode() + b"a value")
        assert await reader.readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    writer.close()


@pytest.mark.timeout(180)
async def test_a_core_killed_between_request_and_answer_stores_what_it_answered(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    core = new_core(batch_age_ms_max=200)
    answered: set[int] = set()
    asked = 0
    for _ in range(NUM_KILLS):
        await core.started()

        async def write_until_it_ends(worker: int) -> None:
            nonlocal asked
            http_device = HttpDevice.of(core.device_http_port, device)
            while True:
                asked += 1
                value = asked
                lines = f"t value={value}" if worker % 2 else json.dumps({"t": value})
                try:
                    if worker % 2:
                        answer = await http_device.write(lines)
                    else:
                        answer = await http_device.api("POST", "telemetry", data=lines)
                except requests.RequestException:
                    return
                assert answer.status_code in (200, 204), answer.text
                answered.add(value)

        workers = [asyncio.create_task(write_until_it_ends(worker)) for worker in range(4)]
        wanted = len(answered) + 20
        await until(lambda: len(answered) >= wanted, "requests are answered", seconds=30)  # noqa: B023
        await core.kill()
        await asyncio.gather(*workers)
    await core.started()
    await until_in_thread(lambda: core.metric("journal_bytes") == 0, "all is drained", seconds=60)
    assert await core.stop() == 0
    select = "select value::int, count(*) from device_events where device_id = %s group by value"
    counts = {int(str(value)): int(str(count)) for value, count in database.execute(select, [device.device_id])}
    assert len(answered) >= 20 * NUM_KILLS
    assert {counts.get(value) for value in answered} == {1}
