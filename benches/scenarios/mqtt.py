"""Devices that publish with QoS 1: publications a second and the time to the PUBACK, beside Mosquitto and rumqttd.

All servers run at the same time and take turns within each round, for 1, 64 and 1024 clients. A turn: a closed loop finds how
much is acknowledged; an open loop at half of the slowest server's rate measures what a device waits, from the intended send, and
what a message costs. The core's loop is held back by its database: what counts is the rate at which nothing lags down to the
table, and every event must be a row afterwards. Brokers have nobody to pass the publications on to.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from benches.brokers import Broker, kept, mosquitto, rumqttd
from benches.context import Context, Steps
from benches.counters import cpu_of, cpu_of_tree, resident_bytes
from benches.fleet import Fleet
from benches.report import Figure, NotMeasured, Result, Wanted, check, figure_of
from benches.stack import Stack, running

NAME = "mqtt"
CLIENTS = (1, 64, 1024)
INFLIGHT = 16
BACKLOG_EVENTS = 150_000
IDLE_STEPS = (500, 4_000)
SETTLE_SECONDS = 2.0
CORE = "hse"
OFF = "mosquitto, persistence off"


def measure(context: Context) -> Result:
    """Measure all rounds."""
    rounds: list[dict[str, Any]] = []
    with running(context.data_root) as stack, contextlib.ExitStack() as peers:
        core = Broker(name=CORE, port=stack.ports["mqtt"], pid=stack.pid("ingest"))
        brokers, missing = _brokers(context, peers)
        servers = [core, *brokers]
        fleet = stack.add_devices(NAME, max(*CLIENTS, IDLE_STEPS[-1]))
        with context.task(NAME, (context.rounds * 2 * len(CLIENTS) + 1) * len(servers)) as steps:
            # Before any load: what a process once had it keeps, and idle connections would seem to take nothing.
            idle = {server.name: _Turn(context, steps, stack, fleet, "idle").idle(server) for server in servers}
            for number in range(context.rounds):
                one: dict[str, Any] = {}
                turn = _Turn(context, steps, stack, fleet, f"round {number + 1}")
                for num_clients in CLIENTS:
                    one |= turn.with_clients(servers, num_clients)
                rounds.append(one)
    notes = (
        f"one event a publication, {INFLIGHT} publications in flight a client, MQTT 3.1.1; latencies by an open loop",
        "a PUBACK of hse survives a power cut (fdatasync); those of the brokers are of messages in memory: persistent ones are"
        " written by Mosquitto every half an hour and when it stops",
        *missing,
    )
    of_idle = [Figure(name=f"an idle connection, {name}", unit="KiB", values=(value,)) for name, value in idle.items()]
    figures = (*_of_each(rounds, servers), *of_idle)
    return Result(scenario=NAME, figures=figures, rounds=tuple(rounds), notes=notes)


def _brokers(context: Context, peers: contextlib.ExitStack) -> tuple[list[Broker], list[str]]:
    found, missing = [], []
    for broker in (
        mosquitto(context.data_root, is_persistent=False),
        mosquitto(context.data_root, is_persistent=True),
        rumqttd(context.data_root),
    ):
        try:
            found.append(peers.enter_context(broker))
        except NotMeasured as reason:
            missing.append(f"not beside it: {reason}")
    if not found:
        raise NotMeasured("; ".join(missing))
    return found, missing


class _Turn:
    """One round's measurements."""

    def __init__(self, context: Context, steps: Steps, stack: Stack, fleet: Fleet, title: str) -> None:
        self._context = context
        self._steps = steps
        self._stack = stack
        self._fleet = fleet
        self._title = title

    def with_clients(self, servers: list[Broker], num_clients: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for server in servers:
            self._steps.next(f"{self._title}: {num_clients} clients, {server.name}, maximum")
            pace: dict[str, Any] = {"max": True}
            if server.name == CORE:
                pace |= {"metrics": self._stack.metrics_address, "backlog_max": BACKLOG_EVENTS}
            load, _ = self._load(server, num_clients, pace)
            found[f"{server.name}: {num_clients} maximum"] = load["acked_events_per_s"]
            if server.name == CORE:
                found[f"{server.name}: {num_clients} stored"] = load["stored_events_per_s"]
        for server in servers:
            found[f"{server.name}: {num_clients} of {CORE}"] = (
                found[f"{CORE}: {num_clients} maximum"] / found[f"{server.name}: {num_clients} maximum"]
            )
        rate = round(min(found[f"{server.name}: {num_clients} maximum"] for server in servers) / 2)
        for server in servers:
            self._steps.next(f"{self._title}: {num_clients} clients, {server.name}, {rate:,}/s")
            load, seconds = self._load(server, num_clients, {"rate": max(rate, 1)})
            for quantile in ("p50", "p99"):
                found[f"{server.name}: {num_clients} {quantile}"] = load["latency"][f"{quantile}_us"] / 1e3
            for whose, used in seconds.items():
                found[f"{server.name}: {num_clients} {whose}"] = used / load["events_acked"] * 1e6
        return {**found, f"{num_clients} offered": rate}

    def _load(self, server: Broker, num_clients: int, pace: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
        is_core = server.name == CORE
        if is_core:
            self._stack.empty_events()
        before, tree_before = cpu_of(server.pid), cpu_of_tree(self._stack.up_pid)
        options = {
            "address": server.address,
            "devices": self._fleet.path,
            "connections": num_clients,
            "inflight": INFLIGHT,
            "seconds": self._context.seconds,
            "warm_up": 1,
            "mqtt": True,
            **pace,
        }
        with kept(server):
            load = self._context.loadgen.run("acks", options)
        check(load["events_unanswered"] == 0, f"{server.name}: {load['events_unanswered']} were never answered")
        check(load["reconnects"] == 0, f"{server.name}: {load['reconnects']} connections were lost: {load['errors']}")
        if is_core:
            self._stack.check_rows(load["events_acked"])
        used = {"cpu": (cpu_of(server.pid) - before).total}
        if is_core:
            used["cpu, database and all"] = cpu_of_tree(self._stack.up_pid) - tree_before
        return load, used

    def idle(self, server: Broker) -> float:
        """Bytes of resident memory that an idle connection takes."""
        self._steps.next(f"{self._title}: idle connections, {server.name}")
        options = {"address": server.address, "devices": self._fleet.path, "steps": IDLE_STEPS, "mqtt": True}
        idle = self._context.loadgen.start("idle", options)
        resident = {}
        try:
            for step in IDLE_STEPS:
                check(idle.read()["connected"] == step, f"{server.name}: not all of {step} connections were opened")
                time.sleep(SETTLE_SECONDS)
                resident[step] = resident_bytes(server.pid)
                idle.go_on()
            idle.stop()
        finally:
            idle.kill()
        first, last = IDLE_STEPS
        return (resident[last] - resident[first]) / (last - first) / 1024


def _of_each(rounds: list[dict[str, Any]], servers: list[Broker]) -> Iterator[Figure]:
    for num_clients in CLIENTS:
        for server in servers[1:]:
            wanted = Wanted(text=">= 1.0", at_least=1.0) if server.name == OFF else None
            name = f"{num_clients} clients: hse / {server.name}"
            yield figure_of(name, "x", rounds, f"{server.name}: {num_clients} of {CORE}", wanted)
        for server in servers:
            title = f"{num_clients} clients, {server.name}"
            yield figure_of(title, "PUBACKs/s", rounds, f"{server.name}: {num_clients} maximum")
        for server in servers:
            for quantile in ("p50", "p99"):
                title = f"{num_clients} clients, {server.name}: PUBACK {quantile}"
                yield figure_of(title, "ms", rounds, f"{server.name}: {num_clients} {quantile}")
            title = f"{num_clients} clients, {server.name}: processor"
            yield figure_of(title, "us/message", rounds, f"{server.name}: {num_clients} cpu")
        title = f"{num_clients} clients, hse: processor, database and all"
        yield figure_of(title, "us/message", rounds, f"{CORE}: {num_clients} cpu, database and all")
        yield figure_of(f"{num_clients} clients: offered", "messages/s", rounds, f"{num_clients} offered")
