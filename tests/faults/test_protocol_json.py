"""PROTOCOL.md, rule by rule: what only JSON lines can say, right and wrong."""

import re
import time

import pytest

from tests.faults.core import Core
from tests.faults.ways import Way
from tests.faults.wire import Credentials, encode_line

LINE_BYTES_MAX = 64 << 10


@pytest.fixture
def lines(shared_core: Core) -> Way:
    return Way(shared_core, "json")


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
