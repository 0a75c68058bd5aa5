"""Prometheus' families as OTLP's metrics.

Decides: which of OTLP's kinds each becomes: counters monotonic cumulative sums, histograms
cumulative ones with explicit bounds, gauges gauges.
Leaves to others: sending (``otlp``), what is in the registry.
Invariants: labels are those of the scrape, and so are names, but for counters' ``_total``, which a
collector's Prometheus exporter adds: one dashboard reads both.
"""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family

CUMULATIVE = AggregationTemporality.CUMULATIVE


def metrics_data(
    registry: CollectorRegistry, resource: Resource, *, start_ns: int, now_ns: int
) -> MetricsData:
    """Everything in ``registry`` that has samples, as of ``now_ns``."""
    metrics = [
        metric
        for family in registry.collect()
        if (metric := _metric(family, start_ns, now_ns)) is not None
    ]
    scope = ScopeMetrics(InstrumentationScope("federation"), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Family, start_ns: int, now_ns: int) -> Metric | None:
    if family.type == "histogram":
        histograms = list(_histograms(family, start_ns, now_ns))
        if not histograms:
            return None
        return Metric(family.name, family.documentation, "", Histogram(histograms, CUMULATIVE))
    counter = family.type == "counter"
    shown = f"{family.name}_total" if counter else family.name
    points = [
        NumberDataPoint(sample.labels, start_ns if counter else 0, now_ns, sample.value)
        for sample in family.samples
        if sample.name == shown
    ]
    if not points:
        return None
    data = Sum(points, CUMULATIVE, is_monotonic=True) if counter else Gauge(points)
    return Metric(family.name, family.documentation, "", data)


def _histograms(family: Family, start_ns: int, now_ns: int) -> Iterator[HistogramDataPoint]:
    """One point for each set of labels; Prometheus' buckets count everything up to their bound."""
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        word = sample.labels.get("le") or sample.name.removeprefix(f"{family.name}_")
        found.setdefault(tuple(sorted(labels.items())), {})[word] = sample.value
    for series, values in found.items():
        total, counted = values["sum"], values["count"]
        bounds = sorted(float(word) for word in values if word not in {"sum", "count", "created"})
        upto = [values[word] for word in sorted(_buckets(values), key=float)]
        yield HistogramDataPoint(
            attributes=dict(series),
            start_time_unix_nano=start_ns,
            time_unix_nano=now_ns,
            count=int(counted),
            sum=total,
            bucket_counts=[
                int(here - before) for here, before in zip(upto, [0.0, *upto], strict=False)
            ],
            explicit_bounds=bounds[:-1],
            min=float("nan"),
            max=float("nan"),
        )


def _buckets(values: dict[str, float]) -> list[str]:
    return [word for word in values if word not in {"sum", "count", "created"}]
