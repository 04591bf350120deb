"""A client that knows nothing but the source plan's text: run as a program, with what protoc makes of it on its path.

    python source_plan_client.py ADDRESS TOKEN DEVICE TIME

It calls each of the five methods as the plan says and prints what it got as JSON. A program of its own, because the messages
have the names of ours, of which one process can hold one set.
"""

import json
import sys
import threading
import time

import devices_pb2 as pb  # type: ignore[import-not-found]
import devices_pb2_grpc as stubs  # type: ignore[import-not-found]
import grpc
from google.protobuf.json_format import MessageToDict


def main(address: str, token: str, device: str, seconds: str) -> None:
    """Call everything, in the order in which each needs the one before."""
    at = int(seconds)
    metadata = (("authorization", f"Bearer {token}"),)
    channel = grpc.insecure_channel(address)
    stub = stubs.DeviceStreamStub(channel)
    changes: list[object] = []
    subscription = stub.SubscribeToDeviceChanges(
        pb.SubscriptionRequest(device_ids=[device], event_types=["temperature"], client_id="plan"), metadata=metadata
    )
    subscription.initial_metadata()

    def listen() -> None:
        for change in subscription:
            changes.append(MessageToDict(change, preserving_proto_field_name=True))
            return

    listening = threading.Thread(target=listen, daemon=True)
    listening.start()
    events = [
        pb.DeviceEvent(device_id=device, event_type="temperature", timestamp=at, value=21.5, unit="C"),
        pb.DeviceEvent(device_id=device, event_type="", timestamp=at, value=21.5, unit="C"),
    ]
    notified = stub.NotifyDeviceEvents(pb.NotifyEventsRequest(events=events), metadata=metadata)
    listening.join(60)
    subscription.cancel()
    command = pb.DeviceCommand(device_id=device, command_type="open", params={"door": "front"}, request_id="plan-1")
    commanded = stub.SendDeviceCommand(command, metadata=metadata, timeout=60)
    query = pb.DeviceEventsRequest(
        device_id=device, start_time=at, end_time=at + 1, event_types=["temperature"], limit=10
    )
    deadline = time.monotonic() + 60
    while not (found := stub.GetDeviceEvents(query, metadata=metadata)).events and time.monotonic() < deadline:
        time.sleep(0.1)
    status = stub.GetDeviceStatus(pb.DeviceStatusRequest(device_id=device), metadata=metadata)
    heard = {"notified": notified, "commanded": commanded, "events": found, "status": status}
    print(
        json.dumps(
            {name: MessageToDict(message, preserving_proto_field_name=True) for name, message in heard.items()}
            | {"changes": changes}
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
