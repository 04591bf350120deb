"""PROTOCOL.md, rule by rule: what only frames can say, right and wrong."""

from uuid import UUID

import msgpack
import pytest

from tests.faults.conditions import until_in_thread
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.ways import Way
from tests.faults.wire import HEADER, Credentials, frame

FRAME_BYTES_MAX = 256 << 10  # as `Core` sets it


@pytest.fixture
def frames(shared_core: Core) -> Way:
    return Way(shared_core, "frames")


def body(*values: object) -> bytes:
    return bytes(msgpack.packb(list(values)))


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
