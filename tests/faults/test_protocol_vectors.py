"""The golden vectors that refuse something, sent to a running core: what its codec says, the whole core says, by any way."""

import json
from pathlib import Path

import msgpack
import pytest

from tests.faults.core import Core
from tests.faults.ways import Way
from tests.faults.wire import HEADER, Credentials

VECTORS = Path(__file__).parents[1] / "vectors"
HELLO = 0x01


def vectors(name: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return found


def of_a_device(vector: dict[str, str]) -> bool:
    return vector["sender"] == "device"


def without_a_clock(vector: dict[str, str]) -> bool:
    """Say whether no event of a vector has a time of its own, which only the vector's clock could judge."""
    _, events = msgpack.unpackb(bytes.fromhex(vector["hex"])[HEADER.size :], strict_map_key=False)
    return all(event[0] is None for event in events)


MALFORMED = list(filter(of_a_device, vectors("malformed.json")))
REJECTED = list(filter(without_a_clock, vectors("rejected.json")))


@pytest.fixture(params=["tcp", "ws"])
def way(request: pytest.FixtureRequest, shared_core: Core) -> Way:
    return Way(shared_core, "frames", request.param)


@pytest.mark.parametrize("vector", MALFORMED, ids=[vector["name"] for vector in MALFORMED])
async def test_a_vector_that_cannot_be_taken_is_answered_with_its_error(
    vector: dict[str, str], way: Way, device: Credentials
) -> None:
    data = bytes.fromhex(vector["hex"])
    is_hello = data[4:5] == bytes([HELLO])
    peer = await (way.dial() if is_hello else way.join(device))
    await peer.send_bytes(data)
    assert await peer.refused() == vector["error"]


@pytest.mark.parametrize("vector", REJECTED, ids=[vector["name"] for vector in REJECTED])
async def test_a_vector_with_a_verdict_is_acknowledged_with_it(
    vector: dict[str, str], way: Way, device: Credentials
) -> None:
    data = bytes.fromhex(vector["hex"])
    first_seq, events = msgpack.unpackb(data[HEADER.size :], strict_map_key=False)
    assert len(events) == 1
    peer = await way.join(device)
    await peer.send_bytes(data)
    ack = await peer.receive()
    assert (ack.name, ack["seq"]) == ("ack", first_seq)
    assert ack.rejected() == ([(first_seq, vector["code"])] if vector["code"] else [])
    await peer.close()
