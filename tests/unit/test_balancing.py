"""Load balancing and ejection: from a policy to the snapshot, to xDS, and back in the gateway."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2
from google.protobuf.json_format import MessageToDict

from federation.model.balancing import (
    Balancing,
    BalancingPolicy,
    FailurePercentage,
    HashKey,
    HashSource,
    OutlierDetection,
    SlowStart,
)
from federation.model.base import ClusterId
from federation.model.snapshot import ConnectionLimits, Snapshot, Upstream
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all
from federation.wire.xds import NodeView, to_resources
from gateway.xds_translate import Kind, UnsupportedFieldError, translate_message
from tests.testkit.routing import EVEN, compiled, parse, routes_of, service

GROUP = "gateway.networking.k8s.io"

ROUTE = f"""
apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: 80, protocol: HTTP}}]
---
apiVersion: {GROUP}/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - backendRefs: [{{name: user-service, port: 9090}}]
---
"""


def policy(body: str) -> str:
    return f"""
apiVersion: {GROUP}/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: p, namespace: app}}
spec:
  targetRef: {{group: {GROUP}, kind: GRPCRoute, name: users}}
{body}
"""


def snapshot_of(body: str) -> Snapshot:
    objects = [*parse(ROUTE + policy(body)), *service("app/user-service")]
    return compiled(objects, EVEN).snapshot


def upstream_of(body: str) -> Upstream:
    (found,) = [it for it in snapshot_of(body).upstreams if it.name.startswith("service/")]
    return found


KEYED = "{type: ConsistentHash, consistentHash: {%s}}"
HASHED = "loadBalancer: {type: ConsistentHash, consistentHash: "
HASHED_ON_USER = (HashKey(HashSource.HEADER, "x-user"),)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{}", Balancing()),
        ("{type: LeastRequest}", Balancing()),
        (
            "{type: RoundRobin, slowStart: {window: 30s}}",
            Balancing(BalancingPolicy.ROUND_ROBIN, slow_start=SlowStart(30_000)),
        ),
        (
            "{type: PeakEWMA, slowStart: {window: 1m, minWeightPercent: 5}}",
            Balancing(BalancingPolicy.PEAK_EWMA, slow_start=SlowStart(60_000, 5)),
        ),
        (
            "{type: ConsistentHash, consistentHash: {type: Header, header: {name: X-User}}}",
            Balancing(BalancingPolicy.MAGLEV, HASHED_ON_USER),
        ),
        (
            KEYED % "type: Headers, tableSize: 1021, headers: [{name: x-a}, {name: x-b}]",
            Balancing(
                BalancingPolicy.MAGLEV,
                (HashKey(HashSource.HEADER, "x-a"), HashKey(HashSource.HEADER, "x-b")),
                table_size=1021,
            ),
        ),
        (
            KEYED % "type: Cookie, algorithm: RingHash, cookie: {name: Sid}",
            Balancing(BalancingPolicy.RING_HASH, (HashKey(HashSource.COOKIE, "Sid"),)),
        ),
        (
            "{type: ConsistentHash, consistentHash: {type: SourceIP}}",
            Balancing(BalancingPolicy.MAGLEV, (HashKey(HashSource.SOURCE_IP),)),
        ),
    ],
)
def test_a_policy_chooses_how_endpoints_are_chosen(spec: str, expected: Balancing) -> None:
    snapshot = snapshot_of(f"  loadBalancer: {spec}")
    (upstream,) = [it for it in snapshot.upstreams if it.name.startswith("service/")]
    assert upstream.balancing == expected
    objects = [
        *parse(ROUTE + policy(f"  loadBalancer: {spec}")),
        *service("app/user-service"),
    ]
    (route,) = routes_of(compiled(objects, EVEN), "*", table="app/gw/80")
    assert route.hash_on == expected.hash_on


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("loadBalancer: {type: Random}", "loadBalancer.type"),
        ("loadBalancer: {type: ConsistentHash}", "consistentHash is needed"),
        (
            "loadBalancer: {type: LeastRequest, consistentHash: {type: SourceIP}}",
            "consistentHash is not for type LeastRequest",
        ),
        (
            "loadBalancer: {type: ConsistentHash, consistentHash: {type: Header}}",
            "header is needed for type Header",
        ),
        (
            HASHED + "{type: SourceIP, cookie: {name: c}}}",
            "cookie is not for type SourceIP",
        ),
        (
            HASHED + "{type: SourceIP, tableSize: 1000}}",
            "loadBalancer.consistentHash.tableSize: must be a prime, got 1000",
        ),
        (
            HASHED + "{type: SourceIP, tableSize: 5000017}}",
            "loadBalancer.consistentHash.tableSize: must be between 2 and 5000011, got 5000017",
        ),
        (
            HASHED + "{type: SourceIP, algorithm: RingHash, tableSize: 1021}}",
            "tableSize is for algorithm Maglev only",
        ),
        (
            HASHED + "{type: Header, header: {name: 'a b'}}}",
            "loadBalancer.consistentHash.header.name: must be usable as the name",
        ),
        (
            HASHED + "{type: SourceIP}, slowStart: {window: 1s}}",
            "slowStart is not for type ConsistentHash",
        ),
        ("loadBalancer: {slowStart: {window: 0s}}", "loadBalancer.slowStart.window: must be"),
        ("loadBalancer: {slowStart: {window: 2h}}", "loadBalancer.slowStart.window: must be"),
        (
            "loadBalancer: {slowStart: {window: 1s, minWeightPercent: 0}}",
            "loadBalancer.slowStart.minWeightPercent: must be between 1 and 100, got 0",
        ),
        ("loadBalancer: {slow: 1}", "loadBalancer.slow: unknown field"),
        (
            "circuitBreaker: {failurePercentage: {threshold: 101}}",
            "circuitBreaker.failurePercentage.threshold: must be between 1 and 100, got 101",
        ),
        (
            "circuitBreaker: {failurePercentage: {requestVolume: 1000001}}",
            "circuitBreaker.failurePercentage.requestVolume: must be between 1 and 1000000",
        ),
        (
            "circuitBreaker: {maxEjectionTime: 10s}",
            "maxEjectionTime must not be shorter than baseEjectionTime",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_with_its_path(body: str, message: str) -> None:
    decoded = decode_all(parse_documents(policy(f"  {body}"), origin="p.yaml"))
    (refused,) = decoded.rejected
    assert message in refused.message


def test_ejection_by_the_share_of_failures() -> None:
    assert upstream_of("  circuitBreaker: {}").outlier == OutlierDetection()
    body = "  circuitBreaker: {failurePercentage: {}, baseEjectionTime: 1s, maxEjectionTime: 5s}"
    assert upstream_of(body).outlier == OutlierDetection(
        failure_percentage=FailurePercentage(), base_ejection_ms=1_000, max_ejection_ms=5_000
    )
    body = (
        "  circuitBreaker: {failurePercentage: {threshold: 40, requestVolume: 7, minimumHosts: 2}}"
    )
    outlier = upstream_of(body).outlier
    assert outlier is not None
    assert outlier.failure_percentage == FailurePercentage(40, 7, 2)


# xDS and back.


def cluster_of(**fields: Any) -> cluster_pb2.Cluster:
    upstream = Upstream("u", connect_timeout_ms=1_000, **fields)
    snapshot = Snapshot(cluster=ClusterId("west"), upstreams=(upstream,))
    return to_resources(snapshot, NodeView()).clusters["u"]


def body_of(message: cluster_pb2.Cluster) -> dict[str, Any]:
    return dict(translate_message(Kind.CLUSTERS, message).body)


@pytest.mark.parametrize(
    ("balancing", "policy_name", "fields"),
    [
        (Balancing(), "LEAST_REQUEST", {"lb": "least_request"}),
        (
            Balancing(BalancingPolicy.ROUND_ROBIN, slow_start=SlowStart(1_500, 20)),
            "ROUND_ROBIN",
            {"lb": "round_robin", "slow_start": {"window_ms": 1_500, "min_percent": 20}},
        ),
        (
            Balancing(BalancingPolicy.PEAK_EWMA, slow_start=SlowStart(1_000)),
            "LEAST_REQUEST",
            {"lb": "peak_ewma", "slow_start": {"window_ms": 1_000, "min_percent": 10}},
        ),
        (
            Balancing(BalancingPolicy.RING_HASH, HASHED_ON_USER),
            "RING_HASH",
            {"lb": "ring_hash", "hash_on": [{"header": "x-user"}]},
        ),
        (
            Balancing(
                BalancingPolicy.MAGLEV,
                (HashKey(HashSource.COOKIE, "sid"), HashKey(HashSource.SOURCE_IP)),
                table_size=1021,
            ),
            "MAGLEV",
            {
                "lb": "maglev",
                "hash_on": [{"cookie": "sid"}, {"source": True}],
                "table_size": 1021,
            },
        ),
    ],
)
def test_balancing_survives_xds(
    balancing: Balancing, policy_name: str, fields: dict[str, Any]
) -> None:
    message = cluster_of(balancing=balancing)
    assert cluster_pb2.Cluster.LbPolicy.Name(message.lb_policy) == policy_name
    body = body_of(message)
    known = ("lb", "hash_on", "table_size", "slow_start")
    assert {name: body[name] for name in known if name in body} == fields


def test_routes_tell_envoy_the_keys() -> None:
    body = (
        "  loadBalancer: {type: ConsistentHash, consistentHash: {type: Header, "
        "header: {name: X-User}}}"
    )
    table = to_resources(snapshot_of(body), NodeView()).routes["app/gw/80"]
    action: route_components_pb2.RouteAction = table.virtual_hosts[0].routes[0].route
    (found,) = [MessageToDict(it) for it in action.hash_policy]
    assert found == {"header": {"headerName": "x-user"}}


@pytest.mark.parametrize("share", [None, FailurePercentage(40, 7, 2)])
def test_ejection_survives_xds(share: FailurePercentage | None) -> None:
    message = cluster_of(outlier=OutlierDetection(failure_percentage=share))
    enforced = message.outlier_detection.enforcing_failure_percentage
    assert enforced.value == (0 if share is None else 100)
    assert body_of(message)["outlier"].get("failure_percentage") == (
        None
        if share is None
        else {"threshold_percent": 40, "request_volume": 7, "minimum_hosts": 2}
    )


def test_the_bound_of_open_requests_survives_xds() -> None:
    assert body_of(cluster_of())["max_requests"] is None
    limits = ConnectionLimits(max_requests=7)
    assert body_of(cluster_of(limits=limits))["max_requests"] == 7


def with_lb(**fields: Any) -> cluster_pb2.Cluster:
    message = cluster_of()
    message.MergeFrom(cluster_pb2.Cluster(**fields))
    return message


def test_what_balancing_cannot_do_is_refused_with_its_path() -> None:
    random = with_lb(lb_policy=cluster_pb2.Cluster.RANDOM)
    with pytest.raises(UnsupportedFieldError, match=r"^lb_policy: must be LEAST_REQUEST, "):
        body_of(random)
    without_keys = with_lb(lb_policy=cluster_pb2.Cluster.MAGLEV)
    with pytest.raises(UnsupportedFieldError, match=r"^metadata.federation.gateway.hash_on: must"):
        body_of(without_keys)
    unknown = with_lb()
    unknown.metadata.filter_metadata["federation.gateway"].update({"load_balancer": "best"})
    with pytest.raises(UnsupportedFieldError, match=r"load_balancer: must be peak_ewma"):
        body_of(unknown)
    odd = with_lb(lb_policy=cluster_pb2.Cluster.RING_HASH)
    odd.metadata.filter_metadata["federation.gateway"].update({"hash_on": [{"query": "q"}]})
    with pytest.raises(UnsupportedFieldError, match=r"hash_on\[0\]: must be one of header"):
        body_of(odd)
    eager = with_lb()
    eager.least_request_lb_config.slow_start_config.aggression.default_value = 2.0
    with pytest.raises(UnsupportedFieldError, match=r"slow_start_config.aggression: not supp"):
        body_of(eager)
