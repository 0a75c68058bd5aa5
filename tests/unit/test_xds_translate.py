"""From the agent's xDS to the core's configuration: round trips, defaults, and refusals by path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from google.protobuf import any_pb2

from federation.model.balancing import OutlierDetection
from federation.model.base import ClusterId, Region
from federation.model.snapshot import (
    ConnectionLife,
    ConnectionLimits,
    Endpoint,
    EndpointSet,
    FilterChain,
    Forward,
    HeaderChanges,
    HeaderMatch,
    HealthCheck,
    Listener,
    ListenerKind,
    LocalityEndpoints,
    MatchKind,
    PathMatch,
    PeerTls,
    PingLimit,
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
from gateway.xds_translate import (
    HealthPlan,
    Kind,
    Piece,
    PieceId,
    UnsupportedFieldError,
    translate,
    translate_message,
)

IDENTITY = PieceId(Kind.SECRETS, "federation/identity")
TRUST = PieceId(Kind.SECRETS, "federation/trust-bundle")


def from_snapshot(**parts: Any) -> dict[PieceId, Piece]:
    """A snapshot with these parts, to xDS and back."""
    resources = to_resources(
        Snapshot(cluster=ClusterId("us-west-1"), **parts), NodeView("127.0.0.1", 20_000)
    )
    kinds = (
        (Kind.LISTENERS, resources.listeners),
        (Kind.ROUTE_TABLES, resources.routes),
        (Kind.CLUSTERS, resources.clusters),
        (Kind.ENDPOINTS, resources.endpoints),
        (Kind.SECRETS, resources.secrets),
    )
    pieces = [translate_message(kind, m) for kind, entries in kinds for m in entries.values()]
    return {piece.id: piece for piece in pieces}


def only_piece(**parts: Any) -> Piece:
    (piece,) = from_snapshot(**parts).values()
    return piece


def test_a_tls_listener_names_its_certificates_and_table() -> None:
    chains = (
        FilterChain("a", ("a.example.com",), TlsTermination(("infra/a",))),
        FilterChain("b", ("b.example.com",), TlsTermination(("infra/b", "infra/a"))),
    )
    listener = Listener("infra/gw/443", ListenerKind.INGRESS, 443, chains, "infra/gw/443")
    piece = only_piece(listeners=(listener,))
    assert piece.body == {
        "name": "infra/gw/443",
        "address": "127.0.0.1",
        "port": 20_443,
        "kind": "ingress",
        "tls": {
            "certificates": [],
            "client_ca": None,
            "client_optional": False,
            "allowed_spiffe": [],
            "chains": [
                {"server_names": ["a.example.com"], "certificates": ["infra/a"]},
                {"server_names": ["b.example.com"], "certificates": ["infra/b", "infra/a"]},
            ],
        },
        "connection": {},
        "route_table": "infra/gw/443",
    }
    assert piece.needs == {
        PieceId(Kind.ROUTE_TABLES, "infra/gw/443"),
        PieceId(Kind.SECRETS, "infra/a"),
        PieceId(Kind.SECRETS, "infra/b"),
    }


def test_passthrough_and_client_validation_travel_whole() -> None:
    web = TlsTermination(("infra/web",), client_ca="client-ca/infra/gw/443", client_optional=True)
    raw = (Weighted("service/app/raw/9090", 3), Weighted("service/app/old/9090", 0))
    chains = (
        FilterChain("web", (), web),
        FilterChain("app/raw/rule-0", ("raw.example.com", "*.example.org"), passthrough=raw),
    )
    listener = Listener("n", ListenerKind.INGRESS, 443, chains, "n")
    piece = only_piece(listeners=(listener,))
    assert piece.body["route_table"] == "n"
    assert piece.body["tls"] == {
        "certificates": ["infra/web"],
        "client_ca": "client-ca/infra/gw/443",
        "client_optional": True,
        "allowed_spiffe": [],
        "chains": [
            {
                "server_names": ["raw.example.com", "*.example.org"],
                "passthrough": {
                    "name": "app/raw/rule-0",
                    "weighted": [{"cluster": "service/app/raw/9090", "weight": 3}],
                    "idle_ms": None,
                },
            }
        ],
    }
    assert PieceId(Kind.CLUSTERS, "service/app/raw/9090") in piece.needs
    assert PieceId(Kind.SECRETS, "client-ca/infra/gw/443") in piece.needs


def test_a_listener_that_only_passes_through_has_no_table() -> None:
    chain = FilterChain("app/raw/rule-0", passthrough=(Weighted("c", 1),))
    piece = only_piece(listeners=(Listener("n", ListenerKind.INGRESS, 443, (chain,), "n"),))
    assert piece.body["route_table"] is None
    assert piece.needs == {PieceId(Kind.CLUSTERS, "c")}


def test_a_plain_listener_looks_at_no_bytes() -> None:
    chain = FilterChain("import", passthrough=(Weighted("a", 1), Weighted("b", 3)))
    listener = Listener("n", ListenerKind.INGRESS, 20000, (chain,), "", plain=True)
    piece = only_piece(listeners=(listener,))
    assert (piece.body["tls"], piece.body["route_table"]) == (None, None)
    assert piece.body["passthrough"] == {
        "name": "import",
        "weighted": [{"cluster": "a", "weight": 1}, {"cluster": "b", "weight": 3}],
        "idle_ms": None,
    }
    assert piece.needs == {PieceId(Kind.CLUSTERS, "a"), PieceId(Kind.CLUSTERS, "b")}


def test_tls_of_peers_may_end_before_bytes_go_on() -> None:
    tls = PeerTls(("spiffe://a/x",))
    name = "federation/east-west"
    chains = (
        FilterChain("tcp", ("p42.a.app.tcp.clusterset.local",), tls, (Weighted("local", 1),)),
        FilterChain("east-west", (), tls),
    )
    piece = only_piece(listeners=(Listener(name, ListenerKind.EAST_WEST, 15444, chains, name),))
    found = piece.body["tls"]
    assert found["allowed_spiffe"] == ["spiffe://a/x"]
    assert found["certificates"] == ["federation/identity"]
    (chain,) = found["chains"]
    assert chain["server_names"] == ["p42.a.app.tcp.clusterset.local"]
    assert chain["certificates"] == ["federation/identity"]
    assert chain["passthrough"]["weighted"] == [{"cluster": "local", "weight": 1}]


def test_the_life_of_connections_travels_whole() -> None:
    limit = PingLimit(min_interval_ms=10_000, without_calls=True, strikes=1)
    life = ConnectionLife(300_000, 1_800_000, 30_000, 60_000, 20_000, limit)
    listener = Listener(
        "n", ListenerKind.INGRESS, 80, (FilterChain("a"),), "n", sections=("a",), life=life
    )
    assert only_piece(listeners=(listener,)).body["connection"] == {
        "max_idle_ms": 300_000,
        "max_age_ms": 1_800_000,
        "max_age_grace_ms": 30_000,
        "ping_after_ms": 60_000,
        "ping_timeout_ms": 20_000,
        "ping_limit": {"min_interval_ms": 10_000, "without_calls": True, "strikes": 1},
    }


def test_the_east_west_listener_asks_for_peers_identities() -> None:
    tls = PeerTls(("spiffe://a/*", "spiffe://b/x"))
    name = "federation/east-west"
    listener = Listener(name, ListenerKind.EAST_WEST, 15444, (FilterChain("p", (), tls),), name)
    piece = only_piece(listeners=(listener,))
    assert piece.body["kind"] == "east_west"
    assert piece.body["tls"] == {
        "certificates": ["federation/identity"],
        "client_ca": "federation/trust-bundle",
        "client_optional": False,
        "chains": [],
        "allowed_spiffe": ["spiffe://a/*", "spiffe://b/x"],
    }
    assert {IDENTITY, TRUST} <= piece.needs


def test_a_route_keeps_its_match_split_headers_times_and_retries() -> None:
    route = Route(
        name="app/r/rule-0-match-1",
        rule="app/r/rule-0",
        match=RouteMatch(
            PathMatch(MatchKind.EXACT, "/pkg.S/M"),
            (
                HeaderMatch("x-env", MatchKind.EXACT, "canary"),
                HeaderMatch("v", MatchKind.REGEX, "[0-9]+"),
            ),
        ),
        action=Forward(
            (
                Weighted("one", 60, HeaderChanges(set=(("x-to", "100%"),))),
                Weighted("two", 0, response_headers=HeaderChanges(add=(("x-b", "v2"),))),
            )
        ),
        request_headers=HeaderChanges(remove=("x-token",)),
        timeouts=Timeouts(request_ms=1500, max_stream_ms=60_000, idle_ms=10_000),
        retry=Retry(("5xx",), 2, 200, 3000, (503,), (14, 2), 250),
    )
    piece = only_piece(route_tables=(RouteTable("t", (VirtualHost("*.example.com", (route,)),)),))
    (host,) = piece.body["virtual_hosts"]
    assert host["hostnames"] == ["*.example.com"]
    assert host["routes"] == [
        {
            "name": "app/r/rule-0",
            "match": {
                "path": {"exact": "/pkg.S/M"},
                "headers": [
                    {"name": "x-env", "exact": "canary"},
                    {"name": "v", "regex": "[0-9]+"},
                ],
                "grpc": True,
            },
            "request_headers": {"set": [], "add": [], "remove": ["x-token"]},
            "action": {
                "weighted": [
                    {
                        "cluster": "one",
                        "weight": 60,
                        "request_headers": {"set": [["x-to", "100%"]], "add": [], "remove": []},
                    },
                    {
                        "cluster": "two",
                        "weight": 0,
                        "response_headers": {"set": [], "add": [["x-b", "v2"]], "remove": []},
                    },
                ]
            },
            "timeout_ms": 1500,
            "max_stream_ms": 60_000,
            "idle_timeout_ms": 10_000,
            "retry": {
                "on": ["5xx", "unavailable"],
                "http_codes": [503],
                "grpc_codes": [14, 2],
                "attempts": 2,
                "base_ms": 200,
                "max_ms": 3000,
                "per_try_timeout_ms": 250,
            },
        }
    ]
    assert piece.needs == {PieceId(Kind.CLUSTERS, "one"), PieceId(Kind.CLUSTERS, "two")}


def test_a_refusing_route_answers_unavailable_with_its_message() -> None:
    route = Route("r", "r", RouteMatch(PathMatch(MatchKind.PREFIX, "/")), Refuse("no such Service"))
    piece = only_piece(route_tables=(RouteTable("t", (VirtualHost("*", (route,)),)),))
    action = piece.body["virtual_hosts"][0]["routes"][0]["action"]
    assert action == {
        "reply": {"grpc_status": 14, "http_status": 503, "message": "no such Service"}
    }
    assert piece.needs == frozenset()


@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.HTTP2])
def test_a_cluster_says_what_its_endpoints_speak(protocol: Protocol) -> None:
    piece = only_piece(upstreams=(Upstream("u", 1000, protocol=protocol),))
    assert piece.body["protocol"] == protocol


def test_a_cluster_keeps_ejection_limits_checks_and_peer_tls() -> None:
    upstream = Upstream(
        "import/app/users/9090/us-east-1",
        connect_timeout_ms=1000,
        outlier=OutlierDetection(consecutive_gateway_failures=None, max_ejection_percent=30),
        limits=ConnectionLimits(1000, 500, max_requests_per_connection=100),
        health_check=HealthCheck(3000, 1000, 3, 1, "users"),
        peer_tls=PeerTls(("spiffe://b",), "east-west.clusterset.local"),
    )
    piece = only_piece(upstreams=(upstream,))
    assert piece.body == {
        "name": "import/app/users/9090/us-east-1",
        "protocol": "http2",
        "connect_timeout_ms": 1000,
        "lb": "least_request",
        "keepalive": None,
        "outlier": {
            "consecutive_failures": 5,
            "consecutive_gateway_failures": None,
            "interval_ms": 10_000,
            "base_ejection_ms": 30_000,
            "max_ejection_ms": 300_000,
            "max_ejection_percent": 30,
        },
        "max_connections": 1000,
        "max_pending_requests": 500,
        "max_requests": None,
        "max_requests_per_connection": 100,
        "panic_percent": 50,
        "peer_tls": {
            "secret": "federation/identity",
            "ca": "federation/trust-bundle",
            "sni": "east-west.clusterset.local",
            "allowed_spiffe": ["spiffe://b"],
        },
        "health_check": True,
    }
    assert piece.needs == {IDENTITY, TRUST}
    assert piece.health == HealthPlan(3000, 1000, 3, 1, "users")


def test_endpoints_keep_cluster_priority_drain_and_peer() -> None:
    places = (
        LocalityEndpoints(
            ClusterId("us-west-1"), Region("us-west"), 0, 3, (Endpoint("10.0.0.1", 90),)
        ),
        LocalityEndpoints(
            ClusterId("us-east-1"),
            Region("us-east"),
            1,
            1,
            (Endpoint("fd00::7", 91, peer=True, draining=True, drain_grace_ms=3000),),
        ),
    )
    piece = only_piece(endpoint_sets=(EndpointSet("u", places),))
    near, far = piece.body["localities"]
    assert (near["cluster_id"], near["region"], near["priority"]) == ("us-west-1", "us-west", 0)
    assert near["weight"] == 3
    assert near["endpoints"][0]["address"] == "10.0.0.1:90"
    assert far["endpoints"] == [
        {
            "address": "[fd00::7]:91",
            "weight": 1,
            "health": "draining",
            "peer": True,
            "drain_grace_ms": 3000,
        }
    ]


def test_secrets_are_carried_and_never_shown() -> None:
    piece = only_piece(secrets=(TlsSecret("infra/web", b"CERT-TEXT", b"KEY-TEXT"),))
    assert piece.body["private_key_pem"] == "KEY-TEXT"
    assert "KEY-TEXT" not in repr(piece)


def test_unset_fields_mean_what_xds_means_by_them() -> None:
    table = route_pb2.RouteConfiguration(name="t")
    route = table.virtual_hosts.add(name="h", domains=["*"]).routes.add(name="r")
    route.match.prefix = "/"
    route.route.cluster = "c"
    route.route.retry_policy.retry_on = "unavailable"
    (body,) = translate_message(Kind.ROUTE_TABLES, table).body["virtual_hosts"][0]["routes"]
    assert body["timeout_ms"] == 15_000
    assert body["action"] == {"weighted": [{"cluster": "c", "weight": 1}]}
    assert (body["retry"]["attempts"], body["retry"]["base_ms"], body["retry"]["max_ms"]) == (
        1,
        25,
        250,
    )
    route.route.timeout.seconds = 0
    route.route.timeout.SetInParent()
    (body,) = translate_message(Kind.ROUTE_TABLES, table).body["virtual_hosts"][0]["routes"]
    assert body["timeout_ms"] is None


# Refusals: each change of a good resource, and the path that has to be named.


def good_listener() -> listener_pb2.Listener:
    listener = Listener("l", ListenerKind.INGRESS, 80, (FilterChain("f"),), "t")
    snapshot = Snapshot(cluster=ClusterId("c"), listeners=(listener,))
    return to_resources(snapshot, NodeView()).listeners["l"]


def good_cluster() -> cluster_pb2.Cluster:
    snapshot = Snapshot(cluster=ClusterId("c"), upstreams=(Upstream("u", 1000),))
    return to_resources(snapshot, NodeView()).clusters["u"]


def good_table() -> route_pb2.RouteConfiguration:
    table = route_pb2.RouteConfiguration(name="t")
    route = table.virtual_hosts.add(name="h", domains=["*"]).routes.add(name="r")
    route.match.prefix = "/"
    route.route.cluster = "c"
    return table


def good_endpoints() -> endpoint_pb2.ClusterLoadAssignment:
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name="u")
    entry = assignment.endpoints.add().lb_endpoints.add()
    entry.endpoint.address.socket_address.address = "10.0.0.1"
    entry.endpoint.address.socket_address.port_value = 90
    return assignment


def route_of(table: route_pb2.RouteConfiguration) -> route_components_pb2.Route:
    return table.virtual_hosts[0].routes[0]


def own(message: Any) -> Any:
    """Our own metadata on ``message``, to be changed."""
    return message.metadata.filter_metadata["federation.gateway"]


def retried_by(route: route_components_pb2.Route, **notes: Any) -> None:
    route.route.retry_policy.retry_on = "unavailable"
    own(route).update(notes)


Change = Callable[[Any], object]

REFUSALS: list[tuple[Kind, Callable[[], Any], Change, str]] = [
    (
        Kind.LISTENERS,
        good_listener,
        lambda m: setattr(m.use_original_dst, "value", True),
        "use_original_dst: not supported by this gateway",
    ),
    (
        Kind.LISTENERS,
        good_listener,
        lambda m: setattr(m.address.socket_address, "address", "gw.example.com"),
        "address.socket_address.address: must be an IP address, got 'gw.example.com'",
    ),
    (
        Kind.LISTENERS,
        good_listener,
        lambda m: m.ClearField("filter_chains"),
        "filter_chains: is empty",
    ),
    (
        Kind.LISTENERS,
        good_listener,
        lambda m: m.listener_filters.add(name="envoy.filters.listener.proxy_protocol"),
        "listener_filters[0]: must be envoy.filters.listener.tls_inspector",
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: setattr(m, "type", cluster_pb2.Cluster.STRICT_DNS),
        "type: must be EDS",
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: setattr(m, "lb_policy", cluster_pb2.Cluster.RANDOM),
        "lb_policy: must be LEAST_REQUEST, ROUND_ROBIN, RING_HASH or MAGLEV",
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: m.typed_extension_protocol_options.clear(),
        "typed_extension_protocol_options: must say which version of HTTP its endpoints speak",
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: m.health_checks.add().tcp_health_check.SetInParent(),
        "health_checks[0].tcp_health_check: not supported by this gateway",
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: setattr(m.outlier_detection.enforcing_consecutive_5xx, "value", 50),
        "outlier_detection.enforcing_consecutive_5xx: must be 0 or 100, got 50",
    ),
    (
        Kind.ROUTE_TABLES,
        good_table,
        lambda m: setattr(route_of(m).route, "cluster_header", "x"),
        "virtual_hosts[0].routes[0].route.cluster_header: not supported by this gateway",
    ),
    (
        Kind.ROUTE_TABLES,
        good_table,
        lambda m: setattr(route_of(m).route.retry_policy, "retry_on", "5xx,envoy-ratelimited"),
        "virtual_hosts[0].routes[0].route.retry_policy.retry_on: does not know envoy-ratelimited",
    ),
    (
        Kind.ROUTE_TABLES,
        good_table,
        lambda m: setattr(route_of(m).request_headers_to_add.add().header, "value", "%START_TIME%"),
        (
            "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value: format operators "
            "(%...%) are not supported"
        ),
    ),
    (
        Kind.ROUTE_TABLES,
        good_table,
        lambda m: setattr(route_of(m).redirect, "path_redirect", "/a?b"),
        "virtual_hosts[0].routes[0].redirect.path_redirect: must have no query",
    ),
    (
        Kind.ENDPOINTS,
        good_endpoints,
        lambda m: setattr(m.policy.overprovisioning_factor, "value", 200),
        "policy.overprovisioning_factor: must be 140, got 200",
    ),
    (
        Kind.ENDPOINTS,
        good_endpoints,
        lambda m: setattr(
            m.endpoints[0].lb_endpoints[0].endpoint.address.socket_address, "address", "pod.local"
        ),
        (
            "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "
            "must be an IP address, got 'pod.local'"
        ),
    ),
    (
        Kind.ENDPOINTS,
        good_endpoints,
        lambda m: setattr(
            m.endpoints[0].lb_endpoints[0].endpoint.address.socket_address, "port_value", 70_000
        ),
        (
            "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: "
            "must be between 0 and 65535, got 70000"
        ),
    ),
    (
        Kind.ENDPOINTS,
        good_endpoints,
        lambda m: setattr(m.endpoints[0].lb_endpoints[0], "health_status", 99),
        "endpoints[0].lb_endpoints[0].health_status: 99 is not known",
    ),
    (
        Kind.ENDPOINTS,
        good_endpoints,
        lambda m: own(m.endpoints[0].lb_endpoints[0]).update({"drain_grace_ms": float("inf")}),
        (
            "endpoints[0].lb_endpoints[0].metadata.federation.gateway.drain_grace_ms: "
            "must be a whole number, got inf"
        ),
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: own(m).update({"peer_keepalive": {"interval_ms": 300}}),
        "metadata.federation.gateway.peer_keepalive.timeout_ms: must be a whole number, got None",
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: own(m).update({"peer_keepalive": "often"}),
        (
            "metadata.federation.gateway.peer_keepalive: must be a map of interval_ms and "
            "timeout_ms, got 'often'"
        ),
    ),
    (
        Kind.CLUSTERS,
        good_cluster,
        lambda m: setattr(m.common_lb_config.healthy_panic_threshold, "value", float("nan")),
        "common_lb_config.healthy_panic_threshold: must be between 0 and 100, got nan",
    ),
    (
        Kind.ROUTE_TABLES,
        good_table,
        lambda m: retried_by(route_of(m), grpc_codes=14),
        "metadata.federation.gateway.grpc_codes: must be a list, got 14.0",
    ),
]


@pytest.mark.parametrize(("kind", "good", "change", "text"), REFUSALS)
def test_what_is_not_done_is_refused_with_its_path(
    kind: Kind, good: Callable[[], Any], change: Change, text: str
) -> None:
    message = good()
    translate_message(kind, message)
    change(message)
    with pytest.raises(UnsupportedFieldError) as refusal:
        translate_message(kind, message)
    assert str(refusal.value) == text


@pytest.mark.parametrize("depth", ["top", "struct", "list"])
def test_metadata_with_a_value_that_holds_nothing_is_refused(depth: str) -> None:
    message = good_table()
    own = route_of(message).metadata.filter_metadata["federation.gateway"]
    if depth == "struct":
        own = own.get_or_create_struct("inner")
    if depth == "list":
        own.get_or_create_list("inner").values.add()
    else:
        own.fields["unset"].SetInParent()
    with pytest.raises(UnsupportedFieldError) as refusal:
        translate_message(Kind.ROUTE_TABLES, message)
    assert str(refusal.value) == "metadata.federation.gateway: has a value that is not set"


def test_a_resource_of_another_type_or_name_is_refused() -> None:
    body = any_pb2.Any()
    body.Pack(good_table())
    with pytest.raises(UnsupportedFieldError, match=r"must be a envoy\.config\.cluster\.v3"):
        translate(Kind.CLUSTERS, "t", body)
    with pytest.raises(UnsupportedFieldError, match="name: is 't'"):
        translate(Kind.ROUTE_TABLES, "other", body)
