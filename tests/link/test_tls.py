"""The client of the nodes over TLS, to a real core: who is trusted, who is not, and that the reason is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from hse.adapters.ingest import IngestNodes, NodeAway, NodeCredentials, NodeRefused
from hse.adapters.ingest_stubs import devices_pb2 as pb
from hse.adapters.nodes import Node
from tests.faults.certificates import write_certificate, write_client_certificate
from tests.faults.core import SERVICE_TOKEN, Core

# grpc.aio wants one event loop a process.
pytestmark = pytest.mark.asyncio(loop_scope="session")


class Secured:
    """A core whose port between the planes speaks TLS, and where its papers lie."""

    def __init__(self, core: Core, certificate: Path) -> None:
        self.core = core
        self.authority = certificate.read_bytes()


@asynccontextmanager
async def a_core(directory: Path, database_url: str, **settings: object) -> AsyncIterator[Core]:
    core = Core(directory / "core", database_url, node_name="n1", **settings)
    try:
        await core.started()
        yield core
    finally:
        core.clean_up()


@pytest_asyncio.fixture(loop_scope="session")
async def secured(tmp_path: Path, database_url: str) -> AsyncIterator[Secured]:
    """A core that speaks TLS and asks for the token."""
    certificate, key = write_certificate(tmp_path)
    paths = {"grpc_tls_certificate_path": certificate, "grpc_tls_key_path": key}
    async with a_core(tmp_path, database_url, **paths) as core:
        yield Secured(core, certificate)


async def ask(core: Core, credentials: NodeCredentials) -> pb.Node:
    """Ask a node who it is, on a channel of its own."""
    nodes = IngestNodes(credentials)
    try:
        node = Node(name="n1", address=f"127.0.0.1:{core.grpc_port}")
        return await nodes.call(node, lambda stub: stub.GetNode, pb.NodeRequest())
    finally:
        await nodes.close()


async def test_a_node_is_called_over_tls_with_the_token(secured: Secured) -> None:
    node = await ask(secured.core, NodeCredentials(token=SERVICE_TOKEN, authority=secured.authority))
    assert node.name == "n1"
    with pytest.raises(NodeRefused) as caught:
        await ask(secured.core, NodeCredentials(token="x" * 32, authority=secured.authority))
    assert caught.value.code == "UNAUTHENTICATED"


async def test_a_node_whose_authority_is_unknown_is_told_nothing_and_the_reason_is_said(
    secured: Secured, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    authority, _ = write_certificate(other)
    with pytest.raises(NodeAway, match="CERTIFICATE_VERIFY_FAILED") as caught:
        await ask(secured.core, NodeCredentials(token=SERVICE_TOKEN, authority=authority.read_bytes()))
    assert not caught.value.is_in_doubt


async def test_a_client_without_tls_is_not_heard_by_a_node_with_it(secured: Secured) -> None:
    with pytest.raises(NodeAway) as caught:
        await ask(secured.core, NodeCredentials(token=SERVICE_TOKEN))
    assert not caught.value.is_in_doubt
    # It goes on for those who know how to speak to it.
    assert (await ask(secured.core, NodeCredentials(token=SERVICE_TOKEN, authority=secured.authority))).name == "n1"


async def test_a_client_with_tls_says_that_a_node_has_none(tmp_path: Path, database_url: str) -> None:
    certificate, _ = write_certificate(tmp_path)
    async with a_core(tmp_path, database_url) as core:
        with pytest.raises(NodeAway, match="WRONG_VERSION_NUMBER") as caught:
            await ask(core, NodeCredentials(token=SERVICE_TOKEN, authority=certificate.read_bytes()))
        assert not caught.value.is_in_doubt


async def test_a_certificate_is_enough_without_a_token_and_a_foreign_one_is_not(
    tmp_path: Path, database_url: str
) -> None:
    certificate, key = write_certificate(tmp_path)
    authority, client, client_key = write_client_certificate(tmp_path)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    _, foreign_client, foreign_key = write_client_certificate(foreign)
    settings = {
        "service_token": "",
        "grpc_tls_certificate_path": certificate,
        "grpc_tls_key_path": key,
        "grpc_client_ca_path": authority,
    }
    trusted = certificate.read_bytes()
    async with a_core(tmp_path, database_url, **settings) as core:
        own = NodeCredentials(authority=trusted, certificate=client.read_bytes(), key=client_key.read_bytes())
        assert (await ask(core, own)).name == "n1"
        strange = NodeCredentials(
            authority=trusted, certificate=foreign_client.read_bytes(), key=foreign_key.read_bytes()
        )
        for stranger in (
            strange,
            NodeCredentials(authority=trusted),
            NodeCredentials(token="x" * 32, authority=trusted),
        ):
            with pytest.raises(NodeAway):
                await ask(core, stranger)
