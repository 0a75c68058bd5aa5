"""The documents' observability in the lab: a real collector and a real Prometheus see the calls.

The collector stands beside the lab; a Service with an EndpointSlice leads to it, as one in a
cluster would.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.e2e.conftest import EAST, WEST
from tests.testkit import load
from tests.testkit.collector import Collector, Span, running_collector
from tests.testkit.lab import Lab
from tests.testkit.prometheus_server import needs_prometheus, running_prometheus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

DOCUMENT = Path(__file__).parents[1] / "manifests" / "7-observability.yaml"
COLLECTOR = """
apiVersion: v1
kind: Service
metadata: {{name: otel-collector, namespace: infra}}
spec: {{ports: [{{name: otlp-grpc, port: 4317, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: otel-collector-1
  namespace: infra
  labels: {{kubernetes.io/service-name: otel-collector}}
addressType: IPv4
ports: [{{name: otlp-grpc, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"""
SERVER, CLIENT = 2, 3
"""Kinds of spans in OTLP."""


@pytest.fixture
def collector(lab: Lab, tmp_path: Path) -> Iterator[Collector]:
    """A collector that the documents' policy sends to, unchanged but for its rules."""
    try:
        started = running_collector(tmp_path / "collector")
        found = started.__enter__()
    except NoProgramsError as error:
        pytest.skip(str(error))
    service = tmp_path / "collector.yaml"
    service.write_text(COLLECTOR.format(port=found.grpc_port))
    lab.fedctl("apply", "-f", str(service))
    lab.fedctl("apply", "-f", str(DOCUMENT), check=False)  # a PrometheusRule is nothing of ours
    try:
        yield found
    finally:
        policy = ("observabilitypolicy", "grpc-observability", "-n", "infra")
        lab.fedctl("delete", *policy)
        lab.fedctl("delete", "service", "otel-collector", "-n", "infra")
        lab.fedctl("delete", "endpointslice", "otel-collector-1", "-n", "infra")
        started.__exit__(None, None, None)


def of_cluster(span: Span) -> str:
    return str(span.resource.get("federation.cluster", ""))


def crossing(collector: Collector) -> list[Span]:
    """The spans of one call that went to the other region; empty as long as there is none."""
    for spans in collector.traces().values():
        clusters = {of_cluster(span) for span in spans}
        if len(spans) >= 4 and len(clusters) == 2:
            return spans
    return []


async def test_a_call_to_the_other_region_is_one_trace(lab: Lab, collector: Collector) -> None:
    """Of the 10 % that the policy samples: a server and a client span at each of two gateways."""
    async with load.steady(lab.gateway(WEST), lab.ca(), rate=100) as running:
        await asyncio.to_thread(
            lab.wait, lambda: bool(crossing(collector)), timeout_s=60, what="a whole trace"
        )
        await asyncio.to_thread(
            lab.wait, lambda: len(collector.logs()) > 200, timeout_s=60, what="200 lines"
        )
    assert running.failed == []
    by_id = {span.id: span for span in crossing(collector)}
    roots = [span for span in by_id.values() if span.parent not in by_id]
    assert [(span.kind, of_cluster(span)) for span in roots] == [(SERVER, WEST)]
    edges = {
        (of_cluster(by_id[span.parent]), by_id[span.parent].kind, of_cluster(span), span.kind)
        for span in by_id.values()
        if span.parent in by_id
    }
    assert edges == {
        (WEST, SERVER, WEST, CLIENT),
        (WEST, CLIENT, EAST, SERVER),
        (EAST, SERVER, EAST, CLIENT),
    }
    assert {span.attributes.get("cluster") for span in roots} == {"us-west-1"}, "the policy's tag"
    traces = {trace for trace, spans in collector.traces().items() if spans}
    calls = len(running.calls)
    assert 0.02 * calls < len(traces) < 0.25 * calls, "some 10 % of them are sampled"


async def test_each_call_is_a_line_and_a_number(lab: Lab, collector: Collector) -> None:
    async with load.steady(lab.gateway(WEST), lab.ca(), rate=50) as running:
        await asyncio.to_thread(
            lab.wait, lambda: len(collector.logs()) > 50, timeout_s=60, what="lines"
        )
        await asyncio.to_thread(
            lab.wait,
            lambda: any(
                m.name.startswith("grpc.server") or "grpc_server" in m.name
                for m in collector.metrics()
            ),
            timeout_s=60,
            what="metrics",
        )
    assert running.failed == []
    lines = [
        record.body if isinstance(record.body, dict) else record.attributes
        for record in collector.logs()
    ]
    text = str(lines)
    assert "OK" in text
    assert WEST in text
    assert "authorization" not in text.lower()


def scaled(document: Path) -> dict[str, Any]:
    """The documents' rules with minutes as 4 seconds: a test cannot wait for them."""
    rules = next(
        found
        for found in yaml.safe_load_all(document.read_text())
        if found["kind"] == "PrometheusRule"
    )
    text = re.sub(
        r"(\d+)m\b", lambda minutes: f"{4 * int(minutes[1])}s", yaml.safe_dump(rules["spec"])
    )
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


@needs_prometheus
async def test_the_error_alert_fires_when_servers_fail_and_clears(lab: Lab, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(scaled(DOCUMENT)))
    admins = [lab.admin(region, number) for region in (WEST, EAST) for number in (0, 1)]
    with running_prometheus(
        tmp_path / "prometheus", targets={"gateways": admins}, rules=[rules]
    ) as prometheus:

        def state() -> str:
            return prometheus.alerts().get("GRPCHighErrorRate", "")

        async def reaches(wanted: str) -> None:
            await asyncio.to_thread(
                lab.wait,
                lambda: state() == wanted,
                timeout_s=90,
                what=lambda: f"{wanted!r}, not {state()!r}",
            )

        async with load.steady(lab.gateway(WEST), lab.ca(), rate=50):
            await asyncio.to_thread(
                lab.wait,
                lambda: prometheus.targets() == dict.fromkeys(admins, ""),
                timeout_s=30,
                what=lambda: str(prometheus.targets()),
            )
            await asyncio.to_thread(
                lab.wait,
                lambda: bool(prometheus.query("sum(rate(grpc_server_handled_total[20s])) > 10")),
                timeout_s=30,
                what="calls are counted",
            )
            assert state() == ""
            for name in lab.pids("demo"):
                await asyncio.to_thread(lab.fedctl, "lab", "kill", name)
            await reaches("firing")
            for region in (WEST, EAST):
                await asyncio.to_thread(lab.fedctl, "lab", "restore", region)
            await reaches("")
        assert set(prometheus.rules().values()) == {""}
