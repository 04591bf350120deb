"""MQTT within WebSocket: the same conversation, wherever messages cut it, under the same limits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiomqtt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.faults.certificates import trusting
from tests.faults.conditions import until
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.mqtt import EVENTS, VERSIONS, MqttPeer, connect_packet, event, packet, publish_packet, stored, text
from tests.faults.wire import Credentials

both_versions = pytest.mark.parametrize("version", VERSIONS)
MQTT = Subprotocol("mqtt")
PAYLOAD = b'{"type": "temperature", "value": 1}'


@contextlib.asynccontextmanager
async def opened(core: Core, *subprotocols: Subprotocol) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket on the path of MQTT."""
    url = f"ws://127.0.0.1:{core.ws_port}/mqtt"
    async with connect(url, subprotocols=subprotocols or None, proxy=None, ping_interval=None) as connection:
        yield connection


async def rest(connection: ClientConnection) -> bytes:
    """Return what comes until the other side closes."""
    heard = b""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(15):
            while True:
                message = await connection.recv()
                assert isinstance(message, bytes)
                heard += message
    return heard


async def publishes_and_is_heard(peer: MqttPeer, database: Database, device: Credentials) -> None:
    """Publish twenty events, which are acknowledged and stored, and hear commands."""
    await peer.joined(device)
    for value in range(1, 21):
        peer.publish(event(value, metadata={"padding": "x" * 4000}))
    await until(lambda: len(peer.pubacks) == 20, "all are acknowledged")
    assert await peer.subscribed() == 1
    assert [row[1] for row in await stored(database, device, 20)] == list(range(1, 21))


@both_versions
async def test_paho_publishes_and_is_acknowledged(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    async with MqttPeer(shared_core.ws_port, version, transport="websockets") as peer:
        await publishes_and_is_heard(peer, database, device)


@both_versions
async def test_paho_publishes_within_tls_and_hears_its_commands(
    shared_core: Core, database: Database, device: Credentials, version: str
) -> None:
    async with MqttPeer(shared_core.wss_port, version, transport="websockets") as peer:
        peer.client.tls_set_context(trusting(shared_core.data_dir.parent))
        await publishes_and_is_heard(peer, database, device)


async def test_aiomqtt_publishes_and_is_acknowledged(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    client = aiomqtt.Client(
        "127.0.0.1",
        shared_core.ws_port,
        username=str(device.device_id),
        password=device.token,
        transport="websockets",
        websocket_path="/mqtt",
    )
    async with client:
        await client.publish(EVENTS, PAYLOAD, qos=1)
    assert len(await stored(database, device, 1)) == 1


@pytest.mark.parametrize("num_bytes", [1, 7, 1000])
async def test_messages_may_cut_packets_anywhere(
    shared_core: Core, database: Database, device: Credentials, num_bytes: int
) -> None:
    said = connect_packet(device) + publish_packet(1, PAYLOAD) + publish_packet(2, PAYLOAD) + packet(0xE0)
    async with opened(shared_core, MQTT) as connection:
        assert connection.subprotocol == "mqtt"
        for start in range(0, len(said), num_bytes):
            await connection.send(said[start : start + num_bytes])
        assert await rest(connection) == b"\x20\x02\0\0" + b"\x40\x02\0\x01" + b"\x40\x02\0\x02"
        assert connection.close_code == 1000
    assert len(await stored(database, device, 2)) == 2


@pytest.mark.parametrize("subprotocols", [(), (Subprotocol("mqttv3.1"),)], ids=["none", "another"])
async def test_who_does_not_offer_mqtt_is_refused(shared_core: Core, subprotocols: tuple[Subprotocol, ...]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(shared_core, *subprotocols):
            raise AssertionError("it is let in")
    assert refused.value.response.status_code == 400


async def test_text_is_refused_and_version_5_told_so(
    shared_core: Core, database: Database, device: Credentials
) -> None:
    async with opened(shared_core, MQTT) as connection:
        await connection.send(connect_packet(device, level=5) + publish_packet(1, PAYLOAD, level=5))
        assert await asyncio.wait_for(connection.recv(), 10)
        await connection.send("text")
        told = await rest(connection)
        assert told[:4] == b"\x40\x02\0\x01"
        assert (told[4], told[6]) == (0xE0, 0x81)
    async with opened(shared_core, MQTT) as stranger:
        await stranger.send("text")
        assert await rest(stranger) == b""
    assert len(await stored(database, device, 1)) == 1


async def test_limits_are_those_of_any_mqtt_connection(new_core: NewCore, device: Credentials) -> None:
    core = new_core(hello_timeout_s=1)
    await core.started()
    async with opened(core, MQTT) as silent, opened(core, MQTT) as large:
        await large.send(b"\x10\xff\x7f" + text("MQTT"))
        assert await rest(large) == b""
        assert await rest(silent) == b""
    async with opened(core, MQTT) as connection:
        await connection.send(connect_packet(device, level=5))
        assert await asyncio.wait_for(connection.recv(), 10)
        await connection.send(b"\x30\xff\xff\xff\x7f")
        assert (await rest(connection))[0:3:2] == b"\xe0\x95"


async def test_a_device_is_taken_over_from_one_transport_to_the_other(shared_core: Core, device: Credentials) -> None:
    async with (
        MqttPeer(shared_core.mqtt_port) as first,
        MqttPeer(shared_core.ws_port, transport="websockets") as second,
        MqttPeer(shared_core.mqtt_port) as third,
    ):
        for older, newer in ((None, first), (first, second), (second, third)):
            await newer.joined(device)
            if older is not None:
                await until(lambda older=older: older.ends, "the older connection ends")  # type: ignore[misc]
                assert older.ends[0].getName() == "Session taken over"
