"""Snapshots as Envoy resources: what gateways read, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import health_check_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from federation.model.balancing import OutlierDetection
from federation.model.base import ClusterId, Region
from federation.model.snapshot import (
    ConnectionLimits,
    Endpoint,
    EndpointSet,
    FilterChain,
    Forward,
    HeaderChanges,
    HeaderMatch,
    HealthCheck,
    Keepalive,
    Listener,
    ListenerKind,
    LocalityEndpoints,
    MatchKind,
    PathMatch,
    PeerTls,
    Protocol,
    Refuse,
    Retry,
    Route,
    RouteMatch,
    RouteTable,
    Snapshot,
    Timeouts,
    TlsSecret,
    TlsTermination,
    Upstream,
    VirtualHost,
    Weighted,
)
from federation.wire.xds import NodeView, to_resources

CLUSTER = ClusterId("us-west-1")
NODE = NodeView(address="127.0.0.1", port_offset=20_000)


def spelled(message: Message) -> dict[str, Any]:
    """`message` as JSON with the field names of the protos."""
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found


def listener_of(source: Listener) -> Any:
    return to_resources(Snapshot(cluster=CLUSTER, listeners=(source,)), NODE).listeners[source.name]


def route_of(**parts: Any) -> dict[str, Any]:
    fields = {
        "name": "app/users/rule-0",
        "rule": "GRPCRoute app/users rule 0",
        "match": RouteMatch(path=PathMatch(MatchKind.PREFIX, "/")),
        "action": Forward((Weighted("service/app/users/9090", 1),)),
    }
    host = VirtualHost(hostname="*", routes=(Route(**(fields | parts)),))
    table = RouteTable(name="infra/gw/443", virtual_hosts=(host,))
    resources = to_resources(Snapshot(cluster=CLUSTER, route_tables=(table,)), NODE)
    (route,) = spelled(resources.routes["infra/gw/443"])["virtual_hosts"][0]["routes"]
    found: dict[str, Any] = route
    return found


def cluster_of(**parts: Any) -> Any:
    upstream = Upstream(name="u", **({"connect_timeout_ms": 1500} | parts))
    return to_resources(Snapshot(cluster=CLUSTER, upstreams=(upstream,)), NODE).clusters["u"]


INGRESS = Listener(
    name="infra/gw/443",
    kind=ListenerKind.INGRESS,
    port=443,
    chains=(
        FilterChain("exact", ("a.example.com",), TlsTermination(("infra/cert",))),
        FilterChain("any", (), TlsTermination(("infra/cert", "infra/other"))),
    ),
    route_table="infra/gw/443",
)


def test_an_ingress_listener() -> None:
    message = listener_of(INGRESS)
    address = message.address.socket_address
    assert (address.address, address.port_value) == ("127.0.0.1", 20_443)
    assert [list(chain.filter_chain_match.server_names) for chain in message.filter_chains] == [
        ["a.example.com"],
        [],
    ]
    manager = http_connection_manager_pb2.HttpConnectionManager()
    message.filter_chains[0].filters[0].typed_config.Unpack(manager)
    assert manager.rds.route_config_name == "infra/gw/443"
    assert manager.rds.config_source.HasField("ads")
    assert manager.codec_type == http_connection_manager_pb2.HttpConnectionManager.AUTO
    assert manager.strip_any_host_port
    context = tls_pb2.DownstreamTlsContext()
    message.filter_chains[1].transport_socket.typed_config.Unpack(context)
    secrets = context.common_tls_context.tls_certificate_sds_secret_configs
    assert [secret.name for secret in secrets] == ["infra/cert", "infra/other"]
    assert all(secret.sds_config.HasField("ads") for secret in secrets)
    assert not context.HasField("require_client_certificate")


def test_the_east_west_listener_asks_for_a_members_identity() -> None:
    allowed = ("spiffe://t/ns/federation/sa/gateway/cluster/us-east-1", "spiffe://t/other/*")
    message = listener_of(
        Listener(
            name="federation/east-west",
            kind=ListenerKind.EAST_WEST,
            port=15444,
            chains=(FilterChain("east-west", (), PeerTls(allowed)),),
            route_table="federation/east-west",
        )
    )
    context = tls_pb2.DownstreamTlsContext()
    message.filter_chains[0].transport_socket.typed_config.Unpack(context)
    assert context.require_client_certificate.value
    common = context.common_tls_context
    (identity,) = common.tls_certificate_sds_secret_configs
    trust = common.combined_validation_context.validation_context_sds_secret_config
    assert (identity.name, trust.name) == ("federation/identity", "federation/trust-bundle")
    assert not identity.HasField("sds_config"), "a static secret of the node"
    validation = common.combined_validation_context.default_validation_context
    matchers = [entry.matcher for entry in validation.match_typed_subject_alt_names]
    assert [matchers[0].exact, matchers[1].prefix] == [allowed[0], "spiffe://t/other/"]


def test_plain_text_has_no_transport_socket() -> None:
    plain = Listener("infra/gw/80", ListenerKind.INGRESS, 80, (FilterChain("http"),), "infra/gw/80")
    message = listener_of(plain)
    assert not message.filter_chains[0].HasField("transport_socket")
    assert not message.listener_filters


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PathMatch(MatchKind.EXACT, "/p.S/M"), {"path": "/p.S/M"}),
        (PathMatch(MatchKind.PREFIX, "/p.S/"), {"prefix": "/p.S/"}),
        (PathMatch(MatchKind.REGEX, "/p.*/M"), {"safe_regex": {"regex": "/p.*/M"}}),
    ],
)
def test_matches(path: PathMatch, expected: dict[str, Any]) -> None:
    header = HeaderMatch("x-env", MatchKind.EXACT, "test")
    match = route_of(match=RouteMatch(path=path, headers=(header,)))["match"]
    assert match == expected | {
        "headers": [{"name": "x-env", "string_match": {"exact": "test"}}],
        "grpc": {},
    }


def test_weights_keep_their_zeros() -> None:
    destinations = (Weighted("a", 3), Weighted("b", 0))
    clusters = route_of(action=Forward(destinations))["route"]["weighted_clusters"]["clusters"]
    assert clusters == [{"name": "a", "weight": 3}, {"name": "b", "weight": 0}]


def test_header_changes_double_the_percent_sign() -> None:
    changes = HeaderChanges(set=(("x-a", "100%"),), add=(("x-b", "b"),), remove=("x-c",))
    route = route_of(request_headers=changes)
    assert route["request_headers_to_add"] == [
        {
            "header": {"key": "x-a", "value": "100%%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        },
        {"header": {"key": "x-b", "value": "b"}},
    ]
    assert route["request_headers_to_remove"] == ["x-c"]


def test_a_refusal_is_an_answer_of_the_gateway() -> None:
    route = route_of(action=Refuse("no backend"))
    assert route["direct_response"] == {"status": 503, "body": {"inline_string": "no backend"}}
    assert "route" not in route


def test_a_callers_deadline_always_holds() -> None:
    action = route_of()["route"]
    assert action["timeout"] == "0s"
    assert action["max_stream_duration"] == {"grpc_timeout_header_max": "0s"}
    limited = route_of(timeouts=Timeouts(request_ms=1500, max_stream_ms=60_000, idle_ms=5_000))
    assert limited["route"]["timeout"] == "1.500s"
    assert limited["route"]["idle_timeout"] == "5s"
    assert limited["route"]["max_stream_duration"] == {
        "max_stream_duration": "60s",
        "grpc_timeout_header_max": "0s",
    }


def test_retries() -> None:
    retry = Retry(("5xx", "retriable-status-codes"), 3, 100, 5_000, (503,), (2, 14), 2_000)
    route = route_of(retry=retry, reason="half of it is gone")
    policy = route["route"]["retry_policy"]
    assert policy["retry_on"] == "5xx,retriable-status-codes,unavailable"
    assert policy["num_retries"] == 3
    assert policy["retriable_status_codes"] == [503]
    assert policy["retry_back_off"] == {"base_interval": "0.100s", "max_interval": "5s"}
    assert policy["per_try_timeout"] == "2s"
    assert route["metadata"]["filter_metadata"]["federation.gateway"] == {
        "rule": "GRPCRoute app/users rule 0",
        "reason": "half of it is gone",
        "grpc_codes": [2.0, 14.0],
    }


def test_no_attempts_is_no_retry() -> None:
    assert "retry_policy" not in route_of(retry=Retry(("5xx",), 0, 1, 1))["route"]


PEER = PeerTls(("spiffe://t/ns/federation/sa/gateway/cluster/us-east-1",), sni="east-west.t")


def test_an_upstream_speaks_http2_by_eds() -> None:
    message = cluster_of()
    assert message.eds_cluster_config.eds_config.HasField("ads")
    assert spelled(message)["connect_timeout"] == "1.500s"
    assert spelled(message)["lb_policy"] == "LEAST_REQUEST"
    options = http_protocol_options_pb2.HttpProtocolOptions()
    (packed,) = message.typed_extension_protocol_options.values()
    packed.Unpack(options)
    http2 = options.explicit_http_config.http2_protocol_options
    assert not http2.HasField("connection_keepalive")
    assert not message.transport_socket_matches


def test_an_upstream_may_speak_http1() -> None:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    message = cluster_of(
        protocol=Protocol.HTTP1, limits=ConnectionLimits(max_requests_per_connection=7)
    )
    (packed,) = message.typed_extension_protocol_options.values()
    packed.Unpack(options)
    assert options.explicit_http_config.WhichOneof("protocol_config") == "http_protocol_options"
    assert options.common_http_protocol_options.max_requests_per_connection.value == 7


@pytest.mark.parametrize("peers_first", [True, False])
def test_peers_are_spoken_to_by_mutual_tls_and_pinged(peers_first: bool) -> None:
    keepalive = Keepalive(interval_ms=300, timeout_ms=700)
    message = cluster_of(peer_tls=PEER, peer_keepalive=keepalive, peers_first=peers_first)
    secured, plain = message.transport_socket_matches
    assert dict(secured.match.items()) == {"peer": True}
    assert dict(plain.match.items()) == {}
    context = tls_pb2.UpstreamTlsContext()
    secured.transport_socket.typed_config.Unpack(context)
    assert context.sni == "east-west.t"
    options = http_protocol_options_pb2.HttpProtocolOptions()
    (packed,) = message.typed_extension_protocol_options.values()
    packed.Unpack(options)
    http2 = options.explicit_http_config.http2_protocol_options
    assert http2.HasField("connection_keepalive") is peers_first
    assert spelled(message.metadata)["filter_metadata"]["federation.gateway"] == {
        "peer_keepalive": {"interval_ms": 300.0, "timeout_ms": 700.0}
    }


def test_ejection_limits_and_checks() -> None:
    message = spelled(
        cluster_of(
            outlier=OutlierDetection(consecutive_gateway_failures=None, max_ejection_percent=0),
            limits=ConnectionLimits(max_connections=10, max_pending_requests=5),
            health_check=HealthCheck(1_000, 500, 3, 1, "p.S", "app/users:9090"),
        )
    )
    outlier = message["outlier_detection"]
    assert (outlier["consecutive_5xx"], outlier["enforcing_consecutive_5xx"]) == (5, 100)
    assert outlier["enforcing_consecutive_gateway_failure"] == 0
    assert outlier["enforcing_success_rate"] == outlier["enforcing_failure_percentage"] == 0
    assert outlier["max_ejection_percent"] == 0
    (thresholds,) = message["circuit_breakers"]["thresholds"]
    assert (thresholds["max_connections"], thresholds["max_pending_requests"]) == (10, 5)
    (check,) = message["health_checks"]
    assert check["grpc_health_check"] == {
        "service_name": "p.S",
        "initial_metadata": [
            {"header": {"key": "x-federation-destination", "value": "app/users:9090"}}
        ],
    }


def test_endpoints_with_priorities_peers_and_drains() -> None:
    local = Endpoint("10.0.0.1", 8080, draining=True, drain_grace_ms=30_000)
    peer = Endpoint("10.1.0.1", 15444, peer=True)
    source = EndpointSet(
        "u",
        (
            LocalityEndpoints(CLUSTER, Region("us-west"), 0, 3, (local,)),
            LocalityEndpoints(ClusterId("us-east-1"), Region("us-east"), 1, 1, (peer,)),
        ),
    )
    resources = to_resources(Snapshot(cluster=CLUSTER, endpoint_sets=(source,)), NODE)
    first, second = resources.endpoints["u"].endpoints
    assert (first.locality.region, first.locality.zone) == ("us-west", "us-west-1")
    assert (first.priority, first.load_balancing_weight.value) == (0, 3)
    (endpoint,) = first.lb_endpoints
    assert endpoint.health_status == health_check_pb2.HealthStatus.DRAINING
    assert spelled(endpoint.metadata)["filter_metadata"] == {
        "federation.gateway": {
            "cluster_id": "us-west-1",
            "peer": False,
            "drain_grace_ms": 30_000.0,
        }
    }
    (endpoint,) = second.lb_endpoints
    assert second.priority == 1
    assert spelled(endpoint.metadata)["filter_metadata"] == {
        "federation.gateway": {"cluster_id": "us-east-1", "peer": True},
        "envoy.transport_socket_match": {"peer": True},
    }


def test_secrets_travel_and_are_never_printed() -> None:
    secret = TlsSecret("infra/cert", b"CERTIFICATE", b"KEY")
    snapshot = Snapshot(cluster=CLUSTER, secrets=(secret,))
    message = to_resources(snapshot, NODE).secrets["infra/cert"]
    assert message.tls_certificate.private_key.inline_bytes == b"KEY"
    assert "KEY" not in repr(snapshot)


def test_only_listeners_depend_on_the_node() -> None:
    snapshot = Snapshot(cluster=CLUSTER, listeners=(INGRESS,), upstreams=(Upstream("u", 1),))
    first, second = to_resources(snapshot, NODE), to_resources(snapshot, NodeView())
    assert first.clusters == second.clusters
    assert first.listeners != second.listeners
    again = to_resources(snapshot, NODE)
    for name, message in first.listeners.items():
        body = message.SerializeToString(deterministic=True)
        assert again.listeners[name].SerializeToString(deterministic=True) == body
