"""Cores with their control plane's port, and callers; the world is that of the fault tests."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import (
    NewCore,
    cluster,
    database,
    device,
    fleet,
    knows,
    new_core,
    no_connection_is_left_open,
    shared_core,
    shared_core_process,
)
from tests.faults.core import Core
from tests.faults.database import Database
from tests.faults.wire import Credentials
from tests.grpc.caller import Caller

__all__ = [
    "NewCore",
    "Path",
    "cluster",
    "database",
    "device",
    "fleet",
    "new_core",
    "no_connection_is_left_open",
    "shared_core",
    "shared_core_process",
]


@pytest.fixture
def caller(shared_core: Core) -> Iterator[Caller]:
    """A caller of the module's core, with the token."""
    with Caller(shared_core) as made:
        yield made


@pytest.fixture
def gateway_child(database: Database, shared_core: Core, device: Credentials) -> Credentials:
    """A child that speaks through the test's device only."""
    (child,) = database.add_devices(1, gateway=device)
    database.execute("update devices set token_hash = null where id = %s", [child.device_id])
    # A device that is registered after it is known when it is: the registry reads what was notified in order.
    (later,) = database.add_devices(1)
    asyncio.run(knows(shared_core, later))
    return child
