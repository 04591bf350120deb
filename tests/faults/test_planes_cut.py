"""The network between the planes swallows every packet: the data plane goes on, and the control plane says truly what it knows."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import pytest

from tests.api.world import World
from tests.faults.balancer import Balancer
from tests.faults.cache import Cache
from tests.faults.checker import Checker
from tests.faults.commands import Commander
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.control_plane import ControlPlane
from tests.faults.core import SERVICE_TOKEN, Core
from tests.faults.database import Database
from tests.faults.load import Load, Plan
from tests.faults.namespaces import Network, why_no_namespaces
from tests.faults.recorder import Recorder
from tests.faults.sse import following
from tests.faults.wire import Credentials, Peer

pytestmark = [pytest.mark.skipif(why_no_namespaces() is not None, reason=str(why_no_namespaces()))]

STEADY = Plan(pause_seconds=0.02)
# What is noticed by keepalive only, and what is tried again after half a minute.
NOTICED_SECONDS = 40.0
BACK_SECONDS = 60.0
HEARD, UNHEARD = {"num_nodes": 1, "num_away": 0}, {"num_nodes": 1, "num_away": 1}
# After a deadline, until it is swept and read.
GRACE_SECONDS = 5.0


@dataclass
class Parted:
    """A node here, and its control plane elsewhere."""

    network: Network
    database: Database
    core: Core
    control_plane: ControlPlane
    commander: Commander

    def command(self, command_id: UUID) -> tuple[str, str | None]:
        """Return the state of a command and what is said of it."""
        ((state, message),) = self.database.execute(
            "select state, message from device_commands where id = %s", [command_id]
        )
        return str(state), None if message is None else str(message)

    async def becomes(self, command_id: UUID, state: str, *, seconds: float = NOTICED_SECONDS) -> None:
        """Wait until a command is in a state."""
        await until_in_thread(lambda: self.command(command_id)[0] == state, f"the command is {state}", seconds=seconds)

    async def circuit(self, wanted: str, *, seconds: float) -> None:
        """Wait until the api shows its breaker before the node so; it serves all the time."""

        def shows() -> bool:
            answer = httpx.get(f"{self.control_plane.url}/health/readiness", timeout=10)
            found = answer.json()
            # Whether Redis is swift is another matter.
            assert (answer.status_code, found["database"]) == (200, "up"), found
            return bool(found["ingest_nodes"] == wanted)

        await until_in_thread(shows, f"the breaker before the node is {wanted}", seconds=seconds)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network().made() as made:
        yield made


def through(url: str, host: str, port: int) -> str:
    """The same server, reached elsewhere."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{host}:{port}"))


@pytest.fixture
async def parted(
    network: Network,
    new_core: NewCore,
    database: Database,
    cache: Cache,
    people: World,
    fleet: list[Credentials],
    tmp_path: Path,
) -> AsyncIterator[Parted]:
    assert fleet  # registered before the node starts
    core = new_core(node_name="n1", redis_url=cache.url, grpc_bind_host=network.node_address)
    async with contextlib.AsyncExitStack() as stack:
        ours = network.our_address
        to_database = await stack.enter_async_context(Balancer([database.port], host=ours).listening())
        to_cache = await stack.enter_async_context(Balancer([cache.port], host=ours).listening())
        control_plane = ControlPlane(
            tmp_path,
            database,
            host=network.their_address,
            wrapper=network.wrapper,
            database_url=through(database.url, ours, to_database.port),
            api_database_url=through(database.server.api_url(), ours, to_database.port),
            redis_url=through(cache.url, ours, to_cache.port),
            service_token=SERVICE_TOKEN,
        )
        stack.callback(control_plane.clean_up)
        await core.started()
        await control_plane.start()
        yield Parted(network, database, core, control_plane, Commander(control_plane.url, people.root))
    for program in (control_plane.api, control_plane.worker):
        print(f"--- the end of {program.log_path.name}\n{program.tail()}")


def event(value: int) -> dict[str, object]:
    return {"type": "t", "value": float(value)}


async def told(peer: Peer) -> str:
    """The request id of the next command that a device is told."""
    message = await peer.receive(seconds=30)
    assert message.name == "command", message
    return str(message["request_id"])


async def before_the_cut(parted: Parted, device: UUID, peer: Peer) -> UUID:
    """Have one command done and another one delivered, which is returned."""
    done = await parted.commander.send(device, timeout_seconds=60)
    await peer.send("result", request_id=await told(peer), status=0)
    await parted.becomes(done, "succeeded")
    under_way = await parted.commander.send(device, timeout_seconds=120)
    assert UUID(await told(peer)) == under_way
    await parted.becomes(under_way, "delivered")
    return under_way


async def right_after_the_cut(parted: Parted, device: UUID, peer: Peer, under_way: UUID) -> UUID:
    """Nobody knows of it yet. Returns a command that waits for its end."""
    short = await parted.commander.send(device, timeout_seconds=4)
    # The answer of the device takes the way through the journal.
    await peer.send("result", request_id=str(under_way), status=0)
    await parted.becomes(under_way, "succeeded")
    await until_in_thread(
        lambda: parted.command(short)[0] in ("timed_out", "expired"), "it ends in time", seconds=4 + GRACE_SECONDS
    )
    return await parted.commander.send(device, timeout_seconds=200)


async def when_the_cut_is_known(parted: Parted, device: UUID, waiting: UUID) -> None:
    """It is shown, and before a command is handed over it is known that there is no way."""
    await parted.circuit("open", seconds=NOTICED_SECONDS)
    reason = ("queued", "ingest node n1 is away")
    await until_in_thread(lambda: parted.command(waiting) == reason, "it is said why", seconds=NOTICED_SECONDS)
    surely_not = await parted.commander.send(device, timeout_seconds=2)
    await parted.becomes(surely_not, "expired", seconds=2 + GRACE_SECONDS)


@pytest.mark.timeout(300)
async def test_a_network_that_swallows_everything_between_the_planes_stops_no_event_and_makes_nobody_lie(
    parted: Parted, fleet: list[Credentials], recorder: Recorder, checker: Checker
) -> None:
    *loaded, device = fleet
    device_id, core = device.device_id, parted.core
    peer = await Peer.join(core.port, device)
    params = {"kind": "event", "device_id": str(device_id)}
    async with (
        Load(core.port, loaded, recorder, STEADY) as load,
        following(parted.control_plane.url, parted.commander.headers(), params) as stream,
    ):
        await stream.until(lambda one: HEARD in one.named("sources"), "the node is heard")
        under_way = await before_the_cut(parted, device_id, peer)
        await peer.acked(1, event(1))
        await stream.until(lambda one: one.values() == [1.0], "the event is shown")

        parted.network.cut()
        waiting = await right_after_the_cut(parted, device_id, peer, under_way)
        for value in range(2, 12):
            await peer.acked(value, event(value))
        await stream.until(
            lambda one: one.named("sources")[-1] == UNHEARD, "it is told that no node is heard", seconds=NOTICED_SECONDS
        )
        await when_the_cut_is_known(parted, device_id, waiting)
        assert stream.values() == [1.0]
        await load.progress(500)

        parted.network.heal()
        await stream.until(lambda one: one.named("sources")[-1] == HEARD, "it is heard again", seconds=BACK_SECONDS)
        # The node's answer and the command that waited are on their way at once, in either order.
        await peer.send_events(12, event(12))
        answers = {
            message.name: message for message in [await peer.receive(seconds=30), await peer.receive(seconds=30)]
        }
        assert answers["ack"]["seq"] == 12
        assert UUID(str(answers["command"]["request_id"])) == waiting, "nothing that has ended is done"
        await stream.until(lambda one: one.values()[-1] == 12.0, "what comes is shown")
        assert stream.values() == [float(value) for value in range(1, 13)]
        assert stream.named("missed") == []
        await peer.send("result", request_id=str(waiting), status=0)
        await parted.becomes(waiting, "succeeded", seconds=BACK_SECONDS)
        await parted.circuit("closed", seconds=BACK_SECONDS)
        assert [one.sessions for one in load.devices] == [1] * len(loaded), "no device has noticed"
        await load.settle()
        await checker.until_stored()
    checker.check(acked_min=500)
    await peer.close()
