"""SubscribeToDeviceChanges: what happens on a node, told to who asked, and what was missed."""

import time

import grpc
from google.protobuf.struct_pb2 import Struct

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.wire import Credentials, Peer
from tests.grpc.caller import Caller, event


def of(device: Credentials, **fields: object) -> pb.SubscriptionRequest:
    return pb.SubscriptionRequest(device_ids=[str(device.device_id)], **fields)  # type: ignore[arg-type]


async def test_events_and_connections_are_told_as_they_happen(
    shared_core: Core, caller: Caller, device: Credentials
) -> None:
    metadata = Struct()
    metadata.update({"floor": 3, "name": "text"})
    at = int(time.time()) - 60
    with caller.listening("SubscribeToDeviceChanges", of(device, with_connections=True)) as heard:
        await heard.begun()
        peer = await Peer.join(shared_core.port, device)
        await peer.acked(1, {"type": "temperature", "value": 21.5, "unit": "C", "time_us": at * 1_000_000 + 7})
        await peer.acked(2, {"type": "silent"})
        await peer.close()
        await heard.until(lambda messages: len(messages) >= 4, "the device has gone")
        said = event(device.device_id, "said", 3, metadata=metadata)
        await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=[said]))
        await heard.until(lambda messages: len(messages) >= 5, "all is told")
    connected, measured, silent, gone, told = heard.messages
    assert [change.kind for change in heard.messages] == [pb.CONNECTED, pb.EVENT, pb.EVENT, pb.DISCONNECTED, pb.EVENT]
    assert {change.device_id for change in heard.messages} == {str(device.device_id)}
    assert (connected.protocol, gone.protocol) == ("hdp", "hdp")
    assert connected.remote_address == gone.remote_address
    assert connected.remote_address.startswith("127.0.0.1:")
    assert (measured.event_type, measured.timestamp, measured.time_us) == ("temperature", at, at * 1_000_000 + 7)
    assert (measured.value, measured.exact_value, measured.unit) == (21.5, 21.5, "C")
    assert silent.event_type == "silent"
    assert not silent.HasField("exact_value")
    assert abs(silent.received_us - time.time() * 1e6) < 600e6
    assert dict(told.metadata) == {"floor": "3", "name": "text"}
    assert dict(told.typed_metadata) == {"floor": 3, "name": "text"}
    numbers = [change.position.number for change in heard.messages]
    assert numbers == sorted(set(numbers))
    node = await caller.ask("GetNode", pb.NodeRequest())
    assert {(change.node, change.position.node_run) for change in heard.messages} == {(node.name, node.run)}
    assert node.last_position >= numbers[-1]


async def test_only_what_was_asked_for_is_told(fleet: list[Credentials], caller: Caller) -> None:
    ours, other = fleet[:2]
    with caller.listening("SubscribeToDeviceChanges", of(ours, event_types=["wanted"])) as heard:
        await heard.begun()
        events = [event(device.device_id, kind) for device in (other, ours) for kind in ("unwanted", "wanted")]
        await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=events))
        await heard.until(lambda messages: messages, "it is told")
        last = event(ours.device_id, "wanted", 2)
        await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=[last]))
        await heard.until(lambda messages: len(messages) >= 2, "both are told")
    assert [(change.device_id, change.event_type, change.value) for change in heard.messages] == [
        (str(ours.device_id), "wanted", 1.0),
        (str(ours.device_id), "wanted", 2.0),
    ]


async def test_what_is_there_is_told_at_a_time_and_is_the_same(fleet: list[Credentials], caller: Caller) -> None:
    device, other = fleet[:2]
    with (
        caller.listening("SubscribeToDeviceChanges", of(device)) as one_by_one,
        caller.listening("StreamDeviceChanges", of(device)) as many,
    ):
        await one_by_one.begun()
        await many.begun()
        events = [event(one.device_id, value=value) for value in range(200) for one in (device, other)]
        await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=events))
        await one_by_one.until(lambda messages: len(messages) >= 200, "all is told")
        await many.until(lambda messages: sum(len(one.changes) for one in messages) >= 200, "all is told at a time")
    assert [change for one in many.messages for change in one.changes] == one_by_one.messages
    assert len(many.messages) < 10
    assert all(one.changes for one in many.messages)


async def test_a_subscriber_that_comes_back_hears_what_followed(caller: Caller, device: Credentials) -> None:
    async def say(value: float) -> None:
        await caller.ask("NotifyDeviceEvents", pb.NotifyEventsRequest(events=[event(device.device_id, value=value)]))

    with caller.listening("SubscribeToDeviceChanges", of(device)) as heard:
        await heard.begun()
        for value in (1, 2, 3):
            await say(value)
        await heard.until(lambda messages: len(messages) >= 3, "all is told")
    position = heard.messages[0].position
    await say(4)
    with caller.listening("SubscribeToDeviceChanges", of(device, resume_after=position)) as heard:
        await heard.until(lambda messages: len(messages) >= 3, "what followed is told")
    assert [change.value for change in heard.messages] == [2, 3, 4]
    other_run = pb.Position(node_run="8c1f0000-0000-4000-8000-000000000000", number=1)
    with caller.listening("SubscribeToDeviceChanges", of(device, resume_after=other_run)) as heard:
        await heard.until(lambda messages: len(messages) >= 5, "all of this run is told")
    assert [change.kind for change in heard.messages] == [pb.MISSED, pb.EVENT, pb.EVENT, pb.EVENT, pb.EVENT]
    assert heard.messages[0].num_missed >= 1


async def test_a_subscriber_that_does_not_read_is_told_how_many_it_missed_and_delays_nobody(
    new_core: NewCore, device: Credentials
) -> None:
    core = new_core(live_ring_bytes_max=1 << 20)
    await core.started()
    wide = Struct()
    wide.update({"text": "x" * 2000})
    peer = await Peer.join(core.port, device)
    with Caller(core) as caller, Caller(core) as swift:
        # Not read from until all was said: only what the transport takes is on its way.
        slow = caller.stub.SubscribeToDeviceChanges(of(device), metadata=caller.metadata, wait_for_ready=True)
        assert slow.initial_metadata() is not None
        with swift.listening("SubscribeToDeviceChanges", of(device, event_types=["last"])) as heard:
            await heard.begun()
            payload = {"type": "wide", "value": 1.0, "metadata": {"text": "x" * 2000}}
            for number in range(200):
                await peer.acked(1 + number * 50, *[payload] * 50)
            await peer.acked(10_001, {"type": "last"})
            await heard.until(lambda messages: messages, "the swift one hears the last one")
        num_heard = num_missed = 0
        for change in slow:
            num_missed += change.num_missed
            num_heard += change.kind == pb.EVENT
            if change.event_type == "last":
                break
        slow.cancel()
    assert num_missed > 0
    assert num_heard + num_missed == 10_001


async def test_subscribers_are_bounded_and_end_when_the_node_stops(new_core: NewCore) -> None:
    core = new_core()
    await core.started()
    with Caller(core) as caller:
        calls = [
            caller.stub.SubscribeToDeviceChanges(
                pb.SubscriptionRequest(), metadata=caller.metadata, wait_for_ready=True
            )
            for _ in range(64)
        ]
        for call in calls:
            assert call.initial_metadata() is not None
        with caller.listening("SubscribeToDeviceChanges", pb.SubscriptionRequest()) as refused:
            assert await refused.ended() == grpc.StatusCode.RESOURCE_EXHAUSTED
        calls.pop().cancel()
        wrong = pb.SubscriptionRequest(device_ids=["no uuid"])
        with caller.listening("SubscribeToDeviceChanges", wrong) as refused:
            assert await refused.ended() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await core.stop() == 0
        for call in calls:
            assert call.code() == grpc.StatusCode.UNAVAILABLE
