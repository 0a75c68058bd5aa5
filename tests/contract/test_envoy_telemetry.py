"""A stock Envoy made of our resources tells a real collector about its calls, and files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from federation.cli.lab.kubernetes.go_programs import NoProgramsError
from federation.derive.compile import CompileSettings
from federation.model.snapshot import Listener, ListenerKind
from federation.model.telemetry import FIELDS, Telemetry, Tracing
from federation.wire.xds import NodeView, to_resources
from tests.contract.test_envoy_accepts import bootstrap
from tests.contract.test_envoy_routes import backend, envoy
from tests.testkit.collector import COLLECTOR, Collector, Span, running_collector
from tests.testkit.federation import until
from tests.testkit.ports import free_port
from tests.testkit.routing import compiled, parse, service

pytestmark = pytest.mark.timeout(900)  # the collector may have to be built first

SERVER, CLIENT = 2, 3
"""Kinds of spans in OTLP."""

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: remote, port: {remote}, protocol: HTTP}}
  - {{name: json, port: {json}, protocol: HTTP}}
  - {{name: text, port: {text}, protocol: HTTP}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - {{name: some, matches: [{{method: {{service: p.Some}}}}],
      backendRefs: [{{name: main, port: 9090}}]}}
  - {{name: gone, matches: [{{method: {{service: p.Gone}}}}],
      backendRefs: [{{name: gone, port: 9090}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: every, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - {{matches: [{{method: {{service: p.Every}}}}], backendRefs: [{{name: main, port: 9090}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: never, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - {{matches: [{{method: {{service: p.Never}}}}], backendRefs: [{{name: main, port: 9090}}]}}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: gateway, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}
  tracing:
    provider: {{type: OTel, backendRef: {{name: otel-collector, port: 4317}}}}
    samplingRate: 25
    customTags:
    - {{name: cluster, literal: {{value: "100% west"}}}}
    - {{name: environment, env: {{name: DEPLOY_ENV, defaultValue: none}}}}
    - {{name: default, env: {{name: NOT_THERE, defaultValue: none}}}}
    - {{name: nothing, env: {{name: NOT_THERE}}}}
    - {{name: tenant, requestHeader: {{name: X-Tenant, defaultValue: unknown}}}}
    - {{name: team, requestHeader: {{name: x-team}}}}
    - {{name: secret, requestHeader: {{name: Authorization}}}}
  accessLog:
    type: OpenTelemetry
    backendRef: {{name: otel-collector, port: 4317}}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: every, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: GRPCRoute, name: every}}
  tracing: {{samplingRate: 100, customTags: [{{name: team, literal: {{value: every}}}}]}}
  accessLog:
    type: OpenTelemetry
    backendRef: {{name: otel-collector, port: 4317}}
    format: {{type: Text, text: "every %METHOD% %GRPC_STATUS% %REQ(x-tenant)% 100%%"}}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: never, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: GRPCRoute, name: never}}
  tracing: {{samplingRate: 0}}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: json, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: json}}
  accessLog:
    type: File
    path: {folder}/lines.json
    format:
      type: JSON
      fields:
        what: "%METHOD%"
        how: "%GRPC_STATUS%"
        by: "%RULE%"
        tries: "%TRIES%"
        whole: "share 100%% of %REQ(x-tenant)%"
        key: "%REQ(authorization)%"
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {{name: text, namespace: app}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: text}}
  accessLog:
    type: File
    path: {folder}/lines.txt
    format:
      type: Text
      text: "%METHOD% %AUTHORITY% %GRPC_STATUS% %HTTP_STATUS% %ENDPOINT% %RULE% 100%%"
"""


@dataclass(frozen=True, slots=True)
class Running:
    """An Envoy with its backend at ``endpoint``, a client for each of its listeners."""

    endpoint: str
    remote: grpc.aio.Channel
    json: grpc.aio.Channel
    text: grpc.aio.Channel


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    try:
        COLLECTOR.build()
    except NoProgramsError as error:
        pytest.skip(str(error))
    with running_collector(tmp_path / "collector") as running:
        yield running


@asynccontextmanager
async def telling(
    folder: Path, collector: Collector, change: Callable[[Listener], Listener] = lambda it: it
) -> AsyncIterator[Running]:
    """An Envoy that serves the manifests and tells ``collector``; files are in ``folder``."""
    ports = {name: free_port() for name in ("remote", "json", "text")}
    async with backend("v1") as endpoint:
        objects = [
            *parse(MANIFESTS.format(folder=folder, **ports)),
            *service("app/main", (endpoint,)),
            *service("app/otel-collector", (f"127.0.0.1:{collector.grpc_port}",), port=4317),
        ]
        result = compiled(objects, settings=CompileSettings(eastwest_port=None))
        snapshot = replace(result.snapshot, listeners=tuple(map(change, result.snapshot.listeners)))
        resources = to_resources(snapshot, NodeView(address="127.0.0.1", port_offset=0))
        config = folder / "envoy.json"
        config.write_text(json_format.MessageToJson(bootstrap(resources)))
        async with envoy(config, DEPLOY_ENV="the-gateways-own"):
            clients = {
                name: grpc.aio.insecure_channel(f"127.0.0.1:{port}") for name, port in ports.items()
            }
            try:
                for client in clients.values():
                    await asyncio.wait_for(client.channel_ready(), 30)
                yield Running(endpoint, **clients)
            finally:
                for client in clients.values():
                    await client.close()


async def test_the_entrance_for_other_clusters_records_what_callers_record(
    tmp_path: Path, collector: Collector
) -> None:
    """As such an entrance, but without the TLS between gateways."""

    def entrance(source: Listener) -> Listener:
        assert source.telemetry is not None
        assert source.telemetry.tracing is not None
        told = Telemetry(Tracing(source.telemetry.tracing.collector, 0))
        return replace(source, kind=ListenerKind.EAST_WEST, telemetry=told)

    async with telling(tmp_path, collector, entrance) as running:
        for number in range(1, 41):
            traceparent = parent(number, sampled=number % 2 == 0)
            assert await call(running.remote, "/p.Some/Get", traceparent=traceparent) == "OK"
            assert await call(running.remote, "/p.Some/Get") == "OK"
        await arrives(lambda: f"{40:032x}" in collector.traces())
    recorded = {span.trace for span in of_service(collector, "p.Some")}
    assert recorded == {f"{number:032x}" for number in range(2, 41, 2)}


async def call(channel: grpc.aio.Channel, method: str, **headers: str) -> str:
    """The name of the status that the call ends with."""
    metadata = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    made = channel.unary_unary(method)(b"", timeout=20, metadata=metadata)
    return (await made.code()).name


async def arrives(found: Callable[[], object]) -> None:
    """Wait for what ``found`` looks for; Envoy sends spans each 5 s."""
    await asyncio.to_thread(until, found, found, within_s=60)


def parent(trace: int, *, sampled: bool) -> str:
    return f"00-{trace:032x}-{7:016x}-0{int(sampled)}"


def of_service(collector: Collector, name: str, kind: int = SERVER) -> list[Span]:
    return [
        span
        for span in collector.spans()
        if span.kind == kind and f"/{name}/" in str(span.attributes.get("http.url", ""))
    ]


async def test_spans_are_sampled_and_tagged_as_the_policies_say(
    tmp_path: Path, collector: Collector
) -> None:
    async with telling(tmp_path, collector) as running:
        for _ in range(400):
            assert await call(running.remote, "/p.Some/Get", authorization="Bearer s3cret") == "OK"
        for _ in range(20):
            assert await call(running.remote, "/p.Every/Get", x_tenant="acme") == "OK"
            assert await call(running.remote, "/p.Never/Get") == "OK"
        unsampled, sampled = parent(1, sampled=False), parent(2, sampled=True)
        assert await call(running.remote, "/p.Every/Get", traceparent=unsampled) == "OK"
        assert await call(running.remote, "/p.Never/Get", traceparent=sampled) == "OK"
        assert await call(running.remote, "/p.Every/Get", traceparent=sampled) == "OK"
        # The last one is sent last.
        await arrives(lambda: f"{2:032x}" in collector.traces())
    assert of_service(collector, "p.Never") == [], "of no call, whatever its caller says"
    every = [span for span in of_service(collector, "p.Every") if span.trace != f"{2:032x}"]
    assert len(every) == 20, "each but the one whose caller records nothing"
    some = of_service(collector, "p.Some")
    assert {span.resource["service.name"] for span in every + some} == {"federation-gateway"}
    tags = {
        "cluster": "100% west",
        "environment": "the-gateways-own",
        "default": "none",
        "tenant": "acme",
        "team": "every",
        "secret": "[redacted]",
    }
    names = {*tags, "nothing"}
    assert [
        {name: value for name, value in span.attributes.items() if name in names} for span in every
    ] == [tags] * 20
    children = {span.parent for span in collector.spans() if span.kind == CLIENT}
    assert {span.id for span in every} <= children, "a span for each try"
    # A quarter of 400, six standard deviations.
    assert 48 <= len(some) <= 152
    assert {str(span.attributes.get("tenant")) for span in some} == {"unknown"}
    assert not any({"team", "nothing"} & span.attributes.keys() for span in some)
    assert "s3cret" not in str(collector.requests("traces")) + str(collector.requests("logs"))


async def test_lines_of_the_gateway_and_of_a_route_reach_the_collector(
    tmp_path: Path, collector: Collector
) -> None:
    async with telling(tmp_path, collector) as running:
        for _ in range(5):
            assert await call(running.remote, "/p.Some/Get", user_agent="me") == "OK"
            assert await call(running.remote, "/p.Every/Get", x_tenant="acme") == "OK"
        assert await call(running.remote, "/p.Gone/Get") == "UNAVAILABLE"
        assert await call(running.remote, "/p.Nowhere/Get") == "UNIMPLEMENTED"
        await arrives(lambda: len(collector.logs()) >= 12)
    lines = collector.logs()
    assert len(lines) == 12
    texts = [line.body for line in lines if line.body]
    assert texts == ["every /p.Every/Get OK acme 100%"] * 5, "the route's in place of the Gateway's"
    by_method = {line.attributes["method"]: line for line in lines if not line.body}
    assert set(by_method) == {"/p.Some/Get", "/p.Gone/Get", "/p.Nowhere/Get"}
    some = by_method["/p.Some/Get"].attributes
    assert set(some) == {word.lower() for word in FIELDS}
    assert some["rule"] == "GRPCRoute app/users rule some"
    assert some["endpoint"] == running.endpoint
    assert (some["grpc_status"], some["http_status"], some["tries"]) == ("OK", "200", "1")
    assert int(some["duration_us"]) > 0
    assert by_method["/p.Gone/Get"].attributes["grpc_status"] == "UNAVAILABLE"
    assert by_method["/p.Nowhere/Get"].attributes["grpc_status"] == "UNIMPLEMENTED"


async def test_files_hold_json_and_text(tmp_path: Path, collector: Collector) -> None:
    async with telling(tmp_path, collector) as running:
        key = {"authorization": "Bearer s3cret"}
        assert await call(running.json, "/p.Some/Get", x_tenant="acme", **key) == "OK"
        assert await call(running.text, "/p.Some/Get") == "OK"
        assert await call(running.text, "/p.Gone/Get") == "UNAVAILABLE"
        written, text = tmp_path / "lines.json", tmp_path / "lines.txt"
        await arrives(lambda: written.exists() and written.read_text())
        await arrives(lambda: text.exists() and text.read_text().count("\n") == 2)
    rule = "GRPCRoute app/users rule some"
    assert json.loads(written.read_text()) == {
        "what": "/p.Some/Get",
        "how": "OK",
        "by": rule,
        "tries": 1,
        "whole": "share 100% of acme",
        "key": "[redacted]",
    }
    first, second = text.read_text().splitlines()
    host = first.split()[1]
    assert first == f"/p.Some/Get {host} OK 200 {running.endpoint} {rule} 100%"
    assert second.startswith(f"/p.Gone/Get {host} UNAVAILABLE 200 - ")
