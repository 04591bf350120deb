"""What a command says in secret reaches the device, and nobody else: not the row, not the log, and not at all once it has ended."""

import logging
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from hse.adapters.dispatch.secrets import seal_params
from hse.adapters.sealing import Sealer
from tests.api.test_secrets import everything_kept
from tests.api.world import SECRET_KEY
from tests.conftest import wait_until
from tests.link.conftest import SECONDS_MAX, NewWorker, Site
from tests.link.node import FakeNode

CODE = "482913"


def send_secret(site: Site, device_id: UUID, sealer: Sealer, *, seconds: float = 600) -> UUID:
    """Queue a command with a secret, as the worker does."""
    (row,) = site.execute(
        "insert into device_commands (organization_id, device_id, created_by, type, params, sealed_params, deadline)"
        " values (%s, %s, %s, 'set_code', %s, %s, now() + make_interval(secs => %s)) returning id",
        *(
            site.organization_id,
            device_id,
            uuid4(),
            Jsonb({"code_id": "a"}),
            seal_params(sealer, {"code": CODE}),
            seconds,
        ),
    )
    found: UUID = row["id"]
    return found


def sealed(site: Site, command_id: UUID) -> Any:
    return site.command(command_id)["sealed_params"]


def test_the_device_hears_the_whole_and_nothing_else_holds_it(
    site: Site, node: FakeNode, new_worker: NewWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    device = site.add_device()
    sent = send_secret(site, device, Sealer(SECRET_KEY))
    assert sealed(site, sent) is not None
    new_worker()
    node.connect(device, is_silent=True)
    wait_until(lambda: len(node.received) == 1, "the device has it", seconds=SECONDS_MAX)
    assert node.received[0].params == {"code_id": "a", "code": CODE}
    site.becomes(sent, "delivered")
    assert CODE not in str(everything_kept(site.database_url))
    node.answer(node.received[0])
    site.becomes(sent, "succeeded")
    assert sealed(site, sent) is None
    assert CODE not in str(everything_kept(site.database_url))
    assert CODE not in caplog.text


@pytest.mark.usefixtures("node")
def test_it_is_forgotten_however_the_command_ends(site: Site, new_worker: NewWorker) -> None:
    away = site.add_device()
    expiring = send_secret(site, away, Sealer(SECRET_KEY), seconds=1)
    taken_back = send_secret(site, away, Sealer(SECRET_KEY))
    site.execute(
        "update device_commands set state = 'cancelled', dispatch = 'over', finished_at = now() where id = %s",
        taken_back,
    )
    new_worker()
    site.becomes(expiring, "expired")
    assert (sealed(site, expiring), sealed(site, taken_back)) == (None, None)


def test_a_worker_without_the_key_leaves_the_device_to_those_who_have_it(
    site: Site, node: FakeNode, new_worker: NewWorker
) -> None:
    device, other = site.add_device(), site.add_device()
    for one in (device, other):
        node.connect(one)
    keyless = new_worker(secret_key=None)
    first = send_secret(site, device, Sealer(SECRET_KEY))
    second = site.send(device, "after")
    site.becomes(site.send(other), "succeeded")
    wait_until(lambda: "HSE_SECRET_KEY" in (site.command(second)["message"] or ""), "it says why", seconds=SECONDS_MAX)
    assert node.types(device) == []
    keyless.end()
    site.let_claims_run_out()
    new_worker()
    site.becomes(first, "succeeded")
    site.becomes(second, "succeeded")
    assert node.types(device) == ["set_code", "after"]


def test_what_was_sealed_with_another_key_fails_and_holds_nothing_up(
    site: Site, node: FakeNode, new_worker: NewWorker
) -> None:
    device = site.add_device()
    node.connect(device)
    foreign = send_secret(site, device, Sealer("another key, of at least 32 characters"))
    mine = site.send(device, "after")
    new_worker()
    found = site.becomes(foreign, "failed")
    assert "another HSE_SECRET_KEY" in found["message"]
    site.becomes(mine, "succeeded")
    assert node.types(device) == ["after"]
