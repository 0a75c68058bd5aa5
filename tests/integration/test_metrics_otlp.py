"""A real collector takes the gateway's metrics, and shows the numbers that a scrape shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import grpc
import pytest

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from gateway.metrics import families
from gateway.metrics.catalogue import CATALOGUE
from gateway.metrics.otlp import metric_records
from gateway.metrics.samples import Distribution
from tests.testkit.collector import COLLECTOR, Metric, plain, running_collector
from tests.testkit.federation import until
from tests.unit.test_gateway_metrics import CALL, FULL, reading

pytestmark = pytest.mark.timeout(900)  # it may have to be built first

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
NOTHING_REFUSED = (b"", b"\n\0")
"""Without a partial success, or with an empty one."""

STARTED_S, READ_S = 1_700_000_000.0, 1_700_000_060.5


def request_of(records: bytes) -> bytes:
    """Wrap ``ScopeMetrics`` into a ``ResourceMetrics`` and that into a request, both field by
    field."""

    def field(tag: int, body: bytes) -> bytes:
        length, encoded = len(body), bytearray([tag])
        while length > 0x7F:
            encoded.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([*encoded, length]) + body

    return field(0x0A, field(0x12, records))


def points(metrics: list[Metric], name: str) -> list[dict[str, Any]]:
    return [point for metric in metrics if metric.name == name for point in metric.points]


def test_a_collector_shows_every_family_with_its_numbers(tmp_path: Path) -> None:
    try:
        COLLECTOR.build()
    except NoProgramsError as error:
        pytest.skip(str(error))
    with running_collector(tmp_path) as collector:
        records = metric_records(reading(FULL), started_at_s=STARTED_S, at_s=READ_S)
        with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel:
            export = channel.unary_unary(
                EXPORT, request_serializer=request_of, response_deserializer=bytes
            )
            assert export(records, timeout=30, wait_for_ready=True) in NOTHING_REFUSED
        until(collector.metrics, lambda: "nothing came")
        shown = collector.metrics()

    kinds = {"counter": "sum", "gauge": "gauge", "histogram": "histogram"}
    assert {metric.name: metric.kind for metric in shown} == {
        spec.name.removesuffix("_total"): kinds[spec.kind] for spec in CATALOGUE
    }
    for family in families(reading(FULL)):
        got = points(shown, family.spec.name.removesuffix("_total"))
        labels = [plain(point.get("attributes")) for point in got]
        expected = [dict(zip(family.spec.labels, p.labels, strict=True)) for p in family.points]
        assert labels == expected, family.spec.name
        for point, sample in zip(got, family.points, strict=True):
            assert int(point["timeUnixNano"]) == READ_S * 1e9
            if family.spec.kind != "gauge":
                assert int(point["startTimeUnixNano"]) == STARTED_S * 1e9
            if not isinstance(sample.value, Distribution):
                value = float(point.get("asInt", point.get("asDouble", math.nan)))
                assert value == sample.value, family.spec.name
    (handling,) = points(shown, "grpc_server_handling_seconds")
    assert plain(handling["attributes"]) == dict(CALL)
    assert [int(count) for count in handling["bucketCounts"]] == [1, 4, 1]
    assert (int(handling["count"]), handling["sum"]) == (6, 0.009)
    assert handling["explicitBounds"] == [0.001, 0.002]
    requests = collector.requests("metrics")[0]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    sums = [metric["sum"] for metric in requests if "sum" in metric]
    assert {(it["aggregationTemporality"], it["isMonotonic"]) for it in sums} == {(2, True)}
