"""The documents' ObservabilityPolicy in force, with a real agent, gateway and collector."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from tests.native.support import channel
from tests.testkit.bad_objects import Edge, route, running_edge
from tests.testkit.collector import COLLECTOR, Collector, running_collector
from tests.testkit.etcd import EtcdServer
from tests.testkit.federation import until
from tests.testkit.ports import free_port

pytestmark = pytest.mark.timeout(900)  # the collector may have to be built first

DOCUMENT = Path(__file__).parent.parent / "manifests" / "7-observability.yaml"
UPSTREAM = "service/infra/otel-collector/4317"

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: grpc-gateway, namespace: infra}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: grpc, port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}}
"""

SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {{name: otel-collector, namespace: infra}}
spec: {{ports: [{{name: otlp-grpc, port: 4317, appProtocol: grpc}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  {{name: otel-1, namespace: infra, labels: {{kubernetes.io/service-name: otel-collector}}}}
addressType: IPv4
ports: [{{name: otlp-grpc, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""


HUNG = """
---
apiVersion: v1
kind: Service
metadata: {{name: hung, namespace: app}}
spec: {{ports: [{{port: 4317, appProtocol: grpc}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: hung-1, namespace: app, labels: {{kubernetes.io/service-name: hung}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: hung, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: GRPCRoute, name: told}}
  accessLog:
    type: OpenTelemetry
    backendRef: {{name: hung, port: 4317}}
    format: {{type: JSON, fields: {{{fields}}}}}
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    try:
        COLLECTOR.build()
    except NoProgramsError as error:
        pytest.skip(str(error))
    with running_collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.fixture(scope="module")
def edge(etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DEPLOY_ENV", "the-gateways-own")
        with running_edge(etcd_server, tmp_path_factory.mktemp("edge")) as running:
            running.ports["told"] = free_port()
            running.federation.apply(
                GATEWAY.format(port=running.ports["told"]) + route("told", gateway="grpc-gateway")
            )
            until(lambda: running.call("told", "told") == "echo-1", lambda: running.call("told"))
            yield running


def document() -> str:
    """The policy as the documents have it."""
    return DOCUMENT.read_text().split("---")[0]


@pytest.fixture
def policy(edge: Edge, collector: Collector) -> Iterator[str]:
    """The document applied and in force, until the end of the test."""
    edge.federation.apply(document() + SERVICE.format(port=collector.grpc_port))
    programmed(edge)
    yield "grpc-observability"
    edge.federation.fedctl("delete", "observabilitypolicy", "-n", "infra", "grpc-observability")
    until(lambda: not exports(edge).get("named"), lambda: admin(edge))


def programmed(edge: Edge) -> None:
    edge.becomes(
        "observabilitypolicy",
        "grpc-observability",
        {
            "Accepted": "True, Accepted: ",
            "ResolvedRefs": "True, ResolvedRefs: ",
            "Programmed": "True, Programmed: 1/1 gateways",
        },
        at="grpc-gateway",
        namespace="infra",
    )


def admin(edge: Edge) -> dict[str, Any]:
    """What the gateway says about telemetry."""
    log = (edge.federation.directory / "gateway.log").read_text()
    found = re.search(r'gateway started.*?"?admin"?[=:]\s*"?([0-9.]+:[0-9]+)', log)
    assert found is not None, log
    with urllib.request.urlopen(f"http://{found[1]}/telemetry", timeout=10) as answer:
        body: dict[str, Any] = json.load(answer)
        return body


def exports(edge: Edge) -> dict[str, Any]:
    found: list[dict[str, Any]] = admin(edge)["exports"]
    return next((entry for entry in found if entry["collector"] == UPSTREAM), {})


def items(edge: Edge) -> int:
    """Spans and log records that the core has made so far."""
    return sum(entry.get("items", 0) for entry in admin(edge)["recorded"])


def calls(edge: Edge, count: int) -> None:
    for _ in range(count):
        assert edge.call("told", "told") == "echo-1"


@pytest.mark.usefixtures("policy")
def test_traces_and_logs_arrive(edge: Edge, collector: Collector) -> None:
    edge.becomes(
        "gateway",
        "grpc-gateway",
        {
            "gateway.networking.k8s.io/ObservabilityPolicyAffected": "True, PolicyAffected: "
            "ObservabilityPolicy infra/grpc-observability says what is told about the calls of "
            "this Gateway"
        },
        namespace="infra",
    )
    before = len(collector.logs())
    # Of ten calls one is recorded; that of 200 none is would be one run of a billion.
    calls(edge, 200)
    until(lambda: len(collector.logs()) >= before + 200, lambda: admin(edge))
    until(collector.spans, lambda: admin(edge))
    assert len(collector.logs()) == before + 200
    log = collector.logs()[-1]
    assert log.attributes["rule"] == "GRPCRoute app/told rule 0"
    assert log.attributes["method"] == "/told.Echo/Unary"
    assert log.resource["service.name"] == "federation-gateway"
    assert log.resource["service.instance.id"] == "west-a/gw-1"
    assert log.resource["federation.cluster"] == "west-a"
    (server, *_) = [span for span in collector.spans() if span.kind == 2]
    assert server.attributes["cluster"] == "us-west-1"
    assert server.attributes["environment"] == "the-gateways-own"
    assert len(collector.traces()) < 100
    assert exports(edge)["sent"]["logs"] >= 200
    until(collector.metrics, lambda: admin(edge))
    found = {metric.name: metric for metric in collector.metrics()}
    assert found["federation_gateway_state"].resource == log.resource
    assert exports(edge)["failing"] is None


@pytest.mark.usefixtures("policy")
def test_a_dead_collector_costs_records_and_no_call(edge: Edge) -> None:
    edge.federation.apply(SERVICE.format(port=free_port()))
    until(lambda: calls(edge, 1) or exports(edge)["failing"], lambda: admin(edge))
    calls(edge, 50)
    dropped = until(lambda: exports(edge)["dropped"].get("logs"), lambda: admin(edge))
    assert dropped.keys() == {"unreachable"}
    assert exports(edge)["queued_bytes"] <= 4 << 20
    # It is no matter of readiness, nor of the policy: the Service is there.
    programmed(edge)


def test_a_collector_that_hangs_costs_bounded_memory_and_no_call(edge: Edge) -> None:
    """It takes connections and answers nothing; each line is some 60 kB."""
    fields = ", ".join(f'f{number}: "%REQ(x-long)%"' for number in range(60))
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        edge.federation.apply(HUNG.format(port=port, fields=fields))

        def state() -> dict[str, Any]:
            found = [it for it in admin(edge)["exports"] if "/hung/" in it["collector"]]
            return found[0] if found else {}

        until(lambda: state().get("named"), lambda: admin(edge))
        sent = 0
        with channel(edge.address("told")) as client:
            method = client.unary_unary("/told.Echo/Unary")

            def more() -> Any:
                for _ in range(50):
                    method(b"", timeout=10, metadata=(("x-long", "x" * 1000),))
                return state()["dropped"].get("logs", {}).get("queue_full")

            while not more():
                sent += 50
                assert sent < 20_000, admin(edge)
                assert state()["queued_bytes"] <= 4 << 20
        recorded = [it for it in admin(edge)["recorded"] if "/hung/" in it.get("collector", "")]
        assert all(it["queued_bytes"] <= 4 << 20 for it in recorded)
        edge.becomes(
            "observabilitypolicy",
            "hung",
            {"Accepted": "True, Accepted: ", "ResolvedRefs": "True, ResolvedRefs: "},
            at="told",
        )
        gone = edge.federation.fedctl("delete", "observabilitypolicy", "-n", "app", "hung")
        assert gone.exit_code == 0, gone.output
        until(lambda: not state().get("named"), lambda: admin(edge))


@pytest.mark.usefixtures("policy")
def test_a_collector_that_goes_and_comes_back(edge: Edge, collector: Collector) -> None:
    deleted = edge.federation.fedctl("delete", "service", "-n", "infra", "otel-collector")
    assert deleted.exit_code == 0, deleted.output
    edge.becomes(
        "observabilitypolicy",
        "grpc-observability",
        {
            "ResolvedRefs": "False, BackendNotFound: spec.tracing.provider.backendRef: Service "
            "infra/otel-collector does not exist; nothing is sent",
        },
        at="grpc-gateway",
        namespace="infra",
    )
    until(lambda: not exports(edge)["named"], lambda: admin(edge))
    shown = edge.federation.fedctl(
        "describe", "observabilitypolicy", "grpc-observability", "-n", "infra"
    ).output
    assert "samplingRate: 10" in shown
    assert "BackendNotFound" in shown
    assert "Service infra/otel-collector does not exist; nothing is sent" in shown
    calls(edge, 5)
    before = len(collector.logs())
    edge.federation.apply(SERVICE.format(port=collector.grpc_port))
    programmed(edge)
    until(lambda: calls(edge, 1) or len(collector.logs()) > before, lambda: admin(edge))


def test_without_the_policy_nothing_is_sent(edge: Edge, collector: Collector) -> None:
    edge.federation.apply(document() + SERVICE.format(port=collector.grpc_port))
    programmed(edge)
    until(lambda: calls(edge, 1) or exports(edge).get("sent"), lambda: admin(edge))
    gone = edge.federation.fedctl(
        "delete", "observabilitypolicy", "-n", "infra", "grpc-observability"
    )
    assert gone.exit_code == 0, gone.output
    until(lambda: not exports(edge)["named"], lambda: admin(edge))
    recorded = items(edge)
    before = len(collector.logs())
    calls(edge, 20)
    assert items(edge) == recorded
    assert len(collector.logs()) == before
