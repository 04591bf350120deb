"""The source plan's contract: what was written from its text keeps working, whatever was added since."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.core import SERVICE_TOKEN, Core
from tests.faults.wire import Credentials, Peer

HERE = Path(__file__).parent
SOURCE_PLAN = HERE / "source_plan.proto"


def compiled(directory: Path) -> FileDescriptorProto:
    """Make the plan's client in a directory; return what the plan's text describes."""
    copy = directory / "devices.proto"
    copy.write_text(SOURCE_PLAN.read_text(encoding="utf-8"), encoding="utf-8")
    arguments = [f"--proto_path={directory}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    described = directory / "devices.bin"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments, f"--descriptor_set_out={described}", str(copy)],
        check=True,
    )
    (file,) = FileDescriptorSet.FromString(described.read_bytes()).file
    return file


def test_every_method_and_field_of_the_plan_is_as_it_was(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    ours = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(ours)
    assert ours.package == plan.package

    def methods(file: FileDescriptorProto) -> dict[str, object]:
        (service,) = file.service
        return {
            method.name: (
                service.name,
                method.input_type,
                method.output_type,
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.method
        }

    def fields(file: FileDescriptorProto) -> dict[tuple[str, str], object]:
        return {
            (message.name, field.name): (field.number, field.type, field.label, field.type_name)
            for message in file.message_type
            for field in message.field
        }

    assert len(methods(plan)) == 5
    assert methods(plan).items() <= methods(ours).items()
    assert fields(plan).items() <= fields(ours).items()


async def test_a_client_made_from_the_plan_runs_unchanged(
    shared_core: Core, device: Credentials, tmp_path: Path
) -> None:
    compiled(tmp_path)
    peer = await Peer.join(shared_core.port, device)
    at = int(time.time()) - 60
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "source_plan_client.py"),
        f"127.0.0.1:{shared_core.grpc_port}",
        SERVICE_TOKEN,
        str(device.device_id),
        str(at),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    heard = await peer.receive(seconds=90)
    assert (heard["request_id"], heard["command_type"], heard["params"]) == ("plan-1", "open", {"door": "front"})
    await peer.send("result", request_id="plan-1", status=0, message="opened")
    out, err = await asyncio.wait_for(program.communicate(), 90)
    assert program.returncode == 0, err.decode()
    answers = json.loads(out)
    temperature = {
        "device_id": str(device.device_id),
        "event_type": "temperature",
        "timestamp": str(at),
        "value": 21.5,
        "unit": "C",
    }
    assert answers["notified"] == {"events_received": 1}, "success is false, and false is not written"
    assert answers["changes"] == [temperature]
    assert answers["commanded"] == {"success": True, "message": "opened", "request_id": "plan-1"}
    assert answers["events"] == {"events": [temperature], "total_count": 1}
    assert answers["status"]["status"] == "online"
    assert answers["status"]["device_id"] == str(device.device_id)
