"""Gauges whose values are read when somebody asks for them."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


def read_when_asked(
    registry: CollectorRegistry, name: str, text: str, read: Callable[[], dict[str, float]], label: str
) -> None:
    """Register a gauge that is read when somebody asks: its values by the value of its one label."""
    registry.register(_ReadWhenAsked(name, text, read, label))


class _ReadWhenAsked(Collector):
    def __init__(self, name: str, text: str, read: Callable[[], dict[str, float]], label: str) -> None:
        self._name, self._text, self._read, self._label = name, text, read, label

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label])
        for value, number in self._read().items():
            family.add_metric([value], number)
        yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(self._name, self._text, labels=[self._label])
