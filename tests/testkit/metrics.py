"""What this process has counted."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from federation.telemetry import MetricSpec, show


def sampled(spec: MetricSpec, *labels: str) -> float:
    """The value now of one series of this process; 0 if it has none."""
    registry = CollectorRegistry()
    show(registry, [spec])
    named = dict(zip(spec.labels, labels, strict=True))
    return registry.get_sample_value(spec.name, named) or 0.0
