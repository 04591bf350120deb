"""A deployment of the control plane, again and again, while devices send: the core never notices.

That the ACK's latency does not move either is a matter of `benches` (`deploy`): a test does not measure time.
"""

import signal
from pathlib import Path

import pytest

from tests.faults.checker import Checker
from tests.faults.conftest import NewCore
from tests.faults.control_plane import ControlPlane
from tests.faults.database import Database
from tests.faults.load import Load
from tests.faults.recorder import Recorder
from tests.faults.wire import Credentials

NUM_DEPLOYMENTS = 4
EVENTS_WHILE_DOWN = 2000


@pytest.mark.timeout(300)
async def test_a_deployment_of_api_and_worker_loses_nothing_and_cuts_nobody_off(
    new_core: NewCore,
    fleet: list[Credentials],
    recorder: Recorder,
    checker: Checker,
    database: Database,
    tmp_path: Path,
) -> None:
    database.server.ensure_api_login()
    core = new_core()
    await core.started()
    control_plane = ControlPlane(tmp_path, database)
    async with Load(core.port, fleet, recorder) as load:
        await load.progress(1)
        for number in range(NUM_DEPLOYMENTS):
            await control_plane.start()
            await load.progress(1)
            # Every other release is killed: a deployment that goes wrong is one, too.
            control_plane.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
            await load.progress(EVENTS_WHILE_DOWN)
        assert [device.sessions for device in load.devices] == [1] * len(fleet)
        await load.settle()
        await checker.until_stored()
    checker.check(acked_min=NUM_DEPLOYMENTS * EVENTS_WHILE_DOWN)
    assert await core.stop() == 0
