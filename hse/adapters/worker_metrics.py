"""What the worker counts about itself, in Prometheus' format; the names of all of it."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from hse.adapters.gauges import read_when_asked

COMMAND_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0, 3600.0)


class WorkerMetrics:
    """The counters of one worker."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.commands_handed_over = Counter(
            "hse_worker_commands_handed_over", "Commands handed to nodes, each try counted.", registry=registry
        )
        self.commands_not_taken = Counter(
            "hse_worker_commands_not_taken",
            "Tries that ended with the command surely not at the device.",
            registry=registry,
        )
        self.commands_ended = Counter(
            "hse_worker_commands_ended", "Commands that ended here, by their state.", ["state"], registry=registry
        )
        self.command_seconds = Histogram(
            "hse_worker_command_seconds",
            "From a command's queueing to its end.",
            buckets=COMMAND_BUCKETS,
            registry=registry,
        )
        self.command_streams = Gauge(
            "hse_worker_command_streams", "Calls to nodes that wait for results.", registry=registry
        )
        self.devices_waited_for = Gauge(
            "hse_worker_command_queues", "Devices that commands wait for.", registry=registry
        )

    def read_outbox(self, outcomes: Callable[[], dict[str, float]], sizes: Callable[[], dict[str, float]]) -> None:
        """What becomes of relevant events, and how many wait."""
        self.read_when_asked(
            "hse_worker_relevant_events", "Relevant events, by what became of them.", outcomes, "outcome"
        )
        text = "Relevant events that wait, for how many seconds the oldest has, and those that are parked."
        self.read_when_asked("hse_worker_outbox", text, sizes, "what")

    def read_when_asked(self, name: str, text: str, read: Callable[[], dict[str, float]], label: str) -> None:
        """A gauge that is read when somebody asks: its values by the value of its one label."""
        read_when_asked(self.registry, name, text, read, label)
