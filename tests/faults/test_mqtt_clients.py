"""Clients that people have: aiomqtt, and the commands of Mosquitto. They are given a host, a user name and a password."""

import asyncio
import json
import re

import aiomqtt
import pytest

from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mosquitto import mosquitto, with_mosquitto
from tests.faults.mqtt import EVENTS, event, stored
from tests.faults.wire import Credentials

VERSIONS = {"3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}
both_versions = pytest.mark.parametrize("version", VERSIONS)
NUM_LINES = 200


def client_of(core: Core, device: Credentials, version: str, *, password: str | None = None) -> aiomqtt.Client:
    """Return a client that is not connected yet."""
    return aiomqtt.Client(
        "127.0.0.1",
        core.mqtt_port,
        username=str(device.device_id),
        password=password or device.token,
        protocol=VERSIONS[version],
        timeout=15,
    )


def values(rows: list[tuple[object, ...]]) -> list[float]:
    """Return the values of events, ascending."""
    return sorted(float(str(row[1])) for row in rows)


@both_versions
async def test_aiomqtt_publishes_and_is_acknowledged(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    async with client_of(shared_core, device, version) as client:
        await client.publish(EVENTS, json.dumps(event(1)), qos=1)
        async with asyncio.TaskGroup() as group:
            for value in range(2, 52):
                group.create_task(client.publish(EVENTS, json.dumps(event(value)), qos=1))
        await client.subscribe("hse/v1/commands/+", qos=1)
        await client.unsubscribe("hse/v1/commands/+")
    assert values(await stored(database, device, 51)) == list(map(float, range(1, 52)))


@both_versions
async def test_aiomqtt_hears_that_it_is_not_let_in(shared_core: Core, device: Credentials, version: str) -> None:
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)bad user name or password"):
        async with client_of(shared_core, device, version, password="no"):
            raise AssertionError("it is let in")


@both_versions
@with_mosquitto
async def test_mosquitto_pub_publishes_and_is_acknowledged(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    done = await mosquitto("pub", shared_core, device, version, "-t", EVENTS, "-m", json.dumps(event(7, unit="C")))
    assert (done.returncode, done.said) == (0, b"")
    assert [row[1:] for row in await stored(database, device, 1)] == [(7.0, "C", "mqtt")]


@both_versions
@with_mosquitto
async def test_mosquitto_pub_sends_every_line_that_it_is_given(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    lines = b"".join(json.dumps(event(value)).encode() + b"\n" for value in range(NUM_LINES))
    done = await mosquitto("pub", shared_core, device, version, "-t", EVENTS, "-l", lines=lines)
    assert (done.returncode, done.said) == (0, b"")
    assert values(await stored(database, device, NUM_LINES)) == list(map(float, range(NUM_LINES)))


@with_mosquitto
async def test_mosquitto_pub_publishes_over_tls(shared_core: Core, database: Database, device: Credentials) -> None:
    certificate = shared_core.settings["tls_certificate_path"]
    done = await mosquitto(
        *("pub", shared_core, device, "5", "-t", EVENTS, "-m", json.dumps(event(7)), "--cafile", str(certificate)),
        port=shared_core.mqtt_tls_port,
    )
    assert (done.returncode, done.said) == (0, b"")
    assert len(await stored(database, device, 1)) == 1


@both_versions
@with_mosquitto
async def test_mosquitto_pub_says_why_it_is_not_let_in(shared_core: Core, device: Credentials, version: str) -> None:
    stranger = Credentials(device.device_id, "no")
    done = await mosquitto("pub", shared_core, stranger, version, "-t", EVENTS, "-m", json.dumps(event(7)))
    assert done.returncode != 0
    assert re.search(rb"(?i)not authori[sz]ed|bad user name or password", done.said), done.said
