"""A broker that a site keeps, with Mosquitto in its place: what is published there is stored, acknowledged when durable."""

import asyncio
import json
import random
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.broker import PROGRAM, Broker
from tests.faults.certificates import write_authority, write_signed
from tests.faults.conditions import until, until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import SMALL, Core
from tests.faults.database import Database
from tests.faults.mqtt import MqttPeer
from tests.faults.proxy import DatabaseProxy, Wire
from tests.faults.strace import tampering
from tests.faults.test_mqtt import dead_letters
from tests.faults.test_mqtt_formats import TASMOTA, stored
from tests.faults.test_mqtt_promises import FRESH_SECONDS, with_strace
from tests.faults.wire import Credentials

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: no broker to test with")

TOPICS = "site/{device}/telemetry,tele/{device}/+,zigbee2mqtt/#"
NUM_KILLS = 6
NUM_STOPS = 4
# Together twice what the journal holds.
NUM_LARGE = 2500
FRAME_BYTES_MAX = int(str(SMALL["frame_bytes_max"]))


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker of the test's own."""
    made = Broker(tmp_path / "mosquitto")
    await made.start()
    yield made
    made.stop()


@pytest.fixture
def children(database: Database, device: Credentials) -> list[Credentials]:
    """Two children of the test's device, called `0` and `1`."""
    return database.add_devices(2, gateway=device)


def core_of(new_core: NewCore, broker: Broker, gateway: Credentials, **settings: object) -> Core:
    """A core that hears what the broker has."""
    return new_core(
        broker_url=f"mqtt://127.0.0.1:{broker.port}",
        broker_device_id=gateway.device_id,
        broker_topics=TOPICS,
        **settings,
    )


async def heard(core: Core) -> None:
    """Wait until the core has subscribed."""
    said = "topics of the broker are heard"
    await until_in_thread(lambda: said in core.log_path.read_text(), "the broker's topics are heard", seconds=30)


async def listening(new_core: NewCore, broker: Broker, gateway: Credentials, **settings: object) -> Core:
    """A core that has subscribed."""
    core = core_of(new_core, broker, gateway, **settings)
    await core.started()
    await heard(core)
    return core


async def publisher(broker: Broker) -> MqttPeer:
    """Somebody who publishes to the broker."""
    peer = MqttPeer(broker.port, "3.1.1")
    peer.client.max_inflight_messages_set(1000)
    assert await peer.connect(None) == 0
    return peer


async def test_what_is_published_to_a_broker_is_its_devices(
    new_core: NewCore, broker: Broker, database: Database, device: Credentials, children: list[Credentials]
) -> None:
    core = await listening(new_core, broker, device)
    async with await publisher(broker) as peer:
        peer.publish({"power": 7}, "site/0/telemetry")
        peer.publish(TASMOTA, "tele/1/SENSOR")
        peer.publish({"state": "online"}, "zigbee2mqtt/bridge/state")
        peer.publish({"power": 8}, "site/stranger/telemetry")
        peer.publish({"power": 9}, "other/0/telemetry")
        assert [row[:2] for row in await stored(database, children[0], 1)] == [("power", 7)]
        assert {row[0] for row in await stored(database, children[1], 2)} == {"ENERGY.Power", "ENERGY.Total"}
        assert [row[:2] for row in await stored(database, device, 1)] == [("online", 1)]
    ((code, reason, _),) = await dead_letters(database, device, 1)
    assert (code, "stranger" in str(reason)) == ("bad_payload", True)
    assert await core.stop() == 0


async def test_a_publication_that_comes_to_too_much_is_kept_as_it_came_and_holds_up_no_other(
    new_core: NewCore, broker: Broker, database: Database, device: Credentials, children: list[Credentials]
) -> None:
    await listening(new_core, broker, device)
    async with await publisher(broker) as peer:
        peer.publish({"k" * 150: [1] * 9000}, "tele/1/SENSOR")
        peer.publish({"power": 7}, "site/0/telemetry")
        assert [row[:2] for row in await stored(database, children[0], 1)] == [("power", 7)]
    ((code, reason, _),) = await dead_letters(database, children[1], 1)
    assert (code, "more than this node's journal can hold" in str(reason)) == ("bad_payload", True)


async def test_a_publication_larger_than_a_frame_holds_up_no_other(
    new_core: NewCore, broker: Broker, database: Database, device: Credentials, children: list[Credentials]
) -> None:
    """A client that hangs up at such a one is sent it again at every connection."""
    core = await listening(new_core, broker, device)
    async with await publisher(broker) as peer:
        large = peer.publish(b"x" * (FRAME_BYTES_MAX + 1), "tele/1/SENSOR")
        assert await peer.puback(large) == 0
        peer.publish({"power": 7}, "site/0/telemetry")
        assert [row[:2] for row in await stored(database, children[0], 1)] == [("power", 7)]
        assert "nothing is heard" not in core.log_path.read_text()
        # The largest that there may be is kept.
        fixed_and_topic = 5 + 2 + len("tele/1/SENSOR") + 2 + 1
        assert await peer.puback(peer.publish(b"x" * (FRAME_BYTES_MAX - fixed_and_topic), "tele/1/SENSOR")) == 0
        assert [letter[0] for letter in await dead_letters(database, children[1], 1)] == ["bad_payload"]


async def test_a_gateway_that_is_disabled_speaks_through_its_broker_no_more(
    new_core: NewCore, broker: Broker, database: Database, device: Credentials, children: list[Credentials]
) -> None:
    core = await listening(new_core, broker, device)
    assert children
    async with await publisher(broker) as peer:
        peer.publish({"state": "online"}, "zigbee2mqtt/bridge/state")
        await stored(database, device, 1)
        await asyncio.to_thread(
            database.execute, "update devices set is_enabled = false where id = %s", [device.device_id]
        )
        await asyncio.sleep(FRESH_SECONDS)
        peer.publish({"state": "offline"}, "zigbee2mqtt/bridge/state")
        said = "does not exist, or is disabled"
        await until_in_thread(lambda: said in core.log_path.read_text(), "it says so", seconds=30)
    assert len(await stored(database, device, 1)) == 1


async def test_a_broker_that_is_away_is_waited_for(
    new_core: NewCore, broker: Broker, database: Database, device: Credentials, children: list[Credentials]
) -> None:
    broker.stop()
    core = core_of(new_core, broker, device)
    await core.started()
    said = "nothing is heard from the broker"
    await until_in_thread(lambda: said in core.log_path.read_text(), "it says so")
    await broker.start()
    await heard(core)
    async with await publisher(broker) as peer:
        peer.publish({"power": 7}, "site/0/telemetry")
        assert [row[:2] for row in await stored(database, children[0], 1)] == [("power", 7)]


@pytest.mark.timeout(300)
async def test_a_core_killed_between_publication_and_acknowledgement_stores_all_that_the_broker_took(
    new_core: NewCore, broker: Broker, database: Database, device: Credentials, children: list[Credentials]
) -> None:
    """The broker keeps what it was not acknowledged for; so what it took is stored at least once."""
    chance = random.Random("broker")
    core = await listening(new_core, broker, device, batch_age_ms_max=200, node_name="one")
    taken: set[int] = set()
    async with await publisher(broker) as peer:
        for _ in range(NUM_KILLS):
            first = len(taken) + 1
            values = range(first, first + chance.randint(50, 200))
            sent = {value: peer.publish({"power": value}, "site/0/telemetry").mid for value in values}
            wanted = chance.choice(list(sent.values()))
            await until(lambda: wanted in peer.pubacks, "the broker has taken some")  # noqa: B023
            await core.kill()
            await until(lambda: all(mid in peer.pubacks for mid in sent.values()), "the broker has taken all")  # noqa: B023
            taken |= set(sent)
            await core.started()
        last = len(taken) + 1
        await peer.puback(peer.publish({"power": last}, "site/0/telemetry"))
        taken.add(last)
    select = "select count(distinct value) from device_events where device_id = %s"
    found = [(len(taken),)]
    what = "all that the broker took is stored"
    await until_in_thread(lambda: database.execute(select, [children[0].device_id]) == found, what, seconds=60)
    assert await core.stop() == 0
    assert json.dumps(sorted(taken)) == json.dumps(list(range(1, last + 1)))


async def stored_once(database: Database, child: Credentials, count: int) -> None:
    """Wait until so many values of a child are stored, and see that none of them is twice."""
    select = "select count(distinct value), count(*) from device_events where device_id = %s and event_type = 'power'"
    found: list[tuple[object, ...]] = []

    def are_stored() -> bool:
        found[:] = database.execute(select, [child.device_id])
        return found[0][0] == count

    await until_in_thread(are_stored, f"{count} values are stored", seconds=60)
    assert found == [(count, count)]


@pytest.mark.parametrize("is_killed", [False, True], ids=["not killed", "killed"])
async def test_a_full_journal_holds_up_no_acknowledgement_and_doubles_nothing(
    new_core: NewCore,
    broker: Broker,
    database: Database,
    device: Credentials,
    children: list[Credentials],
    is_killed: bool,
) -> None:
    """What is durable is acknowledged while what came next waits for room; so a core that is killed then is not sent it again."""
    async with DatabaseProxy(database.url).listening() as proxy:
        settings = {"database_url": proxy.url, "journal_bytes_max": 4 << 20, "node_name": "one"}
        core = await listening(new_core, broker, device, **settings)
        proxy.cut(Wire.REFUSED)
        proxy.cut_all()
        async with await publisher(broker) as peer:
            for value in range(1, NUM_LARGE + 1):
                peer.publish({"power": value, "words": "x" * 3000}, "site/0/telemetry")
            await until(lambda: len(peer.pubacks) == NUM_LARGE, "the broker has taken all")
            # It is asked every half a second. This broker sends more than it may, which is let go after five.
            await until_in_thread(lambda: core.metric("busy_total") >= 14, "the journal stays full", seconds=30)
            if is_killed:
                await core.kill()
            proxy.cut(Wire.WHOLE)
            if is_killed:
                await core.started()
            await stored_once(database, children[0], NUM_LARGE)
        assert await core.stop() == 0


async def test_a_core_that_stops_as_asked_is_sent_nothing_again(
    new_core: NewCore, broker: Broker, database: Database, device: Credentials, children: list[Credentials]
) -> None:
    core = await listening(new_core, broker, device, node_name="one")
    async with await publisher(broker) as peer:
        num_sent = 0
        for _ in range(NUM_STOPS):
            before = core.metric("mqtt_packets_total")
            sent = []
            for _ in range(1000):
                num_sent += 1
                sent.append(peer.publish({"power": num_sent}, "site/0/telemetry").mid)
            # All are on their way, and some have come.
            await until_in_thread(lambda: core.metric("mqtt_packets_total") > before, "some have come")  # noqa: B023
            assert await core.stop() == 0
            await until(lambda: all(mid in peer.pubacks for mid in sent), "the broker has taken all")  # noqa: B023
            await core.started()
        await stored_once(database, children[0], num_sent)
    assert await core.stop() == 0


@with_strace
async def test_a_broker_keeps_what_the_journal_has_not_written_yet(
    new_core: NewCore,
    broker: Broker,
    database: Database,
    device: Credentials,
    children: list[Credentials],
    tmp_path: Path,
) -> None:
    core = await listening(new_core, broker, device, node_name="one")
    async with await publisher(broker) as peer:
        async with tampering(core.process.pid, tmp_path / "strace", "pwrite64", "delay_enter=3000000"):
            await peer.puback(peer.publish({"power": 7}, "site/0/telemetry"))
            # Time enough for an acknowledgement that does not wait, and less than the write is held up.
            await asyncio.sleep(1)
            await core.kill()
        await core.started()
        assert [row[:2] for row in await stored(database, children[0], 1)] == [("power", 7)]


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker whose certificate an authority of the site's signed, and which lets in who shows one and says a password."""
    home = tmp_path / "mosquitto"
    home.mkdir()
    authority = write_authority(home)
    certificate, key = write_signed(home, "server", "subjectAltName=IP:127.0.0.1", "extendedKeyUsage=serverAuth")
    write_signed(home, "client", "extendedKeyUsage=clientAuth")
    passwords = home / "passwords"
    passwords.touch(mode=0o600)
    command = ["mosquitto_passwd", "-b", str(passwords), "hse", "p@ss:word"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    tls = (f"cafile {authority}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true")
    made = Broker(home, *tls, "allow_anonymous false", f"password_file {passwords}")
    await made.start()
    yield made
    made.stop()


def secured_settings(home: Path, broker: Broker, gateway: Credentials) -> dict[str, object]:
    """What lets a core in."""
    return {
        "broker_url": f"mqtts://hse:p%40ss%3Aword@127.0.0.1:{broker.port}",
        "broker_authority_path": home / "ca.pem",
        "broker_client_certificate_path": home / "client.pem",
        "broker_client_key_path": home / "client-key.pem",
        "broker_device_id": gateway.device_id,
        "broker_topics": TOPICS,
    }


async def test_a_broker_is_known_by_the_site_s_authority_and_knows_us_by_certificate_and_password(
    new_core: NewCore,
    secured: Broker,
    database: Database,
    device: Credentials,
    children: list[Credentials],
    tmp_path: Path,
) -> None:
    home = tmp_path / "mosquitto"
    core = new_core(**secured_settings(home, secured, device))
    await core.started()
    await heard(core)
    context = ssl.create_default_context(cafile=str(home / "ca.pem"))
    context.load_cert_chain(home / "client.pem", home / "client-key.pem")
    peer = MqttPeer(secured.port, "3.1.1")
    peer.client.tls_set_context(context)
    async with peer:
        assert await peer.connect("hse", "p@ss:word") == 0
        peer.publish({"power": 7}, "site/0/telemetry")
        assert [row[:2] for row in await stored(database, children[0], 1)] == [("power", 7)]
    log = core.log_path.read_text()
    assert not [word for word in ("p@ss", "p%40ss", "nothing is heard") if word in log]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"broker_authority_path": "other/ca.pem"}, "invalid peer certificate: BadSignature"),
        ({"broker_authority_path": None}, "invalid peer certificate: UnknownIssuer"),
        ({"broker_client_certificate_path": None, "broker_client_key_path": None}, "CertificateRequired"),
        ({"broker_url": "mqtts://hse:wrong@127.0.0.1:{port}"}, "NotAuthorized"),
        ({"broker_url": "mqtts://hse:p%40ss%3Aword@localhost:{port}"}, "certificate not valid for name"),
    ],
    ids=["another authority", "no authority", "no certificate", "wrong password", "another name"],
)
async def test_who_a_broker_is_or_we_are_not_is_said(
    new_core: NewCore,
    secured: Broker,
    device: Credentials,
    tmp_path: Path,
    change: dict[str, str | None],
    said: str,
) -> None:
    home = tmp_path / "mosquitto"
    (home / "other").mkdir()
    write_authority(home / "other")
    settings = secured_settings(home, secured, device)
    for name, value in change.items():
        del settings[name]
        if value is not None:
            settings[name] = home / value if name.endswith("_path") else value.format(port=secured.port)
    core = new_core(**settings)
    await core.started()
    await until_in_thread(lambda: said in core.log_path.read_text(), "it says why", seconds=30)
    log = core.log_path.read_text()
    assert "nothing is heard from the broker" in log
    assert "topics of the broker are heard" not in log


async def test_a_broker_s_settings_that_are_none_end_the_start(new_core: NewCore, device: Credentials) -> None:
    for settings in (
        {"broker_topics": "a/+b", "broker_device_id": device.device_id},
        {"broker_topics": "a/{device}"},
        {"broker_device_id": device.device_id},
        # Neither is of any use without TLS.
        {"broker_device_id": device.device_id, "broker_topics": "a", "broker_authority_path": __file__},
    ):
        core = new_core(broker_url="mqtt://user:secret-word@127.0.0.1:1", **settings)
        core.start()
        assert await core.ended() != 0
        log = core.log_path.read_text()
        assert "broker_" in log
        assert "secret-word" not in log
