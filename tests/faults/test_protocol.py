"""PROTOCOL.md, rule by rule, over real sockets: frames and JSON lines, plain, inside TLS and through WebSocket."""

import ssl
import time
from uuid import uuid4

import pytest

from tests.faults.certificates import trusting
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import knows
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.ways import Way
from tests.faults.wire import MESSAGES, Credentials, Message, Peer, frame

FRAME_BYTES_MAX = 256 << 10  # as `Core` sets it

FROM_DEVICES: dict[str, dict[str, object]] = {
    "ping": {"nonce": 1},
    "bye": {},
    "events": {"first_seq": 1, "events": [{"type": "t"}]},
    "result": {"request_id": "r", "status": 0},
}
FROM_THE_CORE: dict[str, dict[str, object]] = {
    "ack": {"seq": 1},
    "pong": {"nonce": 1},
    "error": {"code": "internal", "message": ""},
    "busy": {"seq": 1, "retry_after_ms": 1, "reason": ""},
}


@pytest.fixture(params=["tcp-frames", "tcp-json", "tls-frames", "tls-json", "ws-frames", "ws-json", "wss-frames"])
def way(request: pytest.FixtureRequest, shared_core: Core) -> Way:
    transport, form = request.param.split("-")
    return Way(shared_core, "frames" if form == "frames" else "json", transport)


async def test_welcome_says_what_the_protocol_lists(way: Way, device: Credentials) -> None:
    peer = await way.dial()
    before = time.time_ns() // 1000
    welcome = await peer.ask("hello", **device.hello(), agent="test 1.0")
    assert welcome.name == "welcome"
    assert set(welcome.fields) == set(MESSAGES["welcome"][1])
    assert before <= welcome.number("server_time_us") <= time.time_ns() // 1000
    del welcome.fields["server_time_us"]
    expected = {
        "version": 1,
        "last_seq": 0,
        "max_inflight_frames": 64,
        "frame_bytes_max": FRAME_BYTES_MAX,
        "keepalive_s": 60,
    }
    assert welcome.fields == expected
    await peer.close()


async def test_a_ping_is_answered_with_its_nonce(way: Way, device: Credentials) -> None:
    peer = await way.join(device)
    for nonce in (0, 1, 127, 128, 2**32, 2**53, 2**64 - 1):
        assert await peer.ask("ping", nonce=nonce) == Message("pong", {"nonce": nonce})
    await peer.close()


async def test_events_are_acknowledged_with_what_was_rejected(way: Way, device: Credentials) -> None:
    peer = await way.join(device)
    assert (await peer.acked(1, {"type": "temperature", "value": 21.5, "unit": "C"})).rejected() == []
    ack = await peer.acked(2, {"type": "", "value": 3})
    assert ack.rejected() == [(2, "bad_type")]
    ack = await peer.acked(3, {"type": "a"}, {"type": "b", "unit": "x" * 21}, {"type": "c"}, {"type": "d\n"})
    assert ack.rejected() == [(4, "bad_unit"), (6, "bad_type")]
    await peer.close()


async def test_values_arrive_in_the_table_as_they_were_sent(way: Way, database: Database, device: Credentials) -> None:
    peer = await way.join(device)
    start = time.time_ns() // 1000
    base = start - 60_000_000
    metadata = {"text": "ñ \U0001f321", "list": [1, 2.5, None, True], "map": {"deep": {"er": -1}}}
    await peer.acked(
        1,
        {"time_us": base + 1, "type": "integer", "value": 7},
        {"time_us": base + 2, "type": "negative", "value": -(2**40)},
        {"time_us": base + 3, "type": "float", "value": 0.1},
        {"time_us": base + 4, "type": "true", "value": True},
        {"time_us": base + 5, "type": "false", "value": False},
        {"time_us": base + 6, "type": "nothing"},
        {"time_us": base + 7, "type": "full", "value": 1, "unit": "kWh", "metadata": metadata},
        {"type": "now", "value": 1},
    )
    end = time.time_ns() // 1000
    await until_in_thread(lambda: len(database.events_of(device.device_id)) >= 8, "all events are stored")
    *timed, now = database.events_of(device.device_id)
    assert timed == [
        (base + 1, "integer", 7.0, None, None),
        (base + 2, "negative", -(2.0**40), None, None),
        (base + 3, "float", 0.1, None, None),
        (base + 4, "true", 1.0, None, None),
        (base + 5, "false", 0.0, None, None),
        (base + 6, "nothing", None, None, None),
        (base + 7, "full", 1.0, "kWh", metadata),
    ]
    assert isinstance(now[0], int)
    assert start <= now[0] <= end
    await peer.close()


async def test_every_rejected_event_has_the_code_of_its_fault(
    way: Way, database: Database, device: Credentials
) -> None:
    child = database.add_devices(1, gateway=device)[0]
    foreign = database.add_devices(1)[0]
    await knows(way.core, foreign)
    peer = await way.join(device)
    ack = await peer.acked(
        1,
        {"type": "x" * 51},
        {"type": "t", "unit": "x" * 21},
        {"type": "t", "metadata": {"k": "\0"}},
        {"type": "t", "time_us": time.time_ns() // 1000 + 25 * 3600 * 1_000_000},
        {"type": "t", "device_id": uuid4()},
        {"type": "t", "device_id": foreign.device_id},
        {"type": "t", "device_id": child.device_id},
    )
    codes = ["bad_type", "bad_unit", "bad_metadata", "bad_time", "unknown_device", "forbidden_device"]
    assert ack.rejected() == list(enumerate(codes, start=1))
    await until_in_thread(lambda: database.events_of(child.device_id), "the child's event is stored")
    letters = database.dead_letters_of(device.device_id)
    assert [row[:3] for row in letters] == [(1, seq, code) for seq, code in enumerate(codes, start=1)]
    await peer.close()


@pytest.mark.parametrize("mistake", ["unknown device", "wrong token", "empty token", "disabled", "no token of its own"])
async def test_authentication_fails_with_one_answer_for_all(
    mistake: str, way: Way, database: Database, device: Credentials
) -> None:
    who = {
        "unknown device": Credentials(uuid4(), device.token),
        "wrong token": Credentials(device.device_id, device.token[:-1] + "!"),
        "empty token": Credentials(device.device_id, ""),
        "disabled": device,
        "no token of its own": device,
    }[mistake]
    if mistake == "disabled":
        database.execute("update devices set is_enabled = false where id = %s", [device.device_id])
    elif mistake == "no token of its own":
        database.execute("update devices set token_hash = null where id = %s", [device.device_id])
    answers = []

    async def is_refused() -> bool:
        peer = await way.dial()
        answers.append(await peer.ask("hello", **who.hello()))
        if answers[-1].name == "error":
            await peer.ended()
        await peer.close()
        return answers[-1].name == "error"

    deadline = time.monotonic() + 2
    while not await is_refused():
        assert time.monotonic() < deadline, answers[-1]
    stranger = await way.dial()
    usual = await stranger.ask("hello", **Credentials(uuid4(), "x").hello())
    assert answers[-1] == usual
    assert usual["code"] == "auth_failed"
    await stranger.close()


async def test_another_version_is_unsupported(way: Way, device: Credentials) -> None:
    for version in (0, 2):
        peer = await way.dial()
        await peer.send("hello", **(device.hello() | {"version": version}))
        assert await peer.refused() == "unsupported_version"


async def test_only_hello_is_taken_before_welcome(way: Way) -> None:
    for name, fields in FROM_DEVICES.items():
        peer = await way.dial()
        await peer.send(name, **fields)
        assert await peer.refused() == "malformed"


async def test_what_the_core_sends_is_malformed_when_a_device_sends_it(way: Way, device: Credentials) -> None:
    for name, fields in FROM_THE_CORE.items():
        peer = await way.join(device)
        await peer.send(name, **fields)
        assert await peer.refused() == "malformed"


@pytest.mark.parametrize(
    ("first_seq", "num_events"), [(0, 1), (1, 0), (1, 10_001)], ids=["sequence 0", "no events", "10 001 events"]
)
async def test_an_events_frame_of_wrong_extent_is_malformed(
    first_seq: int, num_events: int, way: Way, device: Credentials
) -> None:
    peer = await way.join(device)
    # 10 001 events do not fit a JSON line of 64 KiB.
    wanted = {"malformed"} if way.form == "frames" or num_events < 10_000 else {"malformed", "too_large"}
    await peer.send("events", first_seq=first_seq, events=[{"type": "t"}] * num_events)
    assert await peer.refused() in wanted


async def test_bye_ends_the_connection_without_an_error(way: Way, device: Credentials) -> None:
    peer = await way.join(device)
    await peer.acked(1, {"type": "t"})
    await peer.send("bye")
    assert await peer.everything() == []
    await peer.close()


async def test_events_before_a_bye_are_still_answered(way: Way, device: Credentials) -> None:
    peer = await way.join(device)
    await peer.send_bytes(peer.encode("events", first_seq=1, events=[{"type": "t"}]) + peer.encode("bye"))
    assert [(message.name, message["seq"]) for message in await peer.everything()] == [("ack", 1)]
    await peer.close()


async def test_a_result_of_a_command_that_nobody_sent_is_taken(way: Way, device: Credentials) -> None:
    peer = await way.join(device)
    await peer.send("result", request_id="r-1", status=0, message="done", data={"position": 3})
    await peer.send("result", request_id="r-2", status=5)
    assert (await peer.ask("ping", nonce=9)).name == "pong"
    await peer.close()


async def test_a_malformed_frame_leaves_what_was_acknowledged_before_it(
    way: Way, database: Database, device: Credentials
) -> None:
    peer = await way.join(device)
    await peer.acked(1, {"type": "before"})
    await peer.send_bytes(b"{]\n" if way.form == "json" else frame(0x7F, b"\x90"))
    assert await peer.refused() == "malformed"
    assert (await way.join(device)).last_seq == 1
    await until_in_thread(lambda: database.events_of(device.device_id), "the event is stored")


async def test_a_frame_in_pieces_and_frames_in_one_piece_are_the_same(way: Way, device: Credentials) -> None:
    peer = await way.join(device)
    encoded = [peer.encode("events", first_seq=seq, events=[{"type": "t"}]) for seq in range(1, 6)]
    await peer.send_bytes(b"".join(encoded) + peer.encode("ping", nonce=3))
    heard: list[Message] = []
    while Message("pong", {"nonce": 3}) not in heard or not any(message["seq"] == 5 for message in heard):
        heard.append(await peer.receive())
    assert {message.name for message in heard} == {"ack", "pong"}
    await peer.send_in_pieces(peer.encode("ping", nonce=4))
    assert await peer.receive() == Message("pong", {"nonce": 4})
    await peer.close()


async def test_tls_is_spoken_in_both_versions_that_the_protocol_names(shared_core: Core) -> None:
    context = trusting(shared_core.data_dir.parent)

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = context.maximum_version = version
        peer = await Peer.dial(shared_core.tls_port, tls=context)
        tls = peer.writer.get_extra_info("ssl_object")
        assert tls.version() == version.name.replace("_", ".")
        await peer.close()


async def test_plain_bytes_on_the_tls_port_cost_only_that_connection(shared_core: Core, device: Credentials) -> None:
    peer = await Peer.dial(shared_core.tls_port)
    await peer.send("hello", **device.hello())
    # A TLS alert may come, never a frame of HDP.
    assert (await peer.reader.read(1000))[:1] in {b"", b"\x15"}
    await peer.close()
    joined = await Peer.join(shared_core.tls_port, device, tls=trusting(shared_core.data_dir.parent))
    await joined.acked(1, {"type": "t"})
    await joined.close()
