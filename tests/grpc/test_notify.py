"""NotifyDeviceEvents: what was answered is stored, once, whatever is killed."""

import asyncio
import random
import time
from uuid import uuid4

import grpc
from google.protobuf.struct_pb2 import Struct

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conditions import until_in_thread
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.wire import Credentials, Peer
from tests.grpc.caller import Caller, event

NUM_KILLS = 12
# An hour ago, whole seconds.
BASE = int(time.time()) - 3600


async def stored(database: Database, device: Credentials, count: int) -> list[tuple[object, ...]]:
    """Wait until so many events of the device are stored, and return them."""
    await until_in_thread(lambda: len(database.events_of(device.device_id)) >= count, "events are stored", seconds=60)
    return database.events_of(device.device_id)


async def test_events_are_stored_as_they_were_said(caller: Caller, database: Database, device: Credentials) -> None:
    metadata = Struct()
    metadata.update({"floor": 3, "doors": ["a", "b"], "exact": 0.5, "none": None})
    request = pb.NotifyEventsRequest(
        events=[
            event(device.device_id, "temperature", 21.5, unit="C", timestamp=BASE),
            event(
                device.device_id,
                "humidity",
                7,
                exact_value=40.25,
                time_us=BASE * 1_000_000 + 1_000_001,
                metadata=metadata,
            ),
            event(device.device_id, "count", 0, timestamp=1, time_us=(BASE + 2) * 1_000_000),
        ]
    )
    answer = await caller.ask("NotifyDeviceEvents", request)
    assert (answer.success, answer.events_received, list(answer.rejected)) == (True, 3, [])
    assert await stored(database, device, 3) == [
        (BASE * 1_000_000, "temperature", 21.5, "C", None),
        (
            BASE * 1_000_000 + 1_000_001,
            "humidity",
            40.25,
            None,
            {"floor": 3, "doors": ["a", "b"], "exact": 0.5, "none": None},
        ),
        ((BASE + 2) * 1_000_000, "count", 0.0, None, None),
    ]
    sources = database.execute("select distinct source from device_events where device_id = %s", [device.device_id])
    assert sources == [("grpc",)]


async def test_an_event_without_a_time_has_that_of_its_receipt(
    caller: Caller, database: Database, device: Credentials
) -> None:
    await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=[event(device.device_id)]))
    await stored(database, device, 1)
    age = database.execute(
        "select now() - time between interval '0' and interval '5 minutes' from device_events where device_id = %s",
        [device.device_id],
    )
    assert age == [(True,)]


async def test_an_event_that_cannot_be_taken_is_named_and_the_others_are_taken(
    caller: Caller, database: Database, device: Credentials
) -> None:
    deep = Struct()
    deep.update({"a": [[[[[[[[[[[[[[[["too deep"]]]]]]]]]]]]]]]]})
    large = Struct()
    large.update({"text": "x" * 9000})
    ours = device.device_id
    events = [
        (event(ours, "good"), None),
        (event(ours, ""), "bad_type"),
        (event(ours, "t", float("nan")), "bad_value"),
        (event(ours, "t", unit="u" * 21), "bad_unit"),
        (event(ours, metadata=deep), "bad_metadata"),
        (event(ours, metadata=large), "bad_metadata"),
        (event(ours, timestamp=2**62), "bad_time"),
        (event(ours, timestamp=5), "bad_time"),
        (event(uuid4()), "unknown_device"),
        (event("no uuid"), "unknown_device"),
        (event(ours, "good", 2), None),
    ]
    answer = await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=[sent for sent, _ in events]))
    expected = [(index, code) for index, (_, code) in enumerate(events) if code is not None]
    assert [(rejected.index, rejected.code) for rejected in answer.rejected] == expected
    assert (answer.success, answer.events_received) == (False, 2)
    assert [row[1:3] for row in await stored(database, device, 2)] == [("good", 1.0), ("good", 2.0)]
    assert database.dead_letters_of(device.device_id) == []


async def test_too_many_events_at_a_time_are_refused_as_a_whole(
    caller: Caller, database: Database, device: Credentials
) -> None:
    too_many = pb.NotifyEventsRequest(events=[event(device.device_id)] * 10_001)
    assert await caller.refused("NotifyDeviceEvents", too_many) == grpc.StatusCode.INVALID_ARGUMENT
    wide = Struct()
    wide.update({"text": "x" * 8000})
    too_large = pb.NotifyEventsRequest(events=[event(device.device_id, metadata=wide)] * 50)
    assert await caller.refused("NotifyDeviceEvents", too_large) == grpc.StatusCode.INVALID_ARGUMENT
    last = pb.NotifyEventsRequest(events=[event(device.device_id, "last")])
    await caller.ask("NotifyDeviceEvents", last)
    assert [row[1] for row in await stored(database, device, 1)] == ["last"]
    assert (await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest())).success


async def test_what_was_answered_without_a_database_is_stored_when_it_is_back(
    new_core: NewCore, database: Database, device: Credentials
) -> None:
    core = new_core()
    await core.started()
    with Caller(core) as caller:
        await known(caller, device)
        await database.kill()
        request = pb.NotifyEventsRequest(events=[event(device.device_id, "kept", number) for number in range(100)])
        assert (await caller.ask("NotifyDeviceEvents", request)).events_received == 100
    await core.kill()
    await database.ensure_running()
    await core.started()
    rows = await stored(database, device, 100)
    assert sorted(float(str(row[2])) for row in rows if row[1] == "kept") == list(range(100))


async def known(caller: Caller, device: Credentials) -> None:
    """Wait until the core's registry has the device: a command for it is then not refused as unknown."""
    command = pb.DeviceCommand(device_id=str(device.device_id), command_type="ping")

    def is_known() -> bool:
        return bool(caller.stub.SendDeviceCommand(command, metadata=caller.metadata, timeout=20).state != pb.REJECTED)

    await until_in_thread(is_known, "the core knows the device", seconds=30)


class Reporting:
    """Callers that report numbered events as fast as they are answered, and know which were."""

    def __init__(self, core: Core, fleet: list[Credentials]) -> None:
        self.core = core
        self.fleet = fleet
        self.sent: set[int] = set()
        self.answered: set[int] = set()
        self._next = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Reporting":
        self._caller = Caller(self.core)
        self._tasks = [asyncio.create_task(self._report()) for _ in range(6)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._caller.channel.close()

    async def _report(self) -> None:
        while True:
            numbers = range(self._next, self._next + random.randint(1, 40))
            self._next = numbers.stop
            events = [event(random.choice(self.fleet).device_id, "numbered", number) for number in numbers]
            self.sent |= set(numbers)
            try:
                answer = await self._caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=events), seconds=10)
            except grpc.RpcError:
                # Not known: these numbers may be stored or not, but not twice.
                continue
            assert answer.success, answer
            self.answered |= set(numbers)

    async def progress(self, count: int) -> None:
        """Wait until so many more events were answered."""
        wanted = len(self.answered) + count

        def is_reached() -> bool:
            for task in self._tasks:
                assert not task.done(), task.exception()
            return len(self.answered) >= wanted

        await until_in_thread(is_reached, "events are answered", seconds=60)


async def test_a_core_killed_under_load_has_stored_once_what_it_answered(
    new_core: NewCore, database: Database, fleet: list[Credentials]
) -> None:
    chance = random.Random(7)
    core = new_core(lanes=2, batch_age_ms_max=200)
    core.start()
    await core.ready()
    async with Reporting(core, fleet) as reporting:
        for _ in range(NUM_KILLS):
            await reporting.progress(chance.randint(50, 1500))
            await core.kill()
            core.start()
        await core.ready()
        await reporting.progress(100)
    # Devices speak beside them: numbered and unnumbered events of one device share the journal.
    peer = await Peer.join(core.port, fleet[0])
    await peer.acked(1, {"type": "own", "value": 1.0})
    await peer.close()
    assert await core.stop() == 0
    ids = [device.device_id for device in fleet]
    rows = database.execute(
        "select value::int8, count(*) from device_events where device_id = any(%s) and event_type = 'numbered' group by 1",
        [ids],
    )
    counts = {int(str(number)): count for number, count in rows}
    assert {number: count for number, count in counts.items() if count != 1} == {}
    assert reporting.answered - counts.keys() == set()
    assert counts.keys() - reporting.sent == set()
    assert len(reporting.answered) > NUM_KILLS * 50
    assert database.execute("select count(*) from dead_letters where device_id = any(%s)", [ids]) == [(0,)]
