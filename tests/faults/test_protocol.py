"""PROTOCOL.md, rule by rule, over real sockets: frames and JSON lines, plain and inside TLS."""

import re
import ssl
import time
from uuid import UUID, uuid4

import msgpack
import pytest

from tests.faults.certificates import trusting
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import knows
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.wire import HEADER, MESSAGES, Credentials, Form, Message, Peer, encode_line, frame

FRAME_BYTES_MAX = 256 << 10  # as `Core` sets it
LINE_BYTES_MAX = 64 << 10


class Way:
    """One transport with one form."""

    def __init__(self, core: Core, form: Form, *, is_tls: bool) -> None:
        self.core = core
        self.form = form
        self.tls = trusting(core.data_dir.parent) if is_tls else None
        self.port = core.tls_port if is_tls else core.port

    async def dial(self) -> Peer:
        return await Peer.dial(self.port, self.form, self.tls)

    async def join(self, device: Credentials, epoch: int = 1) -> Peer:
        return await Peer.join(self.port, device, epoch=epoch, form=self.form, tls=self.tls)


@pytest.fixture(params=["tcp-frames", "tcp-json", "tls-frames", "tls-json"])
def way(request: pytest.FixtureRequest, shared_core: Core) -> Way:
    transport, form = request.param.split("-")
    return Way(shared_core, "frames" if form == "frames" else "json", is_tls=transport == "tls")


@pytest.fixture
def frames(shared_core: Core) -> Way:
    return Way(shared_core, "frames", is_tls=False)


@pytest.fixture
def lines(shared_core: Core) -> Way:
    return Way(shared_core, "json", is_tls=False)


def body(*values: object) -> bytes:
    return bytes(msgpack.packb(list(values)))


# --- every form and transport ---


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
    assert await peer.acked(1, {"type": "temperature", "value": 21.5, "unit": "C"})
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
    for name, fields in {
        "ping": {"nonce": 1},
        "bye": {},
        "events": {"first_seq": 1, "events": [{"type": "t"}]},
        "result": {"request_id": "r", "status": 0},
    }.items():
        peer = await way.dial()
        await peer.send(name, **fields)
        assert await peer.refused() == "malformed"


async def test_what_the_core_sends_is_malformed_when_a_device_sends_it(way: Way, device: Credentials) -> None:
    for name, fields in {
        "ack": {"seq": 1},
        "pong": {"nonce": 1},
        "error": {"code": "internal", "message": ""},
        "busy": {"seq": 1, "retry_after_ms": 1, "reason": ""},
    }.items():
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
    heard = [await peer.receive()]
    while heard[-1]["seq"] != 5 and heard[-1].name == "ack":
        heard.append(await peer.receive())
    seqs = [message["seq"] for message in heard if message.name == "ack"]
    assert seqs[-1] == 5 or heard[-1].name == "pong"
    for byte in peer.encode("ping", nonce=4):
        await peer.send_bytes(bytes([byte]))
    nonces = [message["nonce"] for message in heard if message.name == "pong"]
    while len(nonces) < 2:
        answer = await peer.receive()
        if answer.name == "pong":
            nonces.append(answer["nonce"])
    assert nonces == [3, 4]
    await peer.close()


# --- frames ---


async def test_the_example_of_the_protocol_in_bytes(frames: Way, device: Credentials) -> None:
    peer = await frames.join(device)
    await peer.send_bytes(bytes.fromhex("00 00 00 03 04 91 01"))
    assert await peer.reader.readexactly(7) == bytes.fromhex("00 00 00 03 85 91 01")
    await peer.close()


async def test_a_device_id_may_be_bytes_or_text(frames: Way, device: Credentials) -> None:
    for device_id in (device.device_id.bytes, str(device.device_id), str(device.device_id).upper()):
        peer = await frames.dial()
        await peer.send_bytes(frame(0x01, body(1, device_id, device.token, 1)))
        assert (await peer.receive()).name == "welcome"
        await peer.close()


async def test_elements_left_out_read_as_nil_and_further_ones_are_ignored(
    frames: Way, database: Database, device: Credentials
) -> None:
    peer = await frames.dial()
    future = {"any": ["thing", 1]}
    await peer.send_bytes(frame(0x01, body(1, device.device_id.bytes, device.token, 1, None, future, None, b"x")))
    assert (await peer.receive()).name == "welcome"
    short, long = [None, "short"], [None, "long", 1.0, "u", {"k": 1}, None, future, 7]
    await peer.send_bytes(frame(0x02, body(1, [short, long], future)))
    ack = await peer.receive()
    assert (ack["seq"], ack.rejected()) == (2, [])
    await peer.send_bytes(frame(0x04, body(5, future)))
    assert (await peer.receive())["nonce"] == 5
    await peer.send_bytes(frame(0x05, body(future)))
    assert await peer.everything() == []
    await until_in_thread(lambda: len(database.events_of(device.device_id)) == 2, "both are stored")
    rows = {str(row[1]): row[2:] for row in database.events_of(device.device_id)}
    assert rows == {"short": (None, None, None), "long": (1.0, "u", {"k": 1})}


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


MALFORMED_BODIES: dict[str, tuple[int, bytes]] = {
    "no body": (0x04, b""),
    "not an array": (0x04, b"\x01"),
    "a map": (0x04, b"\x81\x01\x01"),
    "bytes left over": (0x04, b"\x91\x01\x00"),
    "an array that ends early": (0x04, b"\x92\x01"),
    "a nonce that is text": (0x04, body("1")),
    "a nonce that is negative": (0x04, body(-1)),
    "a nonce that is nil": (0x04, body(None)),
    "a nonce left out": (0x04, b"\x90"),
    "the reserved byte": (0x04, b"\x91\xc1"),
    "an unknown kind": (0x06, b"\x90"),
    "kind 0": (0x00, b"\x90"),
    "WELCOME": (0x81, body(1, 0, 64, 1, 1, 60)),
    "too deep": (0x04, b"\x92\x01" + nested(40)),
    "deeper than any stack": (0x04, b"\x92\x01" + nested(200_000)),
    "an array that promises too much": (0x02, b"\x92\x01\xdd\xff\xff\xff\xff"),
    "text that promises too much": (0x02, b"\x92\x01\x91\x92\xc0\xdb\xff\xff\xff\xff"),
    "an event that is a map": (0x02, body(1, [{"type": "t"}])),
    "an event without a type": (0x02, body(1, [[None]])),
    "a type that is nil": (0x02, body(1, [[None, None]])),
    "a type that is bytes": (0x02, body(1, [[None, b"t"]])),
    "a type that is not UTF-8": (0x02, b"\x92\x01\x91\x92\xc0\xa1\xff"),
    "a value that is text": (0x02, body(1, [[None, "t", "1"]])),
    "a unit that is a number": (0x02, body(1, [[None, "t", 1, 1]])),
    "metadata that is text": (0x02, body(1, [[None, "t", 1, "u", "m"]])),
    "a device of 15 bytes": (0x02, body(1, [[None, "t", 1, "u", None, b"x" * 15]])),
    "a time that is a float": (0x02, body(1, [[1.5, "t"]])),
    "events that are a number": (0x02, body(1, 2)),
    "a flaw in the last event": (0x02, body(1, [[None, "t"]] * 99 + [[None, 7]])),
}


@pytest.mark.parametrize(("kind", "malformed"), MALFORMED_BODIES.values(), ids=MALFORMED_BODIES)
async def test_a_frame_that_cannot_be_taken_is_malformed_and_nothing_of_it_is_taken(
    kind: int, malformed: bytes, frames: Way, device: Credentials
) -> None:
    peer = await frames.join(device)
    await peer.send_bytes(frame(kind, malformed))
    assert await peer.refused() == "malformed"
    assert (await frames.join(device)).last_seq == 0


async def test_a_length_of_zero_is_malformed(frames: Way, device: Credentials) -> None:
    peer = await frames.join(device)
    await peer.send_bytes(bytes(4))
    assert await peer.refused() == "malformed"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((1,), id="no device"),
        pytest.param((1, b"x" * 15, "token", 1), id="a device of 15 bytes"),
        pytest.param((1, "no uuid", "token", 1), id="a device that is no uuid"),
        pytest.param((1, UUID(int=1).bytes, b"token", 1), id="a token of bytes"),
        pytest.param((1, UUID(int=1).bytes, "token"), id="no epoch"),
        pytest.param((1, UUID(int=1).bytes, "token", -1), id="a negative epoch"),
        pytest.param(("1", UUID(int=1).bytes, "token", 1), id="a version that is text"),
    ],
)
async def test_a_malformed_hello_is_malformed(fields: tuple[object, ...], frames: Way) -> None:
    peer = await frames.dial()
    await peer.send_bytes(frame(0x01, body(*fields)))
    assert await peer.refused() == "malformed"


async def test_a_frame_may_be_as_long_as_welcome_says_and_not_a_byte_longer(frames: Way, device: Credentials) -> None:
    peer = await frames.join(device)
    await peer.send_bytes(HEADER.pack(FRAME_BYTES_MAX + 1, 0x02))
    assert await peer.refused() == "too_large"
    peer = await frames.join(device)
    events = [[None, "t", None, None, {"k": "x" * 8000}]] * 31
    padding = FRAME_BYTES_MAX - 1 - len(body(1, events, b"x" * 5000)) + 5000
    whole = frame(0x02, body(1, events, b"x" * padding))
    assert len(whole) == FRAME_BYTES_MAX + 4
    await peer.send_bytes(whole)
    assert (await peer.receive())["seq"] == 31
    await peer.close()


async def test_a_hello_may_have_4096_bytes(frames: Way, device: Credentials) -> None:
    base = len(body(1, device.device_id.bytes, device.token, 1, "x" * 300)) - 300
    peer = await frames.dial()
    hello = frame(0x01, body(1, device.device_id.bytes, device.token, 1, "x" * (4095 - base)))
    assert len(hello) == 4096 + 4
    await peer.send_bytes(hello)
    assert (await peer.receive()).name == "welcome"
    await peer.close()
    peer = await frames.dial()
    await peer.send_bytes(HEADER.pack(4097, 0x01))
    assert await peer.refused() == "too_large"


async def test_ten_thousand_events_fit_a_frame(frames: Way, database: Database, device: Credentials) -> None:
    peer = await frames.join(device)
    await peer.acked(1, *[{"type": "t", "value": seq} for seq in range(1, 10_001)])
    count = "select count(*), count(distinct value) from device_events where device_id = %s"
    wanted = [(10_000, 10_000)]
    await until_in_thread(lambda: database.execute(count, [device.device_id]) == wanted, "all are stored once")
    await peer.close()


# --- JSON lines ---


async def test_the_example_of_the_protocol_in_json(lines: Way, device: Credentials) -> None:
    peer = await lines.dial()
    hello = {"version": 1, "device_id": str(device.device_id), "token": device.token, "epoch": 7}
    await peer.send_bytes(encode_line("hello", hello))
    welcome = await peer.reader.readline()
    pattern = (
        rb'\{"welcome": ?\{"version": ?1, ?"last_seq": ?0, ?"max_inflight_frames": ?64, ?"frame_bytes_max": ?\d+, '
        rb'?"server_time_us": ?\d{16}, ?"keepalive_s": ?60\}\}\n'
    )
    assert re.fullmatch(pattern, welcome), welcome
    event = b'{"time_us": %d, "type": "temperature", "value": 21.5, "unit": "C"}' % (time.time_ns() // 1000)
    await peer.send_bytes(b'{"events": {"first_seq": 1, "events": [' + event + b"]}}\n")
    assert (await peer.reader.readline()).replace(b" ", b"") == b'{"ack":{"seq":1}}\n'
    await peer.send_bytes(b'{"events": {"first_seq": 2, "events": [{"type": "", "value": 3}]}}\r\n')
    assert (await peer.reader.readline()).replace(b" ", b"") == b'{"ack":{"seq":2,"rejected":[[2,"bad_type"]]}}\n'
    await peer.close()


MALFORMED_LINES: dict[str, bytes] = {
    "no JSON": b"{hello}",
    "not an object": b"[1]",
    "text": b'"ping"',
    "two keys": b'{"ping": {"nonce": 1}, "bye": {}}',
    "no key": b"{}",
    "an unknown name": b'{"pang": {"nonce": 1}}',
    "upper case": b'{"PING": {"nonce": 1}}',
    "a body that is an array": b'{"ping": [1]}',
    "a missing field": b'{"ping": {}}',
    "a field of a wrong type": b'{"ping": {"nonce": "1"}}',
    "NaN": b'{"events": {"first_seq": 1, "events": [{"type": "t", "value": NaN}]}}',
    "not UTF-8": b'{"events": {"first_seq": 1, "events": [{"type": "\xff"}]}}',
    "half a surrogate": b'{"events": {"first_seq": 1, "events": [{"type": "\\ud800"}]}}',
    "too deep": b'{"events": {"first_seq": 1, "events": [{"type": "t", "metadata": '
    + b'{"k":' * 40
    + b"1"
    + b"}" * 43
    + b"]}}",
    "deeper than any stack": b'{"ping": {"nonce": ' + b"[" * 60_000 + b"}}",
    "something after the object": b'{"ping": {"nonce": 1}} {"ping": {"nonce": 1}}',
}


@pytest.mark.parametrize("line", MALFORMED_LINES.values(), ids=MALFORMED_LINES)
async def test_a_line_that_cannot_be_taken_is_malformed(line: bytes, lines: Way, device: Credentials) -> None:
    peer = await lines.join(device)
    await peer.send_bytes(line + b"\n")
    assert await peer.refused() == "malformed"
    assert (await lines.join(device)).last_seq == 0


async def test_a_line_may_have_64_kib_and_not_more(lines: Way, device: Credentials) -> None:
    peer = await lines.join(device)
    ping = b'{"ping": {"nonce": 1}}'
    await peer.send_bytes(ping + b" " * (LINE_BYTES_MAX - len(ping) - 1) + b"\n")
    assert (await peer.receive()).name == "pong"
    await peer.send_bytes(ping + b" " * (LINE_BYTES_MAX + 1 - len(ping)) + b"\n")
    assert await peer.refused() == "too_large"


# --- TLS ---


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
