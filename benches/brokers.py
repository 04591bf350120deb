"""MQTT brokers that the `mqtt` scenario measures beside the core: Mosquitto and rumqttd, each a process of its own on loopback."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.report import NotMeasured
from benches.stack import wait_until
from hse.embedded.ports import free_ports

STOP_TIMEOUT_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 30.0
TOPIC = b"hse/v1/events"

# Kind to it: nothing is logged, nothing is refused, and small packets leave at once.
MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
persistence {persistence}
persistence_location {directory}/
max_queued_messages 0
set_tcp_nodelay true
log_type error
user root
"""

RUMQTTD = """
id = 0

[router]
id = 0
max_connections = 20010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0

[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 100
dynamic_filters = true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A server that takes publications."""

    name: str
    port: int
    pid: int
    # A session that has subscribed and is away, for which the broker keeps what is published.
    has_keeper: bool = False

    @property
    def address(self) -> str:
        """Where devices connect."""
        return f"127.0.0.1:{self.port}"


@contextmanager
def mosquitto(data_root: Path, *, is_persistent: bool) -> Iterator[Broker]:
    """Run Mosquitto; raises `NotMeasured` where it is not installed."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(program).exists():
        raise NotMeasured("mosquitto is not installed: apt-get install mosquitto")
    name = f"mosquitto, persistence {'on' if is_persistent else 'off'}"
    persistence = "true" if is_persistent else "false"
    with _running(data_root, name, [program, "-c"], MOSQUITTO, persistence=persistence) as (port, pid):
        yield Broker(name=name, port=port, pid=pid, has_keeper=is_persistent)


@contextmanager
def rumqttd(data_root: Path) -> Iterator[Broker]:
    """Run rumqttd; raises `NotMeasured` where neither HSE_BENCH_RUMQTTD nor the path names it."""
    program = os.environ.get("HSE_BENCH_RUMQTTD") or shutil.which("rumqttd")
    if program is None:
        raise NotMeasured("rumqttd is not installed: cargo install rumqttd, and HSE_BENCH_RUMQTTD names it")
    with _running(data_root, "rumqttd", [program, "-q", "-c"], RUMQTTD) as (port, pid):
        yield Broker(name="rumqttd", port=port, pid=pid)


@contextmanager
def kept(broker: Broker) -> Iterator[None]:
    """Have the broker keep what is published meanwhile, if it is one that keeps anything; afterwards it forgets it."""
    if broker.has_keeper:
        _keeper(broker, is_clean=False)
    try:
        yield
    finally:
        if broker.has_keeper:
            _keeper(broker, is_clean=True)


@contextmanager
def _running(
    data_root: Path, name: str, command: list[str], configuration: str, **values: str
) -> Iterator[tuple[int, int]]:
    with tempfile.TemporaryDirectory(prefix="hse-bench-broker-", dir=data_root) as directory:
        (port,) = free_ports(1)
        # rumqttd reads what its name says; Mosquitto anything.
        path = Path(directory) / "broker.toml"
        path.write_text(configuration.format(port=port, directory=directory, **values), encoding="utf-8")
        with (Path(directory) / "broker.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen([*command, str(path)], stdout=log, stderr=log)
            try:
                wait_until(lambda: _answers(port), f"{name} answers", timeout_seconds=READY_TIMEOUT_SECONDS)
                yield port, process.pid
            finally:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


def _keeper(broker: Broker, *, is_clean: bool) -> None:
    """Subscribe in a session that outlives its connection, or end that session."""
    client_id = b"keeper"
    head = b"\0\4MQTT\4" + (b"\2" if is_clean else b"\0") + b"\0\x3c" + len(client_id).to_bytes(2, "big") + client_id
    subscribe = b"\0\1" + len(TOPIC).to_bytes(2, "big") + TOPIC + b"\1"
    with socket.create_connection(("127.0.0.1", broker.port), READY_TIMEOUT_SECONDS) as connection:
        connection.sendall(b"\x10" + bytes([len(head)]) + head)
        _expect(connection, 0x20)
        if not is_clean:
            connection.sendall(b"\x82" + bytes([len(subscribe)]) + subscribe)
            _expect(connection, 0x90)
        with contextlib.suppress(OSError):
            connection.sendall(b"\xe0\0")


def _expect(connection: socket.socket, first: int) -> None:
    head = _received(connection, 2)
    _received(connection, head[1])
    if head[0] != first:
        raise NotMeasured(f"the broker answered {head[0]:#x} and not {first:#x}")


def _received(connection: socket.socket, num_bytes: int) -> bytes:
    found = b""
    while len(found) < num_bytes:
        part = connection.recv(num_bytes - len(found))
        if not part:
            raise NotMeasured("the broker closed the connection of its keeper")
        found += part
    return found
