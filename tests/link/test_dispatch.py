"""Commands on their way to devices: in order, to the right node, once under one id, whatever dies or is away."""

import json
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
import redis
from prometheus_client import generate_latest

from tests.conftest import wait_until
from tests.link.conftest import SECONDS_MAX, NewProcess, Site, Worker
from tests.link.node import TOKEN, FakeNode

NewNode = Callable[[str], FakeNode]
NewWorker = Callable[[], Worker]


@pytest.mark.usefixtures("worker")
def test_a_connected_device_gets_a_command_and_its_answer_comes_back(site: Site, node: FakeNode) -> None:
    device = site.add_device()
    node.connect(device)
    sent = site.send(device, "set", params={"degrees": 21.5, "modes": ["eco", None, True], "nested": {"a": 1}})
    found = site.becomes(sent, "succeeded")
    assert [(one.type, one.request_id) for one in node.received] == [("set", str(sent))]
    assert node.received[0].params == {"degrees": 21.5, "modes": ["eco", None, True], "nested": {"a": 1}}
    assert (found["status"], found["result"], found["node"], found["attempts"]) == (0, {"done": True}, "n1", 1)
    assert found["queued_at"] <= found["sent_at"] <= found["delivered_at"] <= found["finished_at"]
    assert found["result_at"] == found["finished_at"]
    wait_until(lambda: not site.execute("select from device_command_queues"), "the queue is forgotten")


@pytest.mark.usefixtures("worker")
def test_a_device_that_refuses_fails_its_command(site: Site, node: FakeNode) -> None:
    device = site.add_device()
    node.connect(device, status=42)
    found = site.becomes(site.send(device), "failed")
    assert (found["status"], found["result"]) == (42, {"done": False})


@pytest.mark.usefixtures("worker")
def test_a_device_that_is_away_gets_its_queue_in_order_when_it_comes_and_nothing_that_has_expired(
    site: Site, node: FakeNode
) -> None:
    device = site.add_device()
    queued = [site.send(device, f"t{number}") for number in range(5)]
    short = site.send(device, "short", seconds=1)
    found = site.becomes(short, "expired")
    assert (found["attempts"] >= 0, found["sent_at"], found["finished_at"]) == (True, None, found["deadline"])
    wait_until(lambda: site.command(queued[0])["message"] == "the device is not connected", "it says why it waits")
    assert set(site.states(*queued)) == {"queued"}
    wait_until(lambda: node.num_subscribers == 1, "the worker listens to the node", seconds=SECONDS_MAX)
    node.connect(device)
    for one in queued:
        site.becomes(one, "succeeded")
    assert node.types(device) == [f"t{number}" for number in range(5)]
    assert site.command(queued[0])["message"] is None


@pytest.mark.usefixtures("worker")
def test_commands_of_one_device_keep_their_order_however_many(site: Site, node: FakeNode) -> None:
    devices = [site.add_device() for _ in range(3)]
    for device in devices:
        node.connect(device)
    sent = {device: [site.send(device, f"t{number}") for number in range(60)] for device in devices}
    for ids in sent.values():
        site.becomes(ids[-1], "succeeded")
    for device, ids in sent.items():
        assert node.types(device) == [f"t{number}" for number in range(60)]
        assert set(site.states(*ids)) == {"succeeded"}


def test_commands_do_not_wait_for_the_maintenance_of_the_storage(
    site: Site, node: FakeNode, new_process: NewProcess
) -> None:
    device = site.add_device()
    node.connect(device)
    with psycopg.connect(site.database_url) as connection:
        connection.execute("lock table rollup_dirty")
        new_process()
        site.becomes(site.send(device), "succeeded")


def test_any_number_of_workers_hand_a_command_over_once(site: Site, node: FakeNode, new_worker: NewWorker) -> None:
    devices = [site.add_device() for _ in range(20)]
    for device in devices:
        node.connect(device)
    for _ in range(3):
        new_worker()
    sent = [site.send(device, f"t{number}") for number in range(5) for device in devices]
    for one in sent:
        site.becomes(one, "succeeded")
    assert len(node.received) == 100
    assert {site.command(one)["attempts"] for one in sent} == {1}
    for device in devices:
        assert node.types(device) == [f"t{number}" for number in range(5)]


@pytest.mark.usefixtures("worker")
def test_a_delivered_command_without_an_answer_times_out_and_a_late_answer_is_kept_beside(
    site: Site, node: FakeNode
) -> None:
    device = site.add_device()
    node.connect(device, is_silent=True)
    sent = site.send(device, seconds=2)
    site.becomes(sent, "delivered")
    found = site.becomes(sent, "timed_out")
    assert (found["finished_at"], found["result_at"]) == (found["deadline"], None)
    node.answer(node.received[0], data={"too": "late"})
    wait_until(lambda: site.command(sent)["result_at"] is not None, "the late answer is kept", seconds=SECONDS_MAX)
    found = site.command(sent)
    assert (found["state"], found["status"], found["result"]) == ("timed_out", 0, {"too": "late"})
    assert found["result_at"] > found["finished_at"]


@pytest.mark.usefixtures("worker")
def test_a_node_that_is_away_holds_up_no_other_and_is_named(site: Site, node: FakeNode, new_node: NewNode) -> None:
    away = new_node("away")
    away.stop()
    device, elsewhere = site.add_device(), site.add_device()
    node.connect(device)
    lost = site.send(elsewhere)
    site.becomes(site.send(device), "succeeded")
    wait_until(lambda: site.command(lost)["message"] == "ingest node away is away", "it is named", seconds=SECONDS_MAX)
    assert site.states(lost) == ["queued"]
    away.start()
    wait_until(lambda: away.num_subscribers == 1, "the worker finds it again", seconds=SECONDS_MAX)
    away.connect(elsewhere)
    assert site.becomes(lost, "succeeded")["node"] == "away"


@pytest.mark.parametrize("num_others", [0, 1])
def test_that_the_node_of_a_device_is_away_is_said_whatever_others_know(
    site: Site, new_node: NewNode, new_worker: NewWorker, redis_url: str, num_others: int
) -> None:
    away = new_node("away")
    away.stop()
    for number in range(num_others):
        new_node(f"n{number}")
    device = site.add_device()
    write_state(redis_url, device, "away")
    new_worker()
    sent = site.send(device)
    wait_until(lambda: site.command(sent)["message"] is not None, "it says why it waits", seconds=SECONDS_MAX)
    assert site.command(sent)["message"] == "ingest node away is away"
    assert site.states(sent) == ["queued"]


@pytest.mark.usefixtures("worker")
def test_a_node_that_takes_calls_and_says_nothing_holds_up_no_other(
    site: Site, node: FakeNode, new_node: NewNode
) -> None:
    frozen = new_node("frozen")
    frozen.is_held.set()
    devices = [site.add_device() for _ in range(10)]
    for device in devices:
        node.connect(device)
    for sent in [site.send(device) for device in devices]:
        site.becomes(sent, "succeeded")
    unknown = site.send(site.add_device(), seconds=8)
    assert site.becomes(unknown, "timed_out", "expired")["state"] == "timed_out", "the frozen node may have sent it"


def test_metrics_count_what_ended_and_show_a_breaker_that_is_open(
    site: Site, node: FakeNode, new_node: NewNode, new_worker: NewWorker
) -> None:
    away = new_node("away")
    away.stop()
    worker = new_worker()
    device = site.add_device()
    node.connect(device)
    site.becomes(site.send(device), "succeeded")

    def shown() -> str:
        return generate_latest(worker.metrics.registry).decode()

    wait_until(
        lambda: (
            'hse_worker_ingest_node_circuit{node="away"} 2.0' in shown()
            and 'hse_worker_commands_ended_total{state="succeeded"} 1.0' in shown()
        ),
        "the open breaker and the command are shown",
        seconds=SECONDS_MAX,
    )


@pytest.mark.usefixtures("worker")
def test_redis_names_the_node_and_a_wrong_name_costs_nothing(
    site: Site, node: FakeNode, new_node: NewNode, redis_url: str
) -> None:
    second = new_node("n2")
    devices = {site.add_device(): place for place in (node, second)}
    for device, place in devices.items():
        place.connect(device)
        write_state(redis_url, device, "n1")
    for device, place in devices.items():
        assert site.becomes(site.send(device), "succeeded")["node"] == place.name
    (second_device,) = (device for device, place in devices.items() if place is second)
    assert [one.device_id for one in second.received] == [second_device]


def test_a_node_that_refuses_the_token_is_named_and_nothing_is_lost(
    site: Site, node: FakeNode, new_worker: NewWorker
) -> None:
    node.token = "another token, which the worker does not have"
    new_worker()
    device = site.add_device()
    node.connect(device)
    sent = site.send(device)
    reason = "ingest node n1 refused: UNAUTHENTICATED"
    wait_until(lambda: site.command(sent)["message"] == reason, "it says why it waits", seconds=SECONDS_MAX)
    assert site.states(sent) == ["queued"]
    node.token = TOKEN
    site.becomes(sent, "succeeded")


def write_state(redis_url: str, device_id: UUID, node: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        state = {"deviceId": str(device_id), "connectionState": {"connected": True, "node": node}}
        client.set(f"device:state:{device_id}", json.dumps(state))
