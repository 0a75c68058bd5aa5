"""What the control plane tells about itself: metrics and traces."""

from federation.telemetry import catalogue, spans
from federation.telemetry.catalogue import CATALOGUE, NAMED_MAX, MetricSpec
from federation.telemetry.meters import Sample, count, gauge, make, show, stamp, timed

__all__ = [
    "CATALOGUE",
    "NAMED_MAX",
    "MetricSpec",
    "Sample",
    "catalogue",
    "count",
    "gauge",
    "make",
    "show",
    "spans",
    "stamp",
    "timed",
]
