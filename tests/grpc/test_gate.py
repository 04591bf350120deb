"""Who may call the control plane's port, and what a stranger gets of it."""

import asyncio
from pathlib import Path

import grpc
import pytest

from hse.adapters.ingest_stubs import devices_pb2 as pb
from tests.faults.certificates import write_certificate, write_client_certificate
from tests.faults.conditions import until
from tests.faults.conftest import NewCore
from tests.faults.core import Core
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller, code_of, event


@pytest.mark.parametrize(
    "token", [None, "", "wrong", "the-token-of-the-tests-012345678", "the-token-of-the-tests-0123456789x"]
)
async def test_without_the_token_no_method_is_served(shared_core: Core, device: Credentials, token: str | None) -> None:
    device_id = str(device.device_id)
    requests = {
        "SubscribeToDeviceChanges": pb.SubscriptionRequest(),
        "SendDeviceCommand": pb.DeviceCommand(device_id=device_id, command_type="open"),
        "NotifyDeviceEvents": pb.NotifyEventsRequest(events=[event(device.device_id)]),
        "GetDeviceStatus": pb.DeviceStatusRequest(device_id=device_id),
        "GetDeviceEvents": pb.DeviceEventsRequest(device_id=device_id),
        "SendDeviceCommands": pb.DeviceCommands(),
        "GetNode": pb.NodeRequest(),
        "StreamDeviceChanges": pb.SubscriptionRequest(),
    }
    assert set(requests) == {method.name for method in pb.DESCRIPTOR.services_by_name["DeviceStream"].methods}
    with Caller(shared_core, token=token) as stranger:
        for method, request in requests.items():
            if method in {"SubscribeToDeviceChanges", "SendDeviceCommands", "StreamDeviceChanges"}:
                with stranger.listening(method, request) as heard:
                    assert await heard.ended() == grpc.StatusCode.UNAUTHENTICATED
            else:
                assert await stranger.refused(method, request) == grpc.StatusCode.UNAUTHENTICATED


# Messages of grpc.health.v1 and grpc.reflection.v1, encoded: their generated code is no part of the product.
CHECK, SERVING = b"", b"\x08\x01"
CHECK_SERVICE = b"\x0a\x14devices.DeviceStream"
LIST_SERVICES = b"\x3a\x00"


def unencoded(message: bytes) -> bytes:
    return message


async def test_health_and_reflection_are_served_to_who_has_the_token(caller: Caller, shared_core: Core) -> None:
    check = caller.channel.unary_unary("/grpc.health.v1.Health/Check", unencoded, unencoded)
    for request in (CHECK, CHECK_SERVICE):
        assert await asyncio.to_thread(check, request, metadata=caller.metadata, timeout=20) == SERVING
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        reflect = caller.channel.stream_stream(path, unencoded, unencoded)
        answers = reflect(iter([LIST_SERVICES]), metadata=caller.metadata, timeout=20)
        assert b"devices.DeviceStream" in await asyncio.to_thread(next, answers)
    with Caller(shared_core, token=None) as stranger:
        check = stranger.channel.unary_unary("/grpc.health.v1.Health/Check", unencoded, unencoded)
        with pytest.raises(grpc.RpcError) as caught:
            await asyncio.to_thread(check, CHECK, timeout=20)
        assert code_of(caught.value) == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n"])
async def test_a_stranger_that_lingers_is_let_go_and_is_not_counted_any_more(shared_core: Core, said: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_core.grpc_port)
    writer.write(said)
    async with asyncio.timeout(60):
        while await reader.read(4096):
            pass
    writer.close()
    await until(lambda: shared_core.metric("grpc_connections") == 0, "nobody is connected", seconds=30)


async def test_a_caller_that_is_known_may_be_silent(shared_core: Core, caller: Caller) -> None:
    with caller.listening("SubscribeToDeviceChanges", pb.SubscriptionRequest()) as heard:
        await heard.begun()
        # A stranger's time passes meanwhile.
        reader, writer = await asyncio.open_connection("127.0.0.1", shared_core.grpc_port)
        async with asyncio.timeout(60):
            while await reader.read(4096):
                pass
        writer.close()
        assert heard.end is None
    assert (await caller.ask("GetNode", pb.NodeRequest())).name


async def test_a_crowd_of_strangers_is_bounded_and_a_caller_that_is_known_is_served_all_the_same(
    shared_core: Core, caller: Caller
) -> None:
    assert (await caller.ask("GetNode", pb.NodeRequest())).name
    refused = shared_core.metric("grpc_refused_total")
    crowd = [await asyncio.open_connection("127.0.0.1", shared_core.grpc_port) for _ in range(200)]
    await until(lambda: shared_core.metric("grpc_refused_total") >= refused + 73, "who is too many is let go")
    assert shared_core.metric("grpc_connections") <= 128
    assert (await caller.ask("GetNode", pb.NodeRequest())).name
    for _, writer in crowd:
        writer.transport.abort()


async def test_a_message_that_is_too_large_is_refused(caller: Caller, device: Credentials) -> None:
    events = [event(device.device_id, unit="x" * 20) for _ in range(80_000)]
    request = pb.NotifyEventsRequest(events=events)
    assert request.ByteSize() > 4 << 20
    code = await caller.refused("NotifyDeviceEvents", request)
    # The sender may learn of the refusal while it still sends.
    assert code in {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert (await caller.ask("GetNode", pb.NodeRequest())).name


async def test_without_token_and_authority_the_port_stays_closed(new_core: NewCore) -> None:
    core = new_core(service_token="")
    await core.started()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", core.grpc_port)


async def test_a_client_certificate_is_enough_and_without_one_there_is_no_connection(
    new_core: NewCore, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    authority, client, client_key = write_client_certificate(tmp_path)
    core = new_core(
        service_token="",
        grpc_tls_certificate_path=certificate,
        grpc_tls_key_path=key,
        grpc_client_ca_path=authority,
    )
    await core.started()
    root = certificate.read_bytes()
    known = grpc.ssl_channel_credentials(root, client_key.read_bytes(), client.read_bytes())
    with Caller(core, token=None, credentials=known) as caller:
        assert (await caller.ask("GetNode", pb.NodeRequest())).name
    with Caller(core, token="x" * 32, credentials=grpc.ssl_channel_credentials(root)) as stranger:
        call = stranger.stub.GetNode.future(pb.NodeRequest(), timeout=20, metadata=stranger.metadata)
        with pytest.raises(grpc.RpcError) as caught:
            await asyncio.to_thread(call.result)
        assert code_of(caught.value) == grpc.StatusCode.UNAVAILABLE


async def test_tls_with_the_token_is_served(new_core: NewCore, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    core = new_core(grpc_tls_certificate_path=certificate, grpc_tls_key_path=key)
    await core.started()
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with Caller(core, credentials=credentials) as caller:
        assert (await caller.ask("GetNode", pb.NodeRequest())).name
    with Caller(core, token="wrong" * 10, credentials=credentials) as stranger:
        assert await stranger.refused("GetNode", pb.NodeRequest()) == grpc.StatusCode.UNAUTHENTICATED
