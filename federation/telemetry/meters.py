"""Counting in the control plane, for Prometheus.

Decides: that what a process counts is process-wide, as its log is: services name a metric of the
catalogue where something happens, and need no object for it.
Leaves to others: names (``catalogue``), what is read only when somebody asks (``Observed``, filled
by the services' ``observe`` modules), serving (``cli.health``), pushing (``otlp``).
Invariants: counting costs no I/O and never fails for a value; a metric that nobody counts in this
process is shown without samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from federation.telemetry.catalogue import CATALOGUE, MetricSpec

# A family beside each counter, of names that no catalogue has; OTLP's samples carry the time.
disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Sample = tuple[MetricSpec, tuple[str, ...], float]
"""A gauge's value now: its metric, the values of its labels, the value."""

_Instrument = Counter | Gauge | Histogram

_instruments: dict[str, _Instrument] = {}


def make(spec: MetricSpec) -> _Instrument:
    """A new instrument for ``spec``, in no registry."""
    match spec.kind:
        case "counter":
            return Counter(spec.name, spec.help, spec.labels, registry=None)
        case "gauge":
            return Gauge(spec.name, spec.help, spec.labels, registry=None)
        case "histogram":
            bounds = SECONDS_BOUNDS
            return Histogram(spec.name, spec.help, spec.labels, registry=None, buckets=bounds)


def _instrument(spec: MetricSpec) -> _Instrument:
    found = _instruments.get(spec.name)
    if found is None:
        if spec not in CATALOGUE:
            raise ValueError(f"{spec.name} is not in the catalogue")
        found = _instruments[spec.name] = make(spec)
    return found


def count(spec: MetricSpec, *labels: str, by: float = 1) -> None:
    """Something happened."""
    found = _instrument(spec)
    assert isinstance(found, Counter)
    (found.labels(*labels) if labels else found).inc(by)


def gauge(spec: MetricSpec, value: float, *labels: str) -> None:
    """Something is so now."""
    found = _instrument(spec)
    assert isinstance(found, Gauge)
    (found.labels(*labels) if labels else found).set(value)


def stamp(spec: MetricSpec, *labels: str) -> None:
    """Something happened at this time (seconds since 1970)."""
    gauge(spec, time.time(), *labels)


@contextmanager
def timed(spec: MetricSpec) -> Iterator[None]:
    """How long the body takes."""
    found = _instrument(spec)
    assert isinstance(found, Histogram)
    with found.time():
        yield


class Observed(Collector):
    """Gauges that are read when somebody asks: ``specs`` from what ``read`` says then.

    ``read`` runs where the registry is collected; it may only look at values that do not change
    under it.
    """

    def __init__(self, specs: Sequence[MetricSpec], read: Callable[[], Iterable[Sample]]) -> None:
        self._specs = tuple(specs)
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """The families, without asking anybody."""
        return [GaugeMetricFamily(spec.name, spec.help, labels=spec.labels) for spec in self._specs]

    def collect(self) -> Iterable[Metric]:
        """All families with what they are now."""
        families = {
            spec.name: GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)
            for spec in self._specs
        }
        for spec, labels, value in self._read():
            families[spec.name].add_metric(labels, value)
        return families.values()


def show(
    registry: CollectorRegistry,
    specs: Iterable[MetricSpec],
    *,
    observed: Sequence[MetricSpec] = (),
    read: Callable[[], Iterable[Sample]] = tuple,
) -> None:
    """Show ``specs`` in ``registry``; ``observed`` are those of them that ``read`` says."""
    for spec in specs:
        if spec not in observed:
            registry.register(_instrument(spec))
    if observed:
        registry.register(Observed(observed, read))
