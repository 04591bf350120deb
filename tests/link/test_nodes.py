"""Where the nodes and the devices are, as Redis has it, and what stands while it is away."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
import redis

from hse.adapters.nodes import Node, NodeDirectory
from hse.embedded.ports import free_ports
from hse.embedded.valkey import prepare_valkey
from tests.conftest import running


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def directory(redis_url: str, clock: Clock) -> AsyncIterator[NodeDirectory]:
    made = NodeDirectory(redis_url, now=clock)
    yield made
    await made.close()


def write_node(url: str, name: str, text: str | None) -> None:
    with redis.Redis.from_url(url) as client:
        client.sadd("ingest:node_names", name)
        if text is not None:
            client.set(f"ingest:node:{name}", text)


async def test_nodes_are_found_and_a_name_whose_node_is_gone_is_forgotten(
    directory: NodeDirectory, redis_url: str, clock: Clock
) -> None:
    write_node(redis_url, "b", json.dumps({"name": "b", "run": "r", "grpcAddress": "10.0.0.2:1", "startedAt": 0}))
    write_node(redis_url, "a", json.dumps({"grpcAddress": "10.0.0.1:1"}))
    write_node(redis_url, "gone", None)
    found = await directory.nodes()
    assert found == [Node(name="a", address="10.0.0.1:1"), Node(name="b", address="10.0.0.2:1", run="r")]
    with redis.Redis.from_url(redis_url) as client:
        assert client.smembers("ingest:node_names") == {b"a", b"b"}
        client.delete("ingest:node:a")
    assert await directory.nodes() == found, "they are not asked for at every call"
    clock.seconds += 2
    assert await directory.nodes() == found[1:]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"grpcAddress": 5}', '{"grpcAddress": ""}', "null", "\xff"])
async def test_what_is_no_node_is_passed_over(directory: NodeDirectory, redis_url: str, text: str) -> None:
    write_node(redis_url, "a", text)
    assert await directory.nodes() == []


async def test_a_device_s_node_is_known_while_it_is_connected(directory: NodeDirectory, redis_url: str) -> None:
    states = {
        uuid4(): {"connectionState": {"connected": True, "node": "a"}},
        uuid4(): {"connectionState": {"connected": False, "node": "a"}},
        uuid4(): {"connectionState": {"connected": True, "node": None}},
        uuid4(): {"connectionState": []},
        uuid4(): {},
    }
    with redis.Redis.from_url(redis_url) as client:
        for device_id, state in states.items():
            client.set(f"device:state:{device_id}", json.dumps(state))
    connected = next(iter(states))
    assert await directory.names_of([*states, uuid4()]) == {connected: "a"}
    assert await directory.names_of([]) == {}


async def test_while_redis_is_away_what_was_known_last_stands(tmp_path: Path, clock: Clock) -> None:
    server = prepare_valkey(tmp_path, port=free_ports(1)[0])
    directory = NodeDirectory(server.url(), now=clock)
    with running(server, tmp_path / "valkey.log"):
        write_node(server.url(), "a", json.dumps({"grpcAddress": "10.0.0.1:1"}))
        found = await directory.nodes()
        assert [node.name for node in found] == ["a"]
    for _ in range(5):
        clock.seconds += 1.5
        assert await directory.nodes() == found
        assert await directory.names_of([uuid4()]) == {}
    await directory.close()


async def test_nodes_of_the_settings_are_known_without_redis_and_are_not_known_twice(
    redis_url: str, clock: Clock
) -> None:
    alone = NodeDirectory(None, fixed=("10.0.0.1:1",), now=clock)
    assert await alone.nodes() == [Node(name="10.0.0.1:1", address="10.0.0.1:1")]
    assert await alone.names_of([uuid4()]) == {}
    write_node(redis_url, "a", json.dumps({"grpcAddress": "10.0.0.1:1"}))
    both = NodeDirectory(redis_url, fixed=("10.0.0.1:1", "10.0.0.2:1"), now=clock)
    assert [node.name for node in await both.nodes()] == ["10.0.0.2:1", "a"]
    await both.close()
