"""The metrics as OTLP, for whoever pushes them.

Decides: a counter is a cumulative, monotonic sum since the gateway's start, a histogram is
cumulative, a gauge a gauge. Names have no ``_total``: whoever shows them to Prometheus adds it, as
the Collector's exporter does.
Leaves to others: sending, and the resource and scope that the metrics are of.
Invariants: the same samples as a scrape shows. The bytes are those of OTLP 1.x, though the module
at hand may be older: what is used of it has had its field numbers since 0.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2

from gateway.metrics.samples import Distribution, Family, Reading, families

_CUMULATIVE: Final = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
_UNITS: Final = {"seconds": "s", "bytes": "By", "ratio": "1"}
_METRICS_TAG: Final = b"\x12"
"""Field 2 of ``ScopeMetrics``, a message."""


def metric_records(reading: Reading, *, started_at_s: float, at_s: float) -> bytes:
    """A serialized ``ScopeMetrics`` with metrics alone: its scope is put before it.

    Times are Unix seconds: when the counters began at 0, and when they were read. Families without
    samples are left out.
    """
    times = (_nanoseconds(started_at_s), _nanoseconds(at_s))
    parts = []
    for metric in _metrics(families(reading), times):
        body = metric.SerializeToString()
        parts += [_METRICS_TAG, _varint(len(body)), body]
    return b"".join(parts)


def _metrics(shown: Iterable[Family], times: tuple[int, int]) -> Iterator[metrics_pb2.Metric]:
    for family in shown:
        if not family.points:
            continue
        spec = family.spec
        metric = metrics_pb2.Metric(
            name=spec.name.removesuffix("_total"),
            description=spec.help,
            unit=_UNITS.get(spec.unit, ""),
        )
        if spec.kind == "histogram":
            metric.histogram.aggregation_temporality = _CUMULATIVE
            metric.histogram.data_points.extend(_distributions(family, times))
        elif spec.kind == "counter":
            metric.sum.aggregation_temporality = _CUMULATIVE
            metric.sum.is_monotonic = True
            metric.sum.data_points.extend(_numbers(family, times))
        else:
            metric.gauge.data_points.extend(_numbers(family, times))
        yield metric


def _numbers(family: Family, times: tuple[int, int]) -> Iterator[metrics_pb2.NumberDataPoint]:
    began, now = times
    for point in family.points:
        record = metrics_pb2.NumberDataPoint(
            attributes=_attributes(family, point.labels), time_unix_nano=now
        )
        if family.spec.kind == "counter":
            record.start_time_unix_nano = began
        if isinstance(point.value, int):
            record.as_int = int(point.value)
        elif isinstance(point.value, float):
            record.as_double = point.value
        yield record


def _distributions(
    family: Family, times: tuple[int, int]
) -> Iterator[metrics_pb2.HistogramDataPoint]:
    began, now = times
    for point in family.points:
        value = point.value
        if isinstance(value, Distribution):
            yield metrics_pb2.HistogramDataPoint(
                attributes=_attributes(family, point.labels),
                start_time_unix_nano=began,
                time_unix_nano=now,
                count=sum(value.counts),
                sum=value.sum,
                bucket_counts=value.counts,
                explicit_bounds=value.bounds,
            )


def _attributes(family: Family, labels: tuple[str, ...]) -> list[common_pb2.KeyValue]:
    pairs = zip(family.spec.labels, labels, strict=True)
    return [
        common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))
        for key, value in pairs
    ]


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _nanoseconds(at_s: float) -> int:
    return int(at_s * 1e9)
