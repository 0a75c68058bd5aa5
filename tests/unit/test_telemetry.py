"""Names and numbers that the control plane tells about itself."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest

from federation.agent import OBSERVED as AGENT_OBSERVED
from federation.agent.published import PUBLICATIONS_KEPT, Publications
from federation.model.drain import Drain, DrainState, DrainTargetKind
from federation.model.resolved import DrainPhase
from federation.resolver import OBSERVED as RESOLVER_OBSERVED
from federation.resolver.observe import overdue_s
from federation.telemetry import (
    CATALOGUE,
    MetricSpec,
    catalogue,
    count,
    gauge,
    make,
    show,
    spans,
    timed,
)
from federation.telemetry.otlp import OtlpSettings
from federation.telemetry.otlp_metrics import metrics_data
from tests.testkit.prometheus import needs_promtool, promtool


def test_names_are_of_their_service_and_kind() -> None:
    names = [spec.name for spec in CATALOGUE]
    assert len(set(names)) == len(names)
    for spec in CATALOGUE:
        assert re.fullmatch(r"federation_(agent|resolver|dns)_[a-z_]+", spec.name)
        assert spec.name.endswith("_total") == (spec.kind == "counter"), spec.name
        assert spec.help.endswith(".") or ":" in spec.help, spec.help


def test_each_span_and_attribute_says_what_it_is() -> None:
    words = {value for name, value in vars(spans).items() if name.isupper() and type(value) is str}
    assert words == set(spans.SPANS) | set(spans.ATTRIBUTES)


def test_only_what_is_in_the_catalogue_is_counted() -> None:
    with pytest.raises(ValueError, match="federation_agent_invented_total is not in the catalogue"):
        count(MetricSpec("federation_agent_invented_total", "counter", "Invented."))


@needs_promtool
def test_prometheus_finds_nothing_wrong_with_what_is_shown() -> None:
    registry = CollectorRegistry()
    for spec in CATALOGUE:
        instrument = make(spec)
        registry.register(instrument)
        if spec.labels:
            instrument.labels(*("some" for _ in spec.labels))
    assert promtool("check", "metrics", given=generate_latest(registry)) == ""


def test_all_metrics_of_a_service_are_shown_and_no_others() -> None:
    for specs, observed in (
        (catalogue.AGENT, AGENT_OBSERVED),
        (catalogue.RESOLVER, RESOLVER_OBSERVED),
    ):
        registry = CollectorRegistry()
        show(registry, specs, observed=observed)
        shown = set(re.findall(r"# TYPE (\S+) ", generate_latest(registry).decode()))
        assert shown == {spec.name for spec in specs}


def test_metrics_become_otlp_as_they_are() -> None:
    registry = CollectorRegistry()
    for spec in (catalogue.LISTS, catalogue.CLOCK_SKEW, catalogue.COMPILE_SECONDS):
        registry.register(make(spec))
    show(
        second := CollectorRegistry(),
        [catalogue.FACTS, catalogue.PRESENT, catalogue.COMPILE_SECONDS],
    )
    count(catalogue.FACTS, by=3)
    gauge(catalogue.PRESENT, 1)
    with timed(catalogue.COMPILE_SECONDS):
        pass
    (resource,) = metrics_data(second, Resource({}), start_ns=5, now_ns=9).resource_metrics
    found = {metric.name: metric.data for metric in resource.scope_metrics[0].metrics}
    facts, present = (
        found[catalogue.FACTS.name.removesuffix("_total")],
        found[catalogue.PRESENT.name],
    )
    compiled = found[catalogue.COMPILE_SECONDS.name]
    assert isinstance(facts, Sum)
    assert isinstance(present, Gauge)
    assert isinstance(compiled, Histogram)
    assert facts.is_monotonic
    assert facts.data_points[0].value >= 3
    assert present.data_points[0].value == 1
    (point,) = compiled.data_points
    assert sum(point.bucket_counts) == point.count >= 1
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, None),
        (None, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, None),
        ("http://c:4318/", {}, "http://c:4318/v1/traces"),
    ],
)
def test_nothing_is_sent_unasked(
    given: str | None, environment: dict[str, str], expected: str | None
) -> None:
    settings = OtlpSettings.read(given, environment)
    assert (settings.url("traces") if settings else None) == expected


def test_opentelemetrys_own_variables_ask_too() -> None:
    settings = OtlpSettings.read(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})
    assert settings is not None
    assert settings.url("traces") is None  # the SDK reads the variable


def test_what_is_no_url_is_told() -> None:
    with pytest.raises(ValueError, match=r'"collector:4317" is no URL of an OTLP/HTTP receiver'):
        OtlpSettings.read("collector:4317", {})


def test_a_gateway_is_behind_by_the_oldest_answer_it_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.time", lambda: now)
    publications = Publications()
    for generation in (1, 2, 2, 3):
        publications.note(generation)
        now += 10.0
    assert publications.behind_s(3) == 0.0
    assert publications.behind_s(2) == 10.0
    assert publications.behind_s(0) == 40.0
    for generation in range(4, PUBLICATIONS_KEPT + 10):
        publications.note(generation)
    assert publications.behind_s(0) == 0.0  # what came before is forgotten; the clock stands still


@pytest.mark.parametrize(
    ("phase", "now_s", "returning_since_ms", "expected"),
    [
        (DrainPhase.RAMPING, 100.0, None, 0.0),
        (DrainPhase.DRAINING, 175.0, None, 15.0),
        (DrainPhase.DRAINED, 500.0, None, 0.0),
        (DrainPhase.DRAINED, 560.0, 500_000, 30.0),
        (DrainPhase.DRAINED, 520.0, 500_000, 0.0),
    ],
)
def test_a_drain_is_overdue_after_its_ramp_and_its_grace(
    phase: DrainPhase, now_s: float, returning_since_ms: int | None, expected: float
) -> None:
    spec = Drain(
        name="d", target_kind=DrainTargetKind.REGION, target="west", over_ms=30_000, grace_ms=30_000
    )
    state = DrainState(
        drain="d",
        spec=spec,
        started_at_ms=100_000,
        phase=phase,
        remaining_bp=0,
        returning_since_ms=returning_since_ms,
    )
    assert overdue_s(state, now_s) == expected


def test_without_an_endpoint_the_sdk_is_not_loaded() -> None:
    asked = (
        "import asyncio, sys\n"
        "import federation.cli.agent, federation.cli.resolver\n"
        "import federation.agent, federation.resolver\n"
        "from prometheus_client import CollectorRegistry\n"
        "from federation.telemetry.otlp import sending\n"
        "async def run():\n"
        "    told = sending(None, CollectorRegistry(), service='s', instance='i', attributes={})\n"
        "    async with told as tracer:\n"
        "        assert tracer is None\n"
        "asyncio.run(run())\n"
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry.sdk')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
