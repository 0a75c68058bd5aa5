"""The collector of the tests takes what OpenTelemetry's own exporters send, and shows all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.json.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.testkit.collector import COLLECTOR, Collector, running_collector, validated
from tests.testkit.federation import until

pytestmark = pytest.mark.timeout(900)  # it may have to be built first

ACCEPTED = 5
"""Seconds for one export."""


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    try:
        COLLECTOR.build()
    except NoProgramsError as error:
        pytest.skip(str(error))
    with running_collector(tmp_path) as collector:
        yield collector


def test_spans_and_metrics_are_shown_as_they_were_sent(collector: Collector) -> None:
    endpoint = f"http://127.0.0.1:{collector.http_port}/v1"
    resource = Resource.create({"service.name": "test"})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(
        SimpleSpanProcessor(OTLPSpanExporter(f"{endpoint}/traces", timeout=ACCEPTED))
    )
    tracer = tracing.get_tracer("tried")
    with (
        tracer.start_as_current_span("outer", attributes={"n": 7, "of": ["a", "b"]}) as outer,
        tracer.start_as_current_span("inner"),
    ):
        pass
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{endpoint}/metrics", timeout=ACCEPTED), export_interval_millis=60_000
    )
    metering = MeterProvider([reader], resource=resource)
    metering.get_meter("tried").create_counter("calls").add(3, {"code": "OK"})
    metering.shutdown()
    tracing.shutdown()

    until(lambda: len(collector.spans()) == 2 and collector.metrics(), collector.spans)
    (spans,) = collector.traces().values()
    named = {span.name: span for span in spans}
    assert named["outer"].attributes == {"n": 7, "of": ["a", "b"]}
    assert named["inner"].parent == named["outer"].id == f"{outer.get_span_context().span_id:016x}"
    assert named["outer"].parent == ""
    assert named["inner"].resource["service.name"] == "test"
    (calls,) = (metric for metric in collector.metrics() if metric.name == "calls")
    assert (calls.kind, calls.points[0]["asInt"]) == ("sum", "3")


def test_a_wrong_configuration_is_told(collector: Collector, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("receivers: {otlp: {protocols: {grpc: {no_such: 1}}}}\n")
    assert "no_such" in validated(wrong)
